"""Compare strategies on chemical systems: statistics, the table for the terminal, and the plot."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.analysis.comparison_report import (
    interval_text,
    intervals_in_words,
    p_text,
    ratio_text,
    shares_in_words,
    totals,
    with_objectives,
)
from hybridcsp.analysis.plots import CAPTION_WIDTH, draw_costs, save_figure
from hybridcsp.analysis.statistics import StrategyStatistics, compare, paired_ratio
from hybridcsp.analysis.system_results import SystemRunResult
from hybridcsp.analysis.text_tables import Column, FittingTable

#: Number of points of a curve in the plot.
_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class SystemStatistics(StrategyStatistics):
    """Statistics of one strategy on chemical systems; a run is solved when it has found four fifths of the phases.

    Attributes
    ----------
    phases, found
        Numbers of known phases on their hulls and of those that were found, summed over all runs.
    distance_mev, area_mev
        Height of the hull at the end above the known phases, summed over them, and its mean over the force calls up to
        the end of the shortest run of the problem, in meV/atom; both are means over the runs.
    area_ratio, area_low, area_high
        Sum of the latter relative to the baseline on common problems and seeds, with its 95 % interval; see
        :func:`hybridcsp.analysis.statistics.paired_ratio`. ``None`` for the baseline.
    """

    phases: int
    found: int
    distance_mev: float
    area_mev: float
    area_ratio: float | None = None
    area_low: float | None = None
    area_high: float | None = None


def compare_on_systems(results: Sequence[SystemRunResult], seed: int = 0) -> list[SystemStatistics]:
    """Compare strategies on chemical systems with the strategy of the first result, the baseline.

    Parameters
    ----------
    results
        Results of all runs.
    seed
        Random seed of the bootstrap.
    """
    rows: list[SystemStatistics] = []
    areas = {
        strategy: {(one.problem, one.seed): one.area_mev for one in results if one.strategy == strategy}
        for strategy in dict.fromkeys(one.strategy for one in results)
    }
    for row in compare(results, seed):
        own = [one for one in results if one.strategy == row.strategy]
        against: dict[str, Any] = {}
        if rows:
            ratio = paired_ratio(areas[row.strategy], areas[rows[0].strategy], seed)
            against = {"area_ratio": ratio.value, "area_low": ratio.low, "area_high": ratio.high}
        rows.append(
            SystemStatistics(
                **{one.name: getattr(row, one.name) for one in fields(StrategyStatistics)},
                phases=sum(one.phases for one in own),
                found=sum(one.found for one in own),
                distance_mev=float(np.mean([one.distance_mev for one in own])),
                area_mev=float(np.mean([one.area_mev for one in own])),
                **against,
            )
        )
    return rows


def system_table(
    rows: Sequence[SystemStatistics], results: Sequence[SystemRunResult], target: str, notes: Sequence[str] = ()
) -> FittingTable:
    """Return a comparison on chemical systems as a table for the terminal.

    Parameters
    ----------
    rows
        Statistics of each strategy.
    results
        Results of all runs, for their number and totals in a note.
    target
        Name of the known phases, for the title.
    notes
        Sentences below the table.
    """
    intervals = "; ".join(intervals_in_words(rows[1:]))
    ratio = f"expected force calls relative to {rows[0].strategy}" + (f" ({intervals})" if intervals else "")
    columns = [
        Column(heading="strategy", words=True),
        Column(heading="phases", meaning="known phases found, of all runs"),
        Column(heading="4/5 (95 %)", meaning="runs that found four fifths of them, with the 95 % Wilson interval"),
        Column(heading="expected", meaning="force calls of all runs per run that found four fifths"),
        Column(heading="p", meaning=f"log-rank test against {rows[0].strategy}, stratified by system", dispensable=1),
        Column(heading="ratio (95 %)", meaning=ratio, dispensable=2),
        Column(heading="ΔmeV", meaning="meV/atom from the known phases up to the hull at the end, summed over them"),
        Column(
            heading="mean",
            meaning="of this sum over the force calls, up to the end of the shortest run of each system",
        ),
        Column(heading="of means (95 %)", meaning=f"mean relative to {rows[0].strategy}, interval as of the ratio"),
    ]
    cells: list[tuple[str, ...]] = [
        (
            row.strategy,
            f"{row.found}/{row.phases}",
            f"{row.solved}/{row.runs} ({100 * row.low:.0f}-{100 * row.high:.0f} %)",
            "-" if row.expected_force_calls is None else f"{row.expected_force_calls:.0f}",
            "" if row is rows[0] else p_text(row.p_value),
            "" if row is rows[0] else ratio_text(row),
            f"{row.distance_mev:.1f}",
            f"{row.area_mev:.1f}",
            "" if row is rows[0] else interval_text(row.area_ratio, row.area_low, row.area_high),
        )
        for row in rows
    ]
    if len(rows) == 1:  # nothing to compare with
        kept = (0, 1, 2, 3, 6, 7)
        columns, cells = [columns[i] for i in kept], [tuple(line[i] for i in kept) for line in cells]
    columns, cells = with_objectives(columns, cells, results)
    shares = [f"Relaxations of {row.strategy} by source: {shares_in_words(row)}." for row in rows if row.shares]
    return FittingTable(f"Search for {target}", columns, cells, [totals(results), *shares, *notes])


def plot_systems(results: Sequence[SystemRunResult], output: Path, notes: Sequence[str] = ()) -> None:
    """Plot the distance of the hull and the fraction of phases found against force calls, and expected running times.

    The curves are means over the runs of a strategy; a run keeps its last value after its end.

    Parameters
    ----------
    results
        Results of all runs.
    output
        File to write: PNG, PDF or SVG by its ending.
    notes
        Sentences below the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    caption = "\n".join(line for note in notes for line in textwrap.wrap(note, CAPTION_WIDTH))
    figure = Figure(figsize=(13, 4 + 0.16 * len(caption.splitlines())), layout="constrained")
    FigureCanvasAgg(figure)
    distance, phases, costs = figure.subplots(1, 3)
    places = np.linspace(0, max(1, *(one.force_calls for one in results)), _POINTS)
    for strategy in dict.fromkeys(one.strategy for one in results):
        own = [one for one in results if one.strategy == strategy]
        distance.plot(places, np.mean([_distances(one, places) for one in own], axis=0), label=strategy)
        phases.plot(places, np.mean([_fractions(one, places) for one in own], axis=0), label=strategy)
    distance.set(xlabel="force calls", ylabel="hull above the known phases,\nsum over them (meV/atom)")
    distance.set_yscale("symlog", linthresh=10)
    distance.set_ylim(0, None)
    phases.set(xlabel="force calls", ylabel="fraction of the known phases found", ylim=(-0.02, 1.02))
    handles, labels = phases.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize="small", frameon=False)
    draw_costs(costs, compare(results))
    if caption:
        figure.supxlabel(caption, x=0.01, ha="left", fontsize="x-small", parse_math=False)
    save_figure(figure, output)


def _distances(result: SystemRunResult, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of a run at some numbers of force calls."""
    steps = np.array([place for place, _ in result.curve])
    values = np.array([value for _, value in result.curve])
    return values[np.searchsorted(steps, places, side="right") - 1]


def _fractions(result: SystemRunResult, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fraction of the phases that a run had found at some numbers of force calls."""
    found = np.sort([calls for _, calls in result.found_at.values()])
    return np.searchsorted(found, places, side="right") / max(1, result.phases)
