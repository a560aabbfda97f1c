"""Provide ``hybridcsp dataset convert``, ``from-search`` and ``card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hybridcsp.cli.console import console
from hybridcsp.cli.dataset import (
    CRYSTALS,
    HELD_IN,
    OUTPUT,
    dataset_app,
    prepare_output,
    print_written,
    read_paths,
)
from hybridcsp.cli.generators import check_exists
from hybridcsp.cli.output import AsJson, print_table
from hybridcsp.cli.progress import busy, counter

FOLD = Annotated[
    bool,
    typer.Option(
        "--fold",
        help="Keep only the first of equal crystals, or the one of lowest enthalpy_per_atom by the same calculator.",
    ),
]


@dataset_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp dataset convert train.csv --output mp20.extxyz       CDVAE's format: CIFs and properties\n\n"
    "  hybridcsp dataset convert entries.json my_cifs/ --output all.extxyz --fold\n\n"
    "  hybridcsp dataset convert vo_relaxed --fold --output vo.extxyz   relaxed crystals without duplicates",
)
def convert(
    paths: CRYSTALS,
    output: OUTPUT,
    fold: FOLD = False,
    max_atoms: Annotated[
        int | None, typer.Option(metavar="N", help="Most atoms in the cell.", min=1, show_default="no limit")
    ] = None,
    held_in: HELD_IN = False,
) -> None:
    """Collect crystals and their properties in one extended XYZ file.

    Other columns of a table, and texts and numbers beside a structure in JSON, become properties of the crystal.
    """
    from hybridcsp.datasets.writing import fold_to_lowest, write_dataset
    from hybridcsp.generators.datasets import formula_of, is_held_out

    prepare_output(output)
    found = read_paths(paths)
    crystals = []
    for atoms in found.atoms:
        if max_atoms is not None and len(atoms) > max_atoms:
            found.left_out[f"more than {max_atoms} atoms"] += 1
        elif held_in and is_held_out(formula_of(atoms)):
            found.left_out["formula held out from training"] += 1
        else:
            crystals.append(atoms)
    with busy("writing the crystals"):
        card = write_dataset(
            fold_to_lowest(crystals, found.left_out) if fold else crystals,
            output,
            "convert",
            settings={"fold": fold, "max_atoms": max_atoms, "held_in": held_in},
            inputs=found.inputs,
            left_out=lambda: found.left_out,
            key="--output",
        )
    print_written(card, output)


@dataset_app.command(
    "from-search",
    epilog="Examples:\n\n"
    "  hybridcsp dataset from-search TiO2 --output tio2.extxyz\n\n"
    "  hybridcsp dataset from-search V-O Mg-Mn-O --all-relaxations --output oxides.extxyz",
)
def from_search(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIRECTORY...", help="Run directories of searches or imports.")
    ],
    output: OUTPUT,
    all_relaxations: Annotated[
        bool,
        typer.Option("--all-relaxations", help="Write every converged relaxation, instead of one crystal a minimum."),
    ] = False,
) -> None:
    """Make a data set of the relaxed crystals of searches.

    Energies are those of the searches' own calculator, which must be the same in all. Where a search knows heights
    above the convex hull, they become e_above_hull.
    """
    from hybridcsp.datasets.searches import crystals_of_searches
    from hybridcsp.datasets.writing import write_dataset

    prepare_output(output)
    for path in directories:
        check_exists("DIRECTORY", path)
    with counter("crystals read") as show:
        found = crystals_of_searches(directories, all_relaxations=all_relaxations, key="DIRECTORY", progress=show)
    card = write_dataset(
        found.atoms,
        output,
        "from-search",
        settings={"all_relaxations": all_relaxations},
        inputs=found.inputs,
        left_out=found.left_out,
        key="--output",
    )
    print_written(card, output)


@dataset_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp dataset card mp20.extxyz\n\n"
    "  hybridcsp dataset card vo_relaxed --json    also while crystals are still being relaxed",
)
def card(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Data set, or folder of hybridcsp dataset relax.")],
    as_json: AsJson = False,
) -> None:
    """Show what a data set holds and where it comes from.

    The crystals are counted anew, and for a relaxation also those that have failed; the origin is that of the card
    beside the file, if there is one.
    """
    from hybridcsp.datasets.cards import Tally, describe_card, read_card
    from hybridcsp.datasets.relaxation import count_outcomes
    from hybridcsp.io.relaxation_folders import RELAXED, is_relaxation

    check_exists("PATH", path)
    known: dict[str, Any]
    if is_relaxation(path):
        with busy("counting the crystals"):
            tally, left_out = count_outcomes(path)
        known = (read_card(path / RELAXED) or {}) | {"left_out": dict(left_out.most_common())}
    else:
        found = read_paths([path])
        tally = Tally()
        for atoms in found.atoms:
            tally.add(atoms)
        known = read_card(path) or {"inputs": found.inputs}
    shown = {**known, **tally.summary()}
    if known.get("crystals", tally.crystals) != tally.crystals:
        shown["note"] = f"the card beside the file was written for {known['crystals']} crystals"
    if not print_table([], as_json=as_json, as_csv=False, about=shown):
        for line in describe_card(shown):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if "note" in shown:
            console.print(f"note: {shown['note']}", highlight=False, markup=False, soft_wrap=True)
