"""``hybridcsp generators``, ``train``, ``sample`` and ``evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hybridcsp.cli.app import app, number, parse_units
from hybridcsp.cli.console import console, errors
from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.utils.files import atomic_write, check_writable, make_folder
from hybridcsp.utils.quantities import read_quantity

if TYPE_CHECKING:
    from hybridcsp.generators import Epoch, Generator
    from hybridcsp.generators.evaluation import Scored

#: Of a training, in the folder that is written.
CHECKPOINT = "checkpoint.safetensors"

#: Cells of which missing samples are named.
_NAMED = 10

#: The course of a training, in the same folder.
CURVE = "curve.csv"
PICTURE = "curve.png"

_Generator = Annotated[
    str, typer.Argument(metavar="GENERATOR", help="A name (hybridcsp generators), or a folder of weights.")
]
_Data = Annotated[list[Path], typer.Option("--data", metavar="PATH", help="Files or folders of crystals; repeatable.")]
_Seed = Annotated[int, typer.Option(help="Random seed.", min=0)]
_MaxAtoms = Annotated[int, typer.Option(help="Leave out larger primitive cells.", min=1)]


@app.command()
def generators() -> None:
    """List the generators, and what each was trained on."""
    from rich.table import Table

    from hybridcsp.generators import GENERATORS
    from hybridcsp.generators.opening import read_card
    from hybridcsp.generators.storage import CARD, shipped
    from hybridcsp.registry import OURS

    table = Table(box=None, show_header=False)
    for entry in GENERATORS.entries().values():
        if entry.package != OURS:
            trained = f"from {entry.package}"
        elif (shipped(entry.name) / CARD).exists():
            trained = _trained_on(read_card(shipped(entry.name)))
        else:
            trained = "no weights here: train it"
        table.add_row(f"[bold]{entry.name}[/]", entry.summary, f"[dim]{trained}[/]")
    console.print(table)
    console.print("Or a folder of weights that hybridcsp train has written.")


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp train wyckoff --data mp20.extxyz --data my_structures/ --output my_wyckoff\n\n"
    "  hybridcsp train my_wyckoff --data oxides.extxyz --output oxides --epochs 20 --learning-rate 2e-4\n\n"
    "  hybridcsp train flow --data mp20.extxyz --output my_flow --set batch_size=256 --set device=cuda"
)
def train(
    generator: _Generator,
    data: _Data,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for weights, card and curve.", show_default="GENERATOR-trained"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most passes over the data.", min=1, show_default="the generator's, mostly 100"),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            metavar="RATE", help="Learning rate of the optimiser.", show_default="the generator's, mostly 0.001"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the training; repeatable."),
    ] = None,
    max_atoms: _MaxAtoms = 20,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the curve to a .png, .pdf or .svg file.", show_default="curve.png in the folder"
        ),
    ] = None,
    seed: _Seed = 0,
) -> None:
    """Train a generator on crystals.

    A name begins with an untrained one, a folder of weights goes on from these. A tenth of the formulas is held out and
    tells when to stop. Stop it at any moment and run the same command again to go on where it was. On a GPU it uses
    mixed precision. Where frames carry e_above_hull, it learns to aim low.

    It ends with the curve of the held-out loss, also as curve.csv and curve.png in the folder, and with a verdict:
    whether the loss was still falling or has levelled off, and whether the weights are better than those it began with.
    """
    from hybridcsp.analysis.learning_curve import LearningCurve, verdict
    from hybridcsp.analysis.plots import check_picture
    from hybridcsp.generators.datasets import read_dataset
    from hybridcsp.generators.opening import find_generator, new_generator, open_generator

    entry, folder = find_generator(generator)
    chosen = _settings(settings or [], epochs, learning_rate)
    output = output or Path(f"{entry.name}-trained")
    picture = plot or output / PICTURE
    check_picture(picture, "--plot")
    for path in data:
        if not path.exists():
            raise InputError("--data", str(path), "no such file or folder")
    if (output / "card.json").exists():
        raise InputError("--output", str(output), "holds weights already; choose another folder")
    with _busy(f"loading {generator}"):
        model = new_generator(entry.name) if folder is None else open_generator(generator)
    before = dict(model.card)
    with _busy("reading crystals"):
        dataset = read_dataset(data, max_atoms=max_atoms)
    skipped = ", ".join(f"{n} {reason}" for reason, n in dataset.skipped.items())
    console.print(f"{len(dataset.examples)} crystals" + (f" (left out: {skipped})" if skipped else ""))
    try:
        with _folder(output):
            curve = LearningCurve(output / CURVE, going_on=any(output.glob(f"*{CHECKPOINT}")))
            with _busy("encoding the crystals, then the first epoch") as say:

                def on_epoch(epoch: Epoch) -> None:
                    curve.add(epoch)
                    _tell(epoch)
                    say(f"{epoch.part + ', ' if epoch.part else ''}epoch {epoch.number + 1}")

                model.fit(dataset.examples, seed=seed, checkpoint=output / CHECKPOINT, on_epoch=on_epoch, **chosen)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on from here.")
        raise typer.Exit(130) from None
    formulas = {f for card in (before, model.card) for f in str(card.get("training_formulas", "")).split()}
    model.card = {
        **model.card,
        "data": dataset.provenance,
        **({"training_formulas": " ".join(sorted(formulas))} if formulas else {}),
    }
    model.save(output)
    for checkpoint in output.glob(f"*{CHECKPOINT}"):
        checkpoint.unlink()
    if curve.parts:
        curve.draw(picture, f"{entry.name}, {len(dataset.examples)} crystals")
        for line in curve.lines():
            console.print(f"Held-out loss  {line}", highlight=False, soft_wrap=True)
        for part, done in curve.parts.items():
            judged = verdict(done, pretrained=folder is not None)
            console.print(f"Verdict{f' on {part}' if part else ''}: {judged}.", highlight=False, soft_wrap=True)
        console.print(f"The curve is in {picture}", highlight=False, soft_wrap=True)
    where = quote(str(output))
    console.print(
        f"Weights are in {output}. Test them on crystals they have not seen: hybridcsp evaluate {where} --data PATH; "
        f"use them: hybridcsp search FORMULA --source generative:{where}",
        highlight=False,
        soft_wrap=True,
    )


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --formula-units 1-4 --n 100 --output t.xyz\n\n"
    "  hybridcsp sample my_flow/ --formula MgSiO3 --spacegroup 62 --n 20 --output pv.xyz\n\n"
    "  hybridcsp sample wyckoff --formulas cells.txt --n 20 --output samples.extxyz\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --n 40 --format uspex --output uspex_run"
)
def sample(
    generator: _Generator,
    output: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="A file: .extxyz, .cif, .json, .res, also .gz; a folder (best/) gets a file for each crystal; with "
            "--format the folder that code runs in.",
        ),
    ],
    formula: Annotated[str | None, typer.Option(metavar="FORMULA", help="One formula unit.")] = None,
    formula_units: Annotated[
        str, typer.Option(metavar="N|LOW-HIGH", help="Formula units in the primitive cell: 2, or 1-4.")
    ] = "1",
    formulas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of --formula: one cell per line, with its exact contents (Ti2O4); blank lines and # comments "
            "are skipped.",
        ),
    ] = None,
    n: Annotated[
        int,
        typer.Option(
            "--n",
            metavar="N",
            help="Number of crystals: in all with --formula, spread evenly over the numbers of formula units; for each "
            "line with --formulas.",
            min=1,
        ),
    ] = 1,
    each: Annotated[
        bool, typer.Option("--each", help="With --formula: N crystals for each number of formula units.")
    ] = False,
    spacegroup: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Space group.", min=1, max=230, show_default="any")
    ] = None,
    energy_quantile: Annotated[
        str | None,
        typer.Option(
            metavar="0_TO_1", help="0: as stable as crystals of such contents get.", show_default="not conditioned"
        ),
    ] = None,
    pressure: Annotated[
        str | None,
        typer.Option(metavar="GPA", help="Pressure in GPa, or with its unit: 500kbar.", show_default="not conditioned"),
    ] = None,
    seed: _Seed = 0,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="Write seeds for another code (hybridcsp formats).", show_default="extended XYZ"
        ),
    ] = None,
) -> None:
    """Sample crystals of given contents.

    What a generator cannot make is asked for again, three times at most. If crystals are missing then, those that were
    made are written, the others are named with the reasons, and the exit status is 1. Each frame carries request (the
    number of the line in --formulas from 0, or of its cell size with --formula), formula_units with --formula, and
    log_likelihood where the model knows it.
    """
    import ase.io

    from hybridcsp import formats
    from hybridcsp.generators import Request
    from hybridcsp.generators.opening import one_thread, open_generator
    from hybridcsp.generators.writing import write_samples
    from hybridcsp.io.writing import format_of

    if format is not None:
        formats.load(format)
    else:
        format_of(output, key="--output")
    if (formula is None) == (formulas is None):
        raise InputError("--formula", formula, "either --formula, or --formulas FILE")
    if formulas is not None and formula_units != "1":
        raise InputError("--formula-units", formula_units, "only with --formula: lines of --formulas are whole cells")
    if formulas is not None and each:
        raise InputError("--each", each, "only with --formula: --n is for each line of --formulas in any case")
    if formulas is not None:
        cells, notes = dict(_lines(formulas)), {}
        wanted = dict.fromkeys(cells, n)
    else:
        low, high = parse_units(formula_units)
        cells = {i: _contents(str(formula), low + i, "--formula") for i in range(high - low + 1)}
        if not cells:
            raise InputError("--formula-units", formula_units, "a whole number, or two in order: 1-4")
        wanted = {i: n if each else n // len(cells) + (i < n % len(cells)) for i in cells}
        notes = {i: {"formula_units": low + i} for i in cells}
    asked = {
        "spacegroup": spacegroup,
        "energy_quantile": None if energy_quantile is None else _fraction("--energy-quantile", energy_quantile),
        "pressure_gpa": None if pressure is None else read_quantity("--pressure", pressure, "GPa"),
    }
    with _busy(f"loading {generator}"):
        model = open_generator(generator)
    _check_conditions(model, asked)
    requests = [(i, Request(contents=cells[i], **asked)) for i in cells for _ in range(wanted[i])]  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        file = output if format is None else str(Path(folder) / "samples.extxyz")
        if format is None:
            make_folder(Path(output).parent, key="--output")
        with one_thread(), _bar("crystals", len(requests)) as advance:
            written = write_samples(file, model, requests, seed, advance, notes)
        made = written.made.total()
        note = formats.write(ase.io.iread(file), Path(output), format) if format is not None and made else ""
    if not made:
        lost = ", ".join(f"{count} {reason}" for reason, count in written.reasons.items())
        raise GeneratorError(f"{model.name} has made none of {len(requests)} crystals: {lost}")
    how = f", {n} for each line of {formulas}" if formulas else ""
    if formula is not None and len(cells) > 1:
        spread = ", ".join(f"{written.made[i]} of {notes[i]['formula_units']}" for i in cells)
        how = f", {n} for each number of formula units: {spread}" if each else f", in all, by formula units: {spread}"
    console.print(f"{made} of {len(requests)} crystals in {output}{how}", highlight=False, soft_wrap=True, markup=False)
    if note:
        console.print(note, soft_wrap=True, markup=False, highlight=False)
    if left_out := [str(notes[i]["formula_units"]) for i in cells if not wanted[i]]:
        console.print(
            f"None asked for with {', '.join(left_out)} formula units, as --n {n} is in all; --each asks for {n} each.",
            highlight=False,
            soft_wrap=True,
        )
    if written.missing:
        errors.print(
            _missing(written.missing, cells, len(requests) - made), highlight=False, soft_wrap=True, markup=False
        )
        raise typer.Exit(1)


def _missing(missing: Mapping[int, Mapping[str, int]], cells: Mapping[int, Mapping[str, int]], total: int) -> str:
    """Say which crystals could not be made, and why."""
    lines = [f"{total} crystals are missing:"]
    for group, reasons in list(missing.items())[:_NAMED]:
        contents = "".join(f"{symbol}{count}" for symbol, count in cells[group].items())
        lines.append(f"  {contents}: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()))
    if len(missing) > _NAMED:
        lines.append(f"  and those of {len(missing) - _NAMED} more cells")
    return "\n".join(lines)


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp evaluate wyckoff --data held_out.extxyz\n\n"
    "  hybridcsp evaluate my_flow/ --data mp20.extxyz --samples 20 --crystals 500 --output scores.json"
)
def evaluate(
    generator: _Generator,
    data: _Data,
    samples: Annotated[int, typer.Option(metavar="N", help="Samples for each crystal.", min=1)] = 20,
    crystals: Annotated[
        int | None, typer.Option(metavar="N", help="Most crystals, drawn at random.", min=1, show_default="all")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Crystals that do not count as new; repeatable.", show_default="all of --data"
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Include crystals of formulas that it has learned from.")
    ] = False,
    max_atoms: _MaxAtoms = 20,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the summary and the scores of each crystal as JSON."),
    ] = None,
    seed: _Seed = 0,
) -> None:
    """Report match rate, RMSE, validity, uniqueness and novelty.

    For each crystal the generator is told the contents of the primitive cell and nothing else. There are two matches,
    with their tolerances in the table: the published one of StructureMatcher, which is wide, and the strict one that
    tells the minima of a search apart. Nothing is filtered before. Validity, uniqueness, novelty (both by the strict
    match) and symmetry (at 0.1 Å) are shares of samples.
    """
    import numpy as np

    from hybridcsp.generators.datasets import formula_of, read_dataset
    from hybridcsp.generators.evaluation import evaluate as score
    from hybridcsp.generators.evaluation import index_of, summarise
    from hybridcsp.generators.opening import one_thread, open_generator
    from hybridcsp.generators.storage import overlap

    for option, paths in (("--data", data), ("--known", known or [])):
        for path in paths:
            if not path.exists():
                raise InputError(option, str(path), "no such file or folder")
    if output is not None:
        make_folder(output.parent, key="--output")
        check_writable(output, key="--output", follow=True)
    with _busy(f"loading {generator}"):
        model = open_generator(generator)
    with _busy("reading crystals"):
        examples = read_dataset(data, max_atoms=max_atoms).examples
        others = examples if not known else read_dataset(known, max_atoms=max_atoms).examples
    learned = frozenset() if everything else overlap(model.card, {formula_of(e.atoms) for e in examples})
    targets = [example.atoms for example in examples if formula_of(example.atoms) not in learned]
    if not targets:
        raise InputError("--data", [str(path) for path in data], "nothing but what it has learned from; --everything?")
    if crystals is not None and crystals < len(targets):
        chosen = np.random.default_rng(seed).choice(len(targets), crystals, replace=False)
        targets = [targets[i] for i in sorted(chosen)]
    if len(learned):
        console.print(f"Left out: crystals of {len(learned)} formulas that it has learned from.")
    with one_thread(), _bar("crystals", len(targets)) as advance:
        scored = score(
            model,
            targets,
            samples=samples,
            seed=seed,
            known=index_of(example.atoms for example in others),
            progress=lambda group: advance(len(group)),
        )
    ks = sorted({1, samples})
    summary = summarise(scored, ks)
    _show(summary, ks)
    if output is not None:
        _write_scores(output, generator, summary, scored)


def _trained_on(card: Mapping[str, Any]) -> str:
    shown = [f"trained on {card.get('crystals', '?')} crystals of {card.get('formulas', '?')} formulas"]
    data = card.get("data")
    if isinstance(data, str):
        shown.append(data)
    elif isinstance(data, Mapping):
        shown += [str(file["name"]) for file in data.get("files", [])]
    return ", ".join(shown)


def _tell(epoch: Epoch) -> None:
    losses = "  ".join(f"{name} {value:.4f}" for name, value in epoch.losses.items())
    best = "  best" if epoch.best else ""
    what = f"{epoch.part}, epoch" if epoch.part else "epoch"
    console.print(f"{what} {epoch.number}  {epoch.seconds:.0f} s  {losses}{best}", highlight=False, soft_wrap=True)


def _settings(given: list[str], epochs: int | None, learning_rate: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError("--set", text, "KEY=VALUE")
        if key in ("seed", "checkpoint", "on_epoch"):
            raise InputError("--set", text, "a setting of the training; for the seed there is --seed")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    if epochs is not None:
        found["epochs"] = epochs
    if learning_rate is not None:
        found["learning_rate"] = number("--learning-rate", learning_rate, "a positive number")
    return found


def _lines(file: Path) -> Iterator[tuple[int, dict[str, int]]]:
    """Contents by the number of their line, from 0; blank lines and comments count, but ask for nothing."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("--formulas", str(file), f"a text file ({error})") from error
    asked = {i: line.strip() for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")}
    if not asked:
        raise InputError("--formulas", str(file), "at least one formula")
    for i, formula in asked.items():
        yield i, _contents(formula, 1, f"--formulas, line {i + 1}")


def _contents(formula: str, units: int, key: str) -> dict[str, int]:
    from hybridcsp.problem import Problem

    if units < 1:
        raise InputError("--formula-units", units, "a whole number from 1")
    try:
        composition = Problem(formula, formula_units=1, max_atoms=10**6).composition
    except InputError as error:
        raise InputError(key, formula, error.allowed) from None
    return {symbol: count * units for symbol, count in composition.items()}


def _fraction(key: str, text: str) -> float:
    value = number(key, text, "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise InputError(key, text, "a number from 0 to 1")
    return value


def _check_conditions(model: Generator, asked: Mapping[str, Any]) -> None:
    from hybridcsp.generators import Condition

    of = {"spacegroup": Condition.SPACEGROUP, "energy_quantile": Condition.ENERGY, "pressure_gpa": Condition.PRESSURE}
    for name, condition in of.items():
        if asked[name] is not None and condition not in model.conditions:
            known = ", ".join(sorted(model.conditions)) or "nothing but contents"
            raise InputError(f"--{condition}", asked[name], f"{model.name} cannot be asked for it; it knows {known}")


@contextmanager
def _busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, and for how long, in a terminal; give a function that says what is done next."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(what, total=None)
    if console.is_terminal:
        bar.start()
    else:
        console.print(f"{what} …", highlight=False)
    try:
        yield lambda text: bar.update(task, description=text)
    finally:
        bar.stop()


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)


def _show(summary: Mapping[str, Any], ks: list[int]) -> None:
    from rich.table import Table

    from hybridcsp.generators.evaluation import tolerances

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    matches = Table(box=None)
    for heading in ("", "match", "strict match"):
        matches.add_column(heading, justify="left" if not heading else "right")
    for k in ks:
        matches.add_row(
            f"match rate at {k}", share(summary[f"match rate at {k}"]), share(summary[f"strict match rate at {k}"])
        )
    wide, strict = tolerances().values()
    for name in wide:
        shown = ["scaled away" if one[name] is None else f"{one[name]:g}" for one in (wide, strict)]
        matches.add_row(f"  tolerance: {name}", *shown)
    console.print(matches)
    shares = ("valid", "unique", "new", "symmetric")
    table = Table(box=None, show_header=False)
    for name, value in summary.items():
        if "match rate" in name:
            continue
        if isinstance(value, dict):
            shown_value = ", ".join(f"{count} {reason}" for reason, count in value.items()) or "none"
        elif name in shares:
            shown_value = share(value)
        elif isinstance(value, float):
            shown_value = f"{value:.3g}"
        else:
            shown_value = "-" if value is None else str(value)
        table.add_row(name, shown_value)
    console.print(table)


def _write_scores(output: Path, generator: str, summary: Mapping[str, Any], scored: list[Scored]) -> None:
    from dataclasses import asdict

    from hybridcsp.generators.evaluation import tolerances

    scores = {"generator": generator, "tolerances": tolerances(), "summary": summary}
    text = json.dumps({**scores, "crystals": [asdict(one) for one in scored]})
    with atomic_write(output, key="--output", follow=True) as file:
        file.write(text + "\n")
    console.print(f"scores are in {output}")


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and take it away again if an error leaves nothing in it."""
    new = not path.exists()
    make_folder(path, key="--output")
    try:
        yield
    except BaseException:
        if new and not any(path.iterdir()):
            path.rmdir()
        raise
