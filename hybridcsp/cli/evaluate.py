"""Provide the command ``hybridcsp evaluate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.generators import DATA, MAX_ATOMS, SEED, check_exists
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.cli.progress import bar, busy
from hybridcsp.errors import InputError
from hybridcsp.utils.files import atomic_write, check_writable, make_folder

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.generators.metrics import Scored


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp evaluate wyckoff --data held_out.extxyz\n\n"
    "  hybridcsp evaluate my_flow/ --data mp20.extxyz --samples 20 --crystals 500 --output scores.json\n\n"
    "  hybridcsp evaluate --fidelity --data mp20.extxyz --crystals 500 --output crystals.csv --plot fidelity.png\n\n"
    "  hybridcsp evaluate --fidelity ftcp-1/ ftcp-2/ --data held_out.extxyz"
)
def evaluate(
    data: DATA,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="GENERATOR",
            help="Name of a generator (see hybridcsp generators), or a folder of weights; with --fidelity any number.",
            show_default="none",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Number of samples per crystal.", min=1, show_default="20")
    ] = None,
    crystals: Annotated[
        int | None, typer.Option(metavar="N", help="Number of crystals, drawn at random.", min=1, show_default="all")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Known crystals, which do not count as novel. Repeatable.",
            show_default="all of --data",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Include formulas that the generator was trained on.")
    ] = False,
    max_atoms: MAX_ATOMS = 20,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the scores of each crystal to a JSON file, with --fidelity also CSV (.csv).",
            show_default="none",
        ),
    ] = None,
    fidelity: Annotated[
        bool,
        typer.Option("--fidelity", help="Measure what is lost when crystals are encoded and decoded again instead."),
    ] = False,
    representation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Representation for --fidelity: voxels, voxels-published, ftcp, point-cloud, wyckoff or log-lattice. "
            "Repeatable.",
            show_default="all, or none if generators are given",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot the fidelity to a .png, .pdf or .svg file.", show_default="none"),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of crystals that --fidelity lists, the worst first.", min=0, show_default="3"
        ),
    ] = None,
    seed: SEED = 0,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Report match rate, RMSE, validity, uniqueness and novelty of samples, or the fidelity of reconstructions.

    For each crystal, the generator is given only the contents of the primitive cell. Two criteria for a match are
    reported with their tolerances: the one of pymatgen's StructureMatcher that publications use, which is wide, and
    the strict one that distinguishes minima in a search. Samples are not filtered. Validity, uniqueness, novelty (both
    by the strict criterion) and symmetry (at 0.1 Å) are fractions of all samples.

    With --fidelity, the crystals go through the representations that generators learn from, without a network, and
    through generators with an encoder: how many come back, how far the atoms and the cell are off, and which crystals
    lose most. The results of several folders of one generator are also combined, with their spread.
    """
    from hybridcsp.cli.fidelity import FidelityChoices, measure_fidelity
    from hybridcsp.generators.datasets import formula_of, read_dataset
    from hybridcsp.generators.loading import one_thread, open_generator
    from hybridcsp.generators.metrics import evaluate as score
    from hybridcsp.generators.metrics import index_of, summarise, tolerances
    from hybridcsp.generators.weights_io import overlap

    for option, paths in (("--data", data), ("--known", known or [])):
        for path in paths:
            check_exists(option, path)
    _check_options(
        fidelity,
        {"--samples": samples, "--known": known or None, "--everything": everything or None},
        {"--representation": representation or None, "--plot": plot, "--worst": worst},
    )
    if fidelity:

        def read() -> list[Atoms]:
            with busy("reading crystals"):
                found = [example.atoms for example in read_dataset(data, max_atoms=max_atoms).examples]
            return _drawn(found, crystals, seed)

        measure_fidelity(
            FidelityChoices(
                models=models or (),
                representations=representation or (),
                output=output,
                plot=plot,
                worst=3 if worst is None else worst,
                as_json=as_json,
                as_csv=as_csv,
            ),
            read,
        )
        return
    if len(models or ()) != 1:
        raise InputError("GENERATOR", models, "one generator; several can be given with --fidelity")
    generator, samples = (models or [""])[0], samples or 20
    if output is not None:
        make_folder(output.parent, key="--output")
        check_writable(output, key="--output", follow=True)
    with busy(f"loading {generator}"):
        model = open_generator(generator)
    with busy("reading crystals"):
        examples = read_dataset(data, max_atoms=max_atoms).examples
        others = examples if not known else read_dataset(known, max_atoms=max_atoms).examples
    learned = frozenset() if everything else overlap(model.card, {formula_of(e.atoms) for e in examples})
    targets = [example.atoms for example in examples if formula_of(example.atoms) not in learned]
    if not targets:
        raise InputError(
            "--data",
            [str(path) for path in data],
            reason="the generator was trained on crystals of all these formulas; add --everything to use them anyway",
        )
    targets = _drawn(targets, crystals, seed)
    if len(learned):
        errors.print(f"Skipped crystals of {len(learned)} formulas that the generator was trained on.")
    with one_thread(), bar("crystals", len(targets)) as advance:
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
    about = {"generator": generator, "tolerances": tolerances(), "summary": summary}
    if not print_table([{"generator": generator, **summary}], as_json=as_json, as_csv=as_csv, about=about):
        _show(summary, ks)
    if output is not None:
        _write_scores(output, about, scored)


def _check_options(fidelity: bool, of_samples: Mapping[str, Any], of_fidelity: Mapping[str, Any]) -> None:
    """Check that no option is given that belongs to the other kind of evaluation."""
    for option, value in (of_samples if fidelity else of_fidelity).items():
        if value is not None:
            reason = (
                "it is for samples; leave out --fidelity" if fidelity else "it belongs to --fidelity; add this option"
            )
            raise InputError(option, value, reason=reason)


def _drawn(crystals: list[Atoms], count: int | None, seed: int) -> list[Atoms]:
    """Return some crystals drawn at random, in their order; all if none or a larger number is wanted."""
    import numpy as np

    if count is None or count >= len(crystals):
        return crystals
    chosen = np.random.default_rng(seed).choice(len(crystals), count, replace=False)
    return [crystals[i] for i in sorted(chosen)]


def _show(summary: Mapping[str, Any], ks: list[int]) -> None:
    from rich.table import Table

    from hybridcsp.generators.metrics import tolerances

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
        shown = ["scaled" if one[name] is None else f"{one[name]:g}" for one in (wide, strict)]
        matches.add_row(f"  tolerance: {name}", *shown)
    console.print(matches)
    shares = ("valid", "unique", "new", "symmetric")
    table = Table(box=None, show_header=False)
    for name, value in summary.items():
        if "match rate" in name:
            continue
        if isinstance(value, dict):
            text = ", ".join(f"{count} {reason}" for reason, count in value.items()) or "none"
        elif name in shares:
            text = share(value)
        elif isinstance(value, float):
            text = f"{value:.3g}"
        else:
            text = "-" if value is None else str(value)
        table.add_row(name, text)
    console.print(table)


def _write_scores(output: Path, about: Mapping[str, Any], scored: list[Scored]) -> None:
    from dataclasses import asdict

    text = json.dumps({**about, "crystals": [asdict(one) for one in scored]})
    with atomic_write(output, key="--output", follow=True) as file:
        file.write(text + "\n")
    errors.print(f"Wrote scores to {output}", highlight=False, soft_wrap=True, markup=False)
