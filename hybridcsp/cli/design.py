"""Provide the command ``hybridcsp design``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.cells import cells_of_file, contents_of
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.generators import GENERATOR, SEED, check_exists
from hybridcsp.cli.output import AsCsv, AsJson, as_argument, check_formats, print_table
from hybridcsp.cli.progress import busy
from hybridcsp.cli.values import read_formula_units, read_number, read_targets
from hybridcsp.errors import CommandLineError, InputError
from hybridcsp.utils.files import check_folder
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hybridcsp.analysis.text_tables import Column
    from hybridcsp.predictors.base import Predictor
    from hybridcsp.workflows.design import Designer
    from hybridcsp.workflows.design_rounds import RoundAccount


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp design wyckoff --data mp20.extxyz --target band_gap=1.5..2.5 --predictor gap/\n\n"
    "  hybridcsp design my_wyckoff/ --formula TiO2 --formula-units 1-4 --target band_gap=3.. --predictor gap/ "
    "--check other_gap/ --rounds 5 --n 200\n\n"
    "  hybridcsp design wyckoff --formulas cells.txt --target density=..3 --target band_gap=2.. --predictor gap/\n\n"
    "  hybridcsp design wyckoff --formula TiO2 --target band_gap=3.. --predictor gap/ --calculator chgnet\n\n"
    "  ase gui design/found.extxyz      the crystals within the targets"
)
def design(
    generator: GENERATOR,
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            metavar="NAME=LOW..HIGH",
            help="Wanted values of a property: band_gap=1.5..2.5, band_gap=1.5.. or 'band_gap>=1.5'. Repeatable.",
        ),
    ],
    predictor: Annotated[
        list[str] | None,
        typer.Option(
            "--predictor",
            metavar="FOLDER",
            help="Predictor of a property, from hybridcsp train. Repeatable. Objectives that follow from a structure, "
            "such as density, need none; with --calculator neither does energy_per_atom.",
            show_default="none",
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            metavar="FOLDER",
            help="Another predictor of a property, trained on other data, which only checks the result. Repeatable.",
            show_default="none",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Training data: known crystals, which the generator learns again in each round. Repeatable.",
            show_default="none",
        ),
    ] = None,
    formula: Annotated[
        str | None,
        typer.Option(metavar="FORMULA", help="Formula of one formula unit.", show_default="contents of --data"),
    ] = None,
    formula_units: Annotated[
        str, typer.Option(metavar="N|LOW-HIGH", help="Number of formula units in the primitive cell, such as 2 or 1-4.")
    ] = "1",
    formulas: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file with the exact contents of one cell per line (Ti2O4), instead of --formula.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", help="Number of rounds.", min=1)] = 3,
    n: Annotated[int, typer.Option("--n", metavar="N", help="Number of samples in each round.", min=1)] = 100,
    calculator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Calculator that relaxes the samples first (see hybridcsp calculators).",
            show_default="none, samples are not relaxed",
        ),
    ] = None,
    max_steps: Annotated[int, typer.Option(metavar="N", help="Most force calls of a relaxation.", min=1)] = 200,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of processes that relax.", min=1, show_default="one per core"),
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="Largest number of epochs of a training.", min=1)] = 20,
    learning_rate: Annotated[str, typer.Option(metavar="RATE", help="Learning rate of a training.")] = "2e-4",
    max_atoms: Annotated[
        int,
        typer.Option(metavar="N", help="Largest number of atoms of a crystal of --data; others are skipped.", min=1),
    ] = 20,
    directory: Annotated[
        Path,
        typer.Option(metavar="PATH", help="Run directory: a new one, or that of the same command before."),
    ] = Path("design"),
    seed: SEED = 0,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Design crystals with wanted properties by active transfer learning.

    In each round, crystals are sampled, relaxed if a calculator is given, and their properties predicted or calculated;
    then the generator is trained further on what was found, for the next round. A generator that has learned the
    property (hybridcsp train --property) learns from all crystals with their properties; others learn from those within
    the targets, or nearest to them.

    The table has a row for each round. The run directory gets accounts.json, design.png, found.extxyz with the crystals
    within the targets, and a folder for each round with its crystals and its generator. After an interruption, even by
    kill -9, the same command continues; with more --rounds, it continues a design that is complete.
    """
    from hybridcsp.generators.datasets import read_dataset
    from hybridcsp.relaxation.calculators.choice import absolute_calculator
    from hybridcsp.workflows.design import Design, Designer

    check_formats(as_json=as_json, as_csv=as_csv)
    targets = read_targets("--target", target)
    cells = _cells(formula, formula_units, formulas)
    for path in data or []:
        check_exists("--data", path)
    settings = Design(
        generator=generator,
        targets=targets,
        cells=cells,
        rounds=rounds,
        samples=n,
        epochs=epochs,
        learning_rate=read_number("--learning-rate", learning_rate, "a positive number"),
        max_steps=max_steps,
        seed=seed,
    )
    check_folder(directory, key="--directory")
    terminate_in_order()
    with busy("loading models") as show:
        predictors, checks = _opened(predictor or []), _opened(check or [])
        examples: Any = ()
        if data:
            show("reading crystals")
            examples = read_dataset(data, max_atoms=max_atoms, optional=targets).examples
        designer = Designer(
            settings,
            directory,
            predictors=predictors,
            checks=checks,
            examples=examples,
            calculator=None if calculator is None else absolute_calculator(calculator, Path.cwd()),
            workers=workers,
            on_progress=lambda text: show(text),
        )
        _warn_of_same_data(predictors, checks)
        try:
            accounts = designer.run(_print_round)
        except KeyboardInterrupt:
            errors.print("Interrupted. The same command continues.", highlight=False)
            raise typer.Exit(130) from None
        show("drawing")
        picture = _draw(designer, accounts)
    _print(accounts, directory, picture, as_json=as_json, as_csv=as_csv)


def _cells(formula: str | None, formula_units: str, formulas: Path | None) -> list[dict[str, int]]:
    """Return the contents of the cells that the options name; none if they name none."""
    if formula is not None and formulas is not None:
        raise CommandLineError("design needs at most one of --formula FORMULA and --formulas FILE.")
    if formula is None and formula_units != "1":
        raise InputError("--formula-units", formula_units, reason="it is allowed only with --formula")
    if formulas is not None:
        return [contents for _, contents in cells_of_file(formulas)]
    if formula is None:
        return []
    low, high = read_formula_units(formula_units)
    if not 1 <= low <= high:
        raise InputError("--formula-units", formula_units, "a whole number from 1, or a range such as 1-4")
    contents_of(formula, high, "--formula")  # checked first, so that a huge range is refused at once
    return [contents_of(formula, units, "--formula") for units in range(low, high + 1)]


def _opened(folders: Sequence[str]) -> list[Predictor]:
    from hybridcsp.predictors.loading import open_predictor

    return [open_predictor(folder) for folder in folders]


def _warn_of_same_data(predictors: Sequence[Predictor], checks: Sequence[Predictor]) -> None:
    """Warn of a check by a predictor that was trained on the same files as the one that it checks."""
    for check in checks:
        for predictor in predictors:
            if check.quantity == predictor.quantity and _hashes(check) & _hashes(predictor):
                errors.print(
                    f"The predictor of {check.quantity} that checks was trained on the same file as the one that "
                    "selects, so that both may make the same errors.",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )


def _hashes(predictor: Predictor) -> set[str]:
    data = predictor.card.get("data")
    return {str(file.get("sha256")) for file in data.get("files", [])} if isinstance(data, dict) else set()


def _print_round(account: RoundAccount) -> None:
    errors.print(
        f"round {account.number}: {account.within} of {account.unique} different crystals within the targets "
        f"({account.share:.1%}), {account.drawn} drawn",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _draw(designer: Designer, accounts: Sequence[RoundAccount]) -> Path:
    from hybridcsp.workflows.design_report import plot_design
    from hybridcsp.workflows.design_rounds import PICTURE, RoundFolder

    crystals = [atoms for one in accounts for atoms in RoundFolder(designer.directory, one.number).crystals()]
    picture = designer.directory / PICTURE
    plot_design(accounts, crystals, designer.design.targets, picture)
    return picture


def _print(accounts: Sequence[RoundAccount], directory: Path, picture: Path, *, as_json: bool, as_csv: bool) -> None:
    from dataclasses import asdict

    from hybridcsp.analysis.text_tables import FittingTable
    from hybridcsp.workflows.design_report import rows_of
    from hybridcsp.workflows.design_rounds import FOUND

    rows = rows_of(accounts)
    about = {"rounds": [asdict(account) for account in accounts]}
    if print_table(rows, as_json=as_json, as_csv=as_csv, about=about):
        return
    cells = [[_shown(key, value) for key, value in row.items()] for row in rows]
    console.print(FittingTable("", [_column(key) for key in rows[0]], cells))
    found = any(account.within for account in accounts)
    where = f"are in {as_argument(directory / FOUND)}" if found else "were not found; more rounds or samples may help"
    console.print(
        f"Crystals within the targets {where}. The plot is {as_argument(picture)}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _column(key: str) -> Column:
    from hybridcsp.analysis.text_tables import Column

    meanings = {
        "unique": "different crystals",
        "within": "crystals within all targets",
        "share": "their share of the different crystals",
        "new": "those not known before",
    }
    kind, _, name = key.partition("_")
    if name and kind in ("mean", "best", "checked"):
        return Column(heading=f"{kind}\n{name}", dispensable={"mean": 3, "best": 0, "checked": 0}[kind])
    order = {"force_calls": 5, "seconds": 4, "drawn": 2, "valid": 1}
    return Column(heading=key.replace("_", "\n"), meaning=meanings.get(key, ""), dispensable=order.get(key, 0))


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "share" or key.startswith("checked_"):
        return f"{value:.1%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
