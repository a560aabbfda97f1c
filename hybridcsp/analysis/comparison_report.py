"""Report a comparison of strategies as a table for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hybridcsp.analysis.objective_values import comparison_columns
from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.source_activity import identical_runs
from hybridcsp.analysis.statistics import StrategyStatistics
from hybridcsp.analysis.text_tables import Column, FittingTable


def comparison_table(
    rows: Sequence[StrategyStatistics], results: Sequence[RunResult], target: str, notes: Sequence[str] = ()
) -> FittingTable:
    """Return a comparison as a table for the terminal.

    Parameters
    ----------
    rows
        Statistics of each strategy; see :func:`hybridcsp.analysis.statistics.compare`.
    results
        Results of all runs, for their number and totals in a note.
    target
        Name of the target, for the title.
    notes
        Sentences below the table; see :func:`hybridcsp.analysis.source_activity.comparison_notes`.
    """
    against = f"against {rows[0].strategy}, stratified by problem"
    intervals = "; ".join(intervals_in_words(rows[1:]))
    ratio = f"expected force calls relative to {rows[0].strategy}" + (f" ({intervals})" if intervals else "")
    median = "Kaplan-Meier median of {} to success, - if less than half succeeded"
    mean = "restricted mean of force calls, up to the shortest unsolved run of each problem"
    columns = [
        Column(heading="strategy", words=True),
        Column(heading="solved (95 %)", meaning="runs that reached the target, with the 95 % Wilson interval"),
        Column(heading="relax.", meaning=median.format("relaxations"), dispensable=5),
        Column(heading="f.calls", meaning=median.format("force calls"), dispensable=4),
        Column(heading="mean", meaning=mean, dispensable=3),
        Column(heading="expected", meaning="expected running time: force calls of all runs per solved run"),
        Column(heading="p", meaning=f"log-rank test {against}", dispensable=1),
        Column(heading="ratio (95 %)", meaning=ratio),
        Column(heading="of means", meaning=f"mean relative to {rows[0].strategy}", dispensable=2),
    ]
    cells: list[tuple[str, ...]] = [
        (
            row.strategy,
            f"{row.solved}/{row.runs} ({100 * row.low:.0f}-{100 * row.high:.0f} %)",
            "-" if row.relaxations is None else f"{row.relaxations:.0f}",
            "-" if row.force_calls is None else f"{row.force_calls:.0f}",
            f"{row.mean_force_calls:.0f}",
            "-" if row.expected_force_calls is None else f"{row.expected_force_calls:.0f}",
            "" if row is rows[0] else p_text(row.p_value),
            "" if row is rows[0] else ratio_text(row),
            "" if row is rows[0] else mean_ratio_text(row),
        )
        for row in rows
    ]
    if len(rows) == 1:  # no p value and ratio without another strategy
        columns, cells = columns[:6], [line[:6] for line in cells]
    columns, cells = with_objectives(columns, cells, results)
    shares = [f"Relaxations of {row.strategy} by source: {shares_in_words(row)}." for row in rows if row.shares]
    return FittingTable(f"Cost to reach {target}", columns, cells, [totals(results), *shares, *notes])


def with_objectives(
    columns: Sequence[Column], cells: Sequence[tuple[str, ...]], results: Sequence[RunResult]
) -> tuple[list[Column], list[tuple[str, ...]]]:
    """Return a table of strategies, whose first column names them, with columns of their objectives, if any."""
    values = [(result.strategy, result.objectives) for result in results]
    more, added = comparison_columns([line[0] for line in cells], values)
    return [*columns, *more], [(*line, *own) for line, own in zip(cells, added, strict=True)]


def ratio_text(row: StrategyStatistics) -> str:
    """Return the ratio of expected running times with its interval if that is defined, ``-`` if the ratio is not."""
    return interval_text(row.ratio, row.ratio_low, row.ratio_high)


def mean_ratio_text(row: StrategyStatistics) -> str:
    """Return the ratio of restricted means with its interval if that is defined, ``-`` if the ratio is not."""
    return interval_text(row.mean_ratio, row.mean_ratio_low, row.mean_ratio_high)


def interval_text(value: float | None, low: float | None, high: float | None, decimals: int = 2) -> str:
    """Return a value with its interval; ``-`` if there is none, and ``∞`` for an infinite end."""
    if value is None:
        return "-"
    texts = ["∞" if one == math.inf else f"{one:.{decimals}f}" for one in (low, high) if one is not None]
    return f"{value:.{decimals}f}" + (f" ({'-'.join(texts)})" if texts else "")


def p_text(p_value: float | None) -> str:
    """Return a p value for display, ``-`` if there is none."""
    if p_value is None:
        return "-"
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def totals(results: Sequence[RunResult]) -> str:
    """Return the number of problems, seeds, relaxations and rejected proposals in words."""
    problems = len({result.problem for result in results})
    seeds = len({result.seed for result in results})
    failed, rejected = sum(result.failed for result in results), sum(result.rejected for result in results)
    return (
        f"{problems} problem{'s' * (problems != 1)}, {seeds} seed{'s' * (seeds != 1)}, "
        f"{sum(result.relaxations for result in results)} relaxations ({failed} failed), {rejected} proposals rejected."
    )


def intervals_in_words(rows: Sequence[StrategyStatistics]) -> list[str]:
    """Return how the intervals of the ratios were calculated, and the reasons for missing ones."""
    units = sorted({row.resampled for row in rows if row.resampled})
    clauses = [f"95 % interval by bootstrap over {unit}" for unit in units]
    for reason in dict.fromkeys(row.no_interval for row in rows if row.no_interval):
        strategies = [row.strategy for row in rows if row.no_interval == reason]
        named = f" ({', '.join(strategies)})" if len(strategies) < len(rows) else ""
        clauses.append(f"no interval: {reason}{named}")
    return clauses


def shares_in_words(row: StrategyStatistics) -> str:
    """Return how many relaxations each source of a strategy made."""
    return ", ".join(
        f"{share.source} {share.relaxations} ({100 * share.share:.0f} %)"
        + (f" and {share.random} random crystals" if share.random else "")
        for share in row.shares
    )


def as_content(
    rows: Sequence[StrategyStatistics],
    results: Sequence[RunResult],
    about: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a comparison with all results as a JSON object; undefined values are ``None``."""
    return {
        **about,
        "intervals": {
            "rate": "Wilson, 95 %",
            "ratio": "percentile bootstrap, 95 %, over the units named in the key resampled; null if undefined",
            "mean_ratio": "as of the ratio",
            "expected": "percentile bootstrap, 95 %, over problems, or seeds of a single problem; null if unbounded",
        },
        "notes": list(notes),
        "same_runs": [asdict(same) for same in identical_runs(results)],
        "rows": [_finite(asdict(row)) for row in rows],
        "runs": [asdict(result) for result in results],
    }


def as_records(rows: Sequence[StrategyStatistics]) -> list[dict[str, Any]]:
    """Return a comparison as a flat table with one strategy per row; undefined values are ``None``."""
    records = []
    for row in rows:
        values = _finite(asdict(row))
        shares = "; ".join(f"{share['source']} {share['relaxations']}" for share in values.pop("shares"))
        records.append({**values, "relaxations_by_source": shares})
    return records


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values for JSON, in which an infinite end of an interval is ``None``."""
    return {key: None if value == math.inf else value for key, value in values.items()}


def as_csv(results: Sequence[RunResult]) -> str:
    """Return the results as CSV text with one run per line; tables of a run are left out."""
    lines = []
    for result in results:
        values = asdict(result)
        relaxation, force_calls = values.pop("solved_at") or ("", "")
        parts = values.pop("parts")
        objectives = {f"objective_{one.name}": one.value for one in result.objectives}
        activity = [f"{part['source']} {part['relaxations']}" for part in parts]
        activity += [f"random crystals by {part['source']} {part['random']}" for part in parts if part["random"]]
        solved = {"solved_at_relaxation": relaxation, "solved_at_force_calls": force_calls}
        values = {key: value for key, value in values.items() if not isinstance(value, dict | list | tuple)}
        lines.append({**values, **solved, **objectives, "relaxations_by_source": "; ".join(activity)})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
