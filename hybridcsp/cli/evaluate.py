"""Provide the command ``hybridcsp evaluate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.generators import DATA, GENERATOR, MAX_ATOMS, SEED, check_exists
from hybridcsp.cli.output import AsCsv, AsJson, print_table
from hybridcsp.cli.progress import bar, busy
from hybridcsp.errors import InputError
from hybridcsp.utils.files import atomic_write, check_writable, make_folder

if TYPE_CHECKING:
    from hybridcsp.generators.metrics import Scored


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp evaluate wyckoff --data held_out.extxyz\n\n"
    "  hybridcsp evaluate my_flow/ --data mp20.extxyz --samples 20 --crystals 500 --output scores.json"
)
def evaluate(
    generator: GENERATOR,
    data: DATA,
    samples: Annotated[int, typer.Option(metavar="N", help="Number of samples per crystal.", min=1)] = 20,
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
            metavar="FILE", help="Write the summary and the scores of each crystal to a JSON file.", show_default="none"
        ),
    ] = None,
    seed: SEED = 0,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Report match rate, RMSE, validity, uniqueness and novelty.

    For each crystal, the generator is given only the contents of the primitive cell. Two criteria for a match are
    reported with their tolerances: the one of pymatgen's StructureMatcher that publications use, which is wide, and
    the strict one that distinguishes minima in a search. Samples are not filtered. Validity, uniqueness, novelty (both
    by the strict criterion) and symmetry (at 0.1 Å) are fractions of all samples.
    """
    import numpy as np

    from hybridcsp.generators.datasets import formula_of, read_dataset
    from hybridcsp.generators.loading import one_thread, open_generator
    from hybridcsp.generators.metrics import evaluate as score
    from hybridcsp.generators.metrics import index_of, summarise, tolerances
    from hybridcsp.generators.weights_io import overlap

    for option, paths in (("--data", data), ("--known", known or [])):
        for path in paths:
            check_exists(option, path)
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
    if crystals is not None and crystals < len(targets):
        chosen = np.random.default_rng(seed).choice(len(targets), crystals, replace=False)
        targets = [targets[i] for i in sorted(chosen)]
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
