"""``hybridcsp generators``, ``train``, ``sample`` and ``evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hybridcsp.cli.app import app, number, parse_units
from hybridcsp.cli.console import console
from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.utils.files import atomic_write, check_writable, make_folder

if TYPE_CHECKING:
    from hybridcsp.generators import Epoch, Generator
    from hybridcsp.generators.evaluation import Scored

#: Of a training, in the folder that is written.
CHECKPOINT = "checkpoint.safetensors"

_Generator = Annotated[str, typer.Argument(metavar="GENERATOR", help="A name (hybridcsp generators), or a folder.")]
_Data = Annotated[list[Path], typer.Option("--data", metavar="PATH", help="Files or folders of crystals; repeatable.")]


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
    output: Annotated[Path | None, typer.Option(help="Folder for the weights; by default GENERATOR-trained.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the data.", min=1)] = None,
    learning_rate: Annotated[str | None, typer.Option(metavar="RATE", help="Of the optimiser.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the training.")
    ] = None,
    max_atoms: Annotated[int, typer.Option(help="Larger primitive cells are left out.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of all randomness.", min=0)] = 0,
) -> None:
    """Train a generator on crystals: a new one by its name, one that has learned already by its folder.

    A tenth of the formulas is held out and tells when to stop. Stop it at any moment and run the same command again to
    go on where it was. On a GPU it uses mixed precision. Where frames carry e_above_hull, it learns to aim low.
    """
    from hybridcsp.generators.datasets import read_dataset
    from hybridcsp.generators.opening import find_generator, new_generator, open_generator

    entry, folder = find_generator(generator)
    chosen = _settings(settings or [], epochs, learning_rate)
    output = output or Path(f"{entry.name}-trained")
    for path in data:
        if not path.exists():
            raise InputError("--data", str(path), "no such file or folder")
    if (output / "card.json").exists():
        raise InputError("--output", str(output), "holds weights already; choose another folder")
    model = new_generator(entry.name) if folder is None else open_generator(generator)
    before = dict(model.card)
    with console.status("reading"):
        dataset = read_dataset(data, max_atoms=max_atoms)
    skipped = ", ".join(f"{n} {reason}" for reason, n in dataset.skipped.items())
    console.print(f"{len(dataset.examples)} crystals" + (f" (left out: {skipped})" if skipped else ""))
    try:
        with _folder(output):
            model.fit(dataset.examples, seed=seed, checkpoint=output / CHECKPOINT, on_epoch=_tell, **chosen)
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
    console.print(f"Weights are in {output}: hybridcsp search FORMULA --source generative:{output}", soft_wrap=True)


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --formula-units 1-4 --n 100 --seed 1 --output tio2.extxyz\n\n"
    "  hybridcsp sample my_flow/ --formula MgSiO3 --formula-units 4 --spacegroup 62 --n 20 --output pv.extxyz\n\n"
    "  hybridcsp sample wyckoff --formulas cells.txt --n 20 --output samples.extxyz     20 for each line\n\n"
    "  hybridcsp sample wyckoff --formula TiO2 --formula-units 1-4 --n 40 --format uspex --output uspex_run   seeds"
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
    formula: Annotated[str | None, typer.Option(help="One formula unit.")] = None,
    formula_units: Annotated[str, typer.Option(help="In the primitive cell: 2 or 1-4.")] = "1",
    formulas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead: one cell per line, with its exact contents (Ti2O4); blank lines and # comments are passed "
            "over.",
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="Crystals: in all with --formula, for each line with --formulas.", min=1)
    ] = 1,
    spacegroup: Annotated[int | None, typer.Option(help="A space group number.", min=1, max=230)] = None,
    energy_quantile: Annotated[
        str | None, typer.Option(metavar="FROM_0_TO_1", help="0: as stable as crystals of such contents get.")
    ] = None,
    pressure: Annotated[str | None, typer.Option(metavar="GPA", help="In GPa.")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.", min=0)] = 0,
    format: Annotated[
        str | None, typer.Option(metavar="CODE", help="Write seeds for another code; hybridcsp formats lists them.")
    ] = None,
) -> None:
    """Sample crystals of given contents.

    Each frame carries request, the number of the line in --formulas (from 0) or of its cell size with --formula, and
    log_likelihood where the model knows it. Requests that come to nothing are counted and have no frame.
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
    if formulas is not None:
        cells = dict(_lines(formulas))
        each = dict.fromkeys(cells, n)
    else:
        low, high = parse_units(formula_units)
        cells = {i: _contents(str(formula), low + i, "--formula") for i in range(high - low + 1)}
        if not cells:
            raise InputError("--formula-units", formula_units, "a whole number, or two in order: 1-4")
        each = {i: n // len(cells) + (i < n % len(cells)) for i in cells}
    asked = {
        "spacegroup": spacegroup,
        "energy_quantile": None if energy_quantile is None else _fraction("--energy-quantile", energy_quantile),
        "pressure_gpa": None if pressure is None else number("--pressure", pressure, "a pressure in GPa"),
    }
    model = open_generator(generator)
    _check_conditions(model, asked)
    requests = [(i, Request(contents=cells[i], **asked)) for i in cells for _ in range(each[i])]  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        file = output if format is None else str(Path(folder) / "samples.extxyz")
        if format is None:
            make_folder(Path(output).parent, key="--output")
        with one_thread(), _bar("crystals", len(requests)) as advance:
            made, reasons = write_samples(file, model, requests, seed, advance)
        note = formats.write(ase.io.iread(file), Path(output), format) if format is not None and made else ""
    lost = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    if not made:
        raise GeneratorError(f"{model.name} has made none of {len(requests)} crystals: {lost}")
    console.print(
        f"{made} of {len(requests)} crystals in {output}" + (f"; none for {lost}" if lost else ""), soft_wrap=True
    )
    if note:
        console.print(note, soft_wrap=True, markup=False, highlight=False)


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp evaluate wyckoff --data held_out.extxyz\n\n"
    "  hybridcsp evaluate my_flow/ --data mp20.extxyz --samples 20 --crystals 500 --output scores.json"
)
def evaluate(
    generator: _Generator,
    data: _Data,
    samples: Annotated[int, typer.Option(help="For each crystal.", min=1)] = 20,
    crystals: Annotated[int | None, typer.Option(help="At most so many, drawn at random.", min=1)] = None,
    known: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Crystals that are not new; by default all of --data.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Also crystals of formulas that it has learned from.")
    ] = False,
    max_atoms: Annotated[int, typer.Option(help="Larger primitive cells are left out.", min=1)] = 20,
    output: Annotated[Path | None, typer.Option(help="Write summary and scores of each crystal as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.", min=0)] = 0,
) -> None:
    """Tell how often a generator makes the crystal that is known for given contents, and what else it makes.

    A match is StructureMatcher's, with stol 0.5, ltol 0.3 and angle_tol 10; nothing is filtered before. Validity,
    uniqueness, novelty and symmetry (at 0.1 Å) are shares of samples.
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
    model = open_generator(generator)
    with console.status("reading"):
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
        console.print(f"left out: crystals of {len(learned)} formulas that it has learned from")
    with one_thread(), _bar("crystals", len(targets)) as advance:
        scored = score(
            model,
            targets,
            samples=samples,
            seed=seed,
            known=index_of(example.atoms for example in others),
            progress=lambda group: advance(len(group)),
        )
    summary = summarise(scored, sorted({1, samples}))
    _show(summary)
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
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)


def _show(summary: Mapping[str, Any]) -> None:
    from rich.table import Table

    shares = ("match rate", "valid", "unique", "new", "symmetric")
    table = Table(box=None, show_header=False)
    for name, value in summary.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{count} {reason}" for reason, count in value.items()) or "none"
        elif isinstance(value, float):
            shown = f"{value:.1%}" if name.startswith(shares) and "second" not in name else f"{value:.3g}"
        else:
            shown = "-" if value is None else str(value)
        table.add_row(name, shown)
    console.print(table)


def _write_scores(output: Path, generator: str, summary: Mapping[str, Any], scored: list[Scored]) -> None:
    from dataclasses import asdict

    text = json.dumps({"generator": generator, "summary": summary, "crystals": [asdict(one) for one in scored]})
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
