"""Reports of finished comparisons: the table, the records and the files of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.analysis.comparison_report import as_content, as_csv, as_records, comparison_table
from hybridcsp.analysis.plots import plot_comparison
from hybridcsp.analysis.run_results import RunResult, read_results
from hybridcsp.analysis.source_activity import comparison_notes
from hybridcsp.analysis.statistics import StrategyStatistics, compare
from hybridcsp.analysis.system_comparison import compare_on_systems, plot_systems, system_table
from hybridcsp.analysis.system_results import read_system_results
from hybridcsp.analysis.text_tables import FittingTable
from hybridcsp.utils.files import atomic_write
from hybridcsp.workflows.compare import PlannedRun
from hybridcsp.workflows.compare_systems import SystemPlan

#: Names of the files of results.
FILES = ("comparison.json", "comparison.csv", "comparison.png")


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonReport:
    """The results of a comparison.

    Attributes
    ----------
    rows
        Statistics of each strategy.
    results
        Results of all runs.
    table
        The table for the terminal.
    content
        Everything as a JSON object.
    plot
        Function that draws the results to a file.
    """

    rows: Sequence[StrategyStatistics]
    results: Sequence[RunResult]
    table: FittingTable
    content: dict[str, Any]
    plot: Callable[[Path], None]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The statistics as a flat table with one strategy per row."""
        return as_records(self.rows)

    def write(self, directory: Path, key: str) -> None:
        """Write :data:`FILES` into a directory; ``key`` names in errors what gave it."""
        json_file, csv_file, picture = (directory / name for name in FILES)
        with atomic_write(json_file, key=key) as stream:
            stream.write(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
        with atomic_write(csv_file, key=key) as stream:
            stream.write(as_csv(self.results))
        self.plot(picture)


def report_on_formulas(
    runs: Sequence[PlannedRun], goal: float | Atoms | None, target: str, about: Mapping[str, Any]
) -> ComparisonReport:
    """Return the report of a comparison on formulas.

    Parameters
    ----------
    runs
        The runs.
    goal, target
        The target, and its name in the report.
    about
        Further entries of the JSON object, besides the results.
    """
    results = read_results(runs, goal)
    rows = compare(results)
    notes = comparison_notes(results, {run.strategy: run.sources for run in runs})
    return ComparisonReport(
        rows=rows,
        results=results,
        table=comparison_table(rows, results, target, notes),
        content=as_content(rows, results, {"target": target, **about}, notes),
        plot=partial(plot_comparison, results, target=target, notes=notes),
    )


def report_on_systems(plan: SystemPlan, about: Mapping[str, Any]) -> ComparisonReport:
    """Return the report of a comparison on chemical systems.

    Parameters
    ----------
    plan
        The runs.
    about
        Further entries of the JSON object, besides the results.

    Raises
    ------
    InputError
        If no run of a system has a minimum of one of its elements.
    """
    results, known = read_system_results(plan.runs, {problem: run.directory for problem, run in plan.known.items()})
    rows = compare_on_systems(results)
    notes = [note for phases in known.values() for note in phases.notes]
    notes += comparison_notes(results, {run.strategy: run.sources for run in plan.runs})
    given, all_given = bool(plan.known), set(plan.known) == set(known)
    target = "the known phases" if all_given else "the phases on the hull of all runs"
    if given and not all_given:
        target = "the known phases or, where none were given, those on the hull of all runs"
    phases = {problem: dict(one.enthalpies) for problem, one in known.items()}
    return ComparisonReport(
        rows=rows,
        results=results,
        table=system_table(rows, results, target, notes),
        content=as_content(rows, results, {"target": target, "phases_ev_per_atom": phases, **about}, notes),
        plot=partial(plot_systems, results, notes=notes),
    )
