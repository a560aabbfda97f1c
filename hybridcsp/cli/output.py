"""Print results: summaries of searches for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.console import console
from hybridcsp.errors import CommandLineError, InputError
from hybridcsp.utils.text import printable

if TYPE_CHECKING:
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.archive.archive import Archive

#: Option of commands that show minima.
Predictors = Annotated[
    list[Path] | None,
    typer.Option(
        "--predictor",
        metavar="FOLDER",
        help="Folder of a predictor from hybridcsp train, whose values are shown next to the energies. Repeatable.",
        show_default="none",
    ),
]

#: Options of every command that prints a table.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")]


def print_table(
    rows: Sequence[Mapping[str, Any]], *, as_json: bool, as_csv: bool, about: Mapping[str, Any] | None = None
) -> bool:
    """Print rows as JSON or CSV to the standard output if requested.

    Parameters
    ----------
    rows
        Rows with the same keys, which contain the units; ``None`` for missing values.
    as_json, as_csv
        Requested format.
    about
        Object to print as JSON instead of the rows.

    Returns
    -------
    bool
        Whether anything was printed; if so, nothing else may be printed to the standard output.

    Raises
    ------
    CommandLineError
        If both formats are requested.
    """
    check_formats(as_json=as_json, as_csv=as_csv)
    if as_json:
        json.dump(_plain(rows if about is None else about), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    elif as_csv and rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return as_json or as_csv


def check_formats(*, as_json: bool, as_csv: bool) -> None:
    """Check that at most one of ``--json`` and ``--csv`` is given.

    Raises
    ------
    CommandLineError
        If both are given.
    """
    if as_json and as_csv:
        raise CommandLineError("--json and --csv cannot be combined; give one of them.")


def print_search(
    archive: Archive, top: int, *, by_search: bool = False, predicted: PredictedValues | None = None
) -> None:
    """Print the best minima of a search, the activity of its sources and its totals.

    Parameters
    ----------
    archive
        Archive of the search.
    top
        Largest number of minima in the table.
    by_search
        Whether the minima are ranked by the search's own calculator, without the results of follow-up calculators.
    predicted
        Predictors whose values are shown.
    """
    from hybridcsp.analysis.follow_ups import follow_up_totals
    from hybridcsp.analysis.minima_report import minima_table
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.analysis.report import duration, sources_table

    state = archive.state
    if not state.settings:
        raise no_search(archive.directory)
    minima = archive.minima(top) if by_search else archive.final_minima(top)
    if minima:
        console.print(minima_table(minima, archive, predicted or PredictedValues()))
    else:
        console.print("No minimum has been found yet.")
    if state.tallies or state.last_errors:
        console.print(sources_table(archive))
    console.print(
        f"{state.relaxations} relaxations, {state.cost.force_calls} force calls, "
        f"{duration(state.cost.seconds)} of computing time, {archive.number_of_minima} minima",
        highlight=False,
    )
    if state.goals.condition and minima:
        heights = state.heights()
        met = sum(state.goals.allow(basin.objectives, height) for basin, height in heights)
        console.print(
            f"{met} of {len(heights)} minima meet the condition {state.goals.condition.text}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if state.goals.optimised and minima:
        console.print(
            f"The Pareto front is listed by hybridcsp front {as_argument(archive.directory)}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    for total in follow_up_totals(archive):
        console.print(total, highlight=False, markup=False)


def no_search(directory: Path) -> InputError:
    """Return the error for a run directory without a search."""
    return InputError("directory", directory, reason="no search has been started in this directory")


def as_argument(path: Path) -> str:
    """Return a path as an argument for a shell, relative to the working directory if it lies in there."""
    here = Path.cwd()
    shown = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return quote(f"./{shown}" if shown.startswith("-") else shown)


def _plain(value: Any) -> Any:
    """Return a value without NumPy types, and with ``None`` for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, dict | list):
        value = json.dumps(value)
    return printable(value) if isinstance(value, str) else value
