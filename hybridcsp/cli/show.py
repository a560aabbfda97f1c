"""Provide the command ``hybridcsp show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, Predictors, no_search, print_search, print_table
from hybridcsp.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.archive.archive import Archive

#: Rankings of the minima: that which counts, and that by the calculator of the search alone.
LAST, SEARCH = "last", "search"


@app.command(
    epilog="Examples:\n\n  hybridcsp show TiO2\n\n  hybridcsp show TiO2 --top 20 --plot tio2.png\n\n"
    "  hybridcsp show TiO2 --level search        the ranking without follow-up calculators\n\n"
    "  hybridcsp show TiO2 --predictor made            how likely the minima can be made\n\n"
    "  hybridcsp show TiO2 --json"
)
def show(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Run directory; the search may still be running.")
    ],
    top: Annotated[int, typer.Option(metavar="N", help="Number of minima to show.", min=1)] = 10,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot enthalpies to a .png, .pdf or .svg file.", show_default="none"),
    ] = None,
    level: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="Ranking of the minima: last (by the last follow-up calculator), or search (by the calculator of the "
            "search alone).",
        ),
    ] = LAST,
    predictor: Predictors = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the best minima of a search and the activity of its sources."""
    from hybridcsp.analysis.plots import check_picture, plot_search
    from hybridcsp.analysis.predicted_values import PredictedValues
    from hybridcsp.archive.archive import Archive

    if level not in (LAST, SEARCH):
        raise UnknownNameError("--level", level, (LAST, SEARCH))
    if plot is not None:
        check_picture(plot, "--plot")
    predicted = PredictedValues.opened(predictor or ())
    with Archive(directory) as archive:
        if plot is not None and archive.system is not None:
            reason = f"it is for one formula; draw the hull with hybridcsp hull {directory} --plot {plot}"
            raise InputError("--plot", str(plot), reason=reason)
        if not (as_json or as_csv):
            print_search(archive, top, by_search=level == SEARCH, predicted=predicted)
            if archive.state.stops:
                console.print(f"The last run ended: {archive.state.stops[-1]}", highlight=False)
        elif archive.state.settings:
            content = _content(archive, top, level, predicted)
            print_table(content["minima"], as_json=as_json, as_csv=as_csv, about=content)
        else:
            raise no_search(directory)
        if plot is not None:
            plot_search(archive, plot, archive.formula)
            messages = errors if as_json or as_csv else console
            messages.print(f"Wrote {plot}", markup=False, highlight=False, soft_wrap=True)


def _content(archive: Archive, top: int, level: str, predicted: PredictedValues) -> dict[str, Any]:
    """Return totals, minima and sources of a search as a JSON object."""
    from hybridcsp.analysis.follow_ups import follow_up_rows
    from hybridcsp.analysis.minima_report import minima_rows
    from hybridcsp.analysis.report import sources_rows

    state, problem = archive.state, archive.system or archive.problem
    minima = archive.minima(top) if level == SEARCH else archive.final_minima(top)
    follow_ups = follow_up_rows(archive)
    return {
        "formula": problem.formula,
        "pressure_gpa": problem.pressure_gpa,
        "calculator": state.calculator,
        "relaxations": state.relaxations,
        "force_calls": state.cost.force_calls,
        "seconds_of_computing": state.cost.seconds,
        "number_of_minima": archive.number_of_minima,
        "number_of_families": state.number_of_niches,
        "ended": state.stops[-1] if state.stops else None,
        **({"follow_ups": follow_ups} if follow_ups else {}),
        **(_objectives(archive) if state.goals else {}),
        "minima": minima_rows(minima, archive, predicted),
        "sources": sources_rows(archive),
    }


def _objectives(archive: Archive) -> dict[str, Any]:
    """Return the objectives and the condition of a search, and which values could not be computed."""
    from hybridcsp.analysis.objective_values import failure_rows, objective_rows

    goals = archive.state.goals
    return {
        "objectives": objective_rows(goals.objectives),
        "where": goals.condition.text or None,
        "failed_values": failure_rows(archive.state.objective_failures),
    }
