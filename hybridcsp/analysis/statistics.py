"""Does one strategy find structures more cheaply than another? Statistics for runs that may not have succeeded."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.analysis.plots import save_figure
from hybridcsp.analysis.run_results import Trace
from hybridcsp.analysis.source_activity import Share, same_runs, shares
from hybridcsp.analysis.text_tables import Column, FittingTable

#: Bootstrap samples for intervals of ratios, and the fewest problems (or seeds) that are resampled: from two, the
#: interval would merely be the two.
SAMPLES = 2000
FEWEST = 3

#: Characters in a line of the caption of a plot.
_CAPTION_WIDTH = 150


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy against the first, the baseline.

    Attributes
    ----------
    runs, solved
        How many there are, and how many met the target.
    rate, low, high
        Share of runs that did, with Wilson's 95 % interval (doi:10.1080/01621459.1927.10502953).
    relaxations, force_calls
        Kaplan-Meier medians of the cost to the first success (doi:10.1080/01621459.1958.10501452), runs without one
        being censored at what they used; ``None`` where half were not reached.
    mean_relaxations, mean_force_calls
        Restricted means of the same: each run counts with what it used until success or its end.
    p_value
        Log-rank test of the force calls to success against the baseline's on the problems that both have; ``None`` for
        the baseline, where there was no success, and where either has a single run.
    ratio
        Restricted-mean force calls over the baseline's on the same problems and seeds; ``None`` for the baseline, and
        where neither has solved anything.
    ratio_low, ratio_high
        Its 95 % interval, by the percentile bootstrap; ``None`` where there can be none.
    resampled
        What the interval is over: "problems", or "seeds" if there is one problem.
    no_interval
        Why there is none: "one seed", "every run has the same ratio"; empty where there is one.
    shares
        What each of its sources made of its relaxations.
    """

    strategy: str
    runs: int
    solved: int
    rate: float
    low: float
    high: float
    relaxations: float | None
    force_calls: float | None
    mean_relaxations: float
    mean_force_calls: float
    p_value: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    resampled: str = ""
    no_interval: str = ""
    shares: tuple[Share, ...] = ()


def compare(traces: Sequence[Trace], seed: int = 0) -> list[Row]:
    """Compare strategies, the first in ``traces`` being the baseline; ``seed`` is that of the bootstrap.

    A run that ended early without success, since its sources had nothing more to offer, counts as if it had gone on in
    vain for as long as the longest run of its problem: otherwise giving up would look cheap.
    """
    counted = _in_vain_to_the_end(traces)
    strategies = list(dict.fromkeys(trace.strategy for trace in counted))
    by_strategy = {name: [trace for trace in counted if trace.strategy == name] for name in strategies}
    baseline = by_strategy[strategies[0]] if strategies else []
    return [
        replace(
            _row(name, own, None if own is baseline else baseline, seed),
            shares=tuple(shares([trace for trace in traces if trace.strategy == name])),
        )
        for name, own in by_strategy.items()
    ]


def _in_vain_to_the_end(traces: Sequence[Trace]) -> list[Trace]:
    longest: dict[str, tuple[int, int]] = {}
    for trace in traces:
        relaxations, force_calls = longest.get(trace.problem, (0, 0))
        longest[trace.problem] = max(relaxations, trace.relaxations), max(force_calls, trace.force_calls)
    return [
        replace(trace, relaxations=longest[trace.problem][0], force_calls=longest[trace.problem][1])
        if trace.ended and trace.solved_at is None
        else trace
        for trace in traces
    ]


def table(rows: Sequence[Row], traces: Sequence[Trace], target: str, notes: Sequence[str] = ()) -> FittingTable:
    """Return a comparison as a table that says what it was measured on.

    Parameters
    ----------
    rows, traces
        See :func:`compare`.
    target
        What was to be reached.
    notes
        Sentences that belong below it; see :func:`hybridcsp.analysis.source_activity.notes`.
    """
    against = f"against {rows[0].strategy}"
    intervals = "; ".join(["of means of force calls " + against, *_intervals(rows[1:])])
    median = "Kaplan-Meier median of {} to success, - where half did not get there"
    columns = [
        Column(heading="strategy", words=True),
        Column(heading="solved (95 %)", meaning="runs that reached it, with Wilson's interval"),
        Column(heading="relax.", meaning=median.format("relaxations"), dispensable=4),
        Column(heading="f.calls", meaning=median.format("force calls"), dispensable=1),
        Column(heading="mean", meaning="restricted mean of force calls", dispensable=3),
        Column(heading="p", meaning=f"log-rank test {against}", dispensable=2),
        Column(heading="ratio (95 %)", meaning=intervals),
    ]
    cells: list[tuple[str, ...]] = [
        (
            row.strategy,
            f"{row.solved}/{row.runs} ({100 * row.low:.0f}-{100 * row.high:.0f} %)",
            "-" if row.relaxations is None else f"{row.relaxations:.0f}",
            "-" if row.force_calls is None else f"{row.force_calls:.0f}",
            f"{row.mean_force_calls:.0f}",
            "" if row is rows[0] else "-" if row.p_value is None else f"{row.p_value:.3f}",
            "" if row is rows[0] else ratio_text(row),
        )
        for row in rows
    ]
    if len(rows) == 1:  # nothing to compare it with
        columns, cells = columns[:5], [line[:5] for line in cells]
    made = [f"Relaxations of {row.strategy} by source: {_made(row)}." for row in rows if row.shares]
    return FittingTable(f"Cost to {target}", columns, cells, [_extent(traces), *made, *notes])


def ratio_text(row: Row) -> str:
    """Return the ratio of a strategy with its interval, without where there is none, ``-`` without a ratio."""
    if row.ratio is None:
        return "-"
    return f"{row.ratio:.2f}" + ("" if row.ratio_low is None else f" ({row.ratio_low:.2f}-{row.ratio_high:.2f})")


def _extent(traces: Sequence[Trace]) -> str:
    """Say what a comparison was measured on."""
    problems = len({trace.problem for trace in traces})
    seeds = len({trace.seed for trace in traces})
    failed, rejected = sum(t.failed for t in traces), sum(t.rejected for t in traces)
    return (
        f"{problems} problem{'s' * (problems != 1)}, {seeds} seed{'s' * (seeds != 1)}, "
        f"{sum(t.relaxations for t in traces)} relaxations of which {failed} failed, {rejected} proposals rejected."
    )


def _intervals(rows: Sequence[Row]) -> list[str]:
    """Say what the intervals of ratios are, and why there are none where there are none."""
    said = []
    resampled = {row.resampled for row in rows if row.resampled}
    said += [f"interval: bootstrap over {unit}" for unit in sorted(resampled)]
    for why in dict.fromkeys(row.no_interval for row in rows if row.no_interval):
        whose = [row.strategy for row in rows if row.no_interval == why]
        said.append(f"no interval: {why}" + (f" ({', '.join(whose)})" if len(whose) < len(rows) else ""))
    return said


def _made(row: Row) -> str:
    return ", ".join(
        f"{share.source} {share.relaxations} ({100 * share.share:.0f} %)"
        + (f" and {share.random} random crystals" if share.random else "")
        for share in row.shares
    )


def plot(traces: Sequence[Trace], output: Path, target: str, notes: Sequence[str] = ()) -> None:
    """Draw which share of the runs had met the target after how many relaxations and force calls (a data profile).

    A curve ends with the longest run of its strategy; at 1, which is the last word, it goes on to the right edge.
    Notes are written below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    traces = _in_vain_to_the_end(traces)
    caption = "\n".join(line for note in notes for line in textwrap.wrap(note, _CAPTION_WIDTH))
    figure = Figure(figsize=(10, 4 + 0.16 * len(caption.splitlines())), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for column, (axis, name) in enumerate(zip(axes, ("relaxations", "force calls"), strict=True)):
        right = 1.05 * max(1.0, _times(traces, column)[0].max())
        for strategy in dict.fromkeys(trace.strategy for trace in traces):
            times, censored = _times([trace for trace in traces if trace.strategy == strategy], column)
            survival = _survival(times, censored)
            solved = 1 - np.concatenate([[1.0], survival.probabilities, survival.probabilities[-1:]])
            steps = np.concatenate([[0.0], survival.quantiles, [right if solved[-1] == 1 else times.max()]])
            axis.step(steps, solved, where="post", label=strategy)
        axis.set(xlabel=name, xlim=(0, right), ylim=(-0.02, 1.02))
    axes[0].set_ylabel(f"share of runs that reached {target}")
    axes[1].legend(fontsize="small", loc="lower right")
    if caption:
        figure.supxlabel(caption, x=0.01, ha="left", fontsize="x-small", parse_math=False)
    save_figure(figure, output)


def as_content(
    rows: Sequence[Row], traces: Sequence[Trace], about: Mapping[str, Any], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a comparison and the traces it rests on as JSON has them; what cannot be known is ``None``."""
    return {
        **about,
        "intervals": {
            "rate": "Wilson, 95 %",
            "ratio": "percentile bootstrap, 95 %, over what the row calls resampled; null where there can be none",
        },
        "notes": list(notes),
        "same_runs": [asdict(same) for same in same_runs(traces)],
        "rows": [asdict(row) for row in rows],
        "runs": [asdict(trace) for trace in traces],
    }


def as_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a comparison as a flat table, one strategy a row; what cannot be known is ``None``."""
    records = []
    for row in rows:
        values = asdict(row)
        made = "; ".join(f"{share['source']} {share['relaxations']}" for share in values.pop("shares"))
        records.append({**values, "relaxations_by_source": made})
    return records


def as_csv(traces: Sequence[Trace]) -> str:
    """Return the traces as CSV, one run a line."""
    lines = []
    for trace in traces:
        values = asdict(trace)
        relaxation, force_calls = values.pop("solved_at") or ("", "")
        parts = values.pop("parts")
        made = [f"{part['source']} {part['relaxations']}" for part in parts]
        made += [f"random crystals by {part['source']} {part['random']}" for part in parts if part["random"]]
        solved = {"solved_at_relaxation": relaxation, "solved_at_force_calls": force_calls}
        lines.append({**values, **solved, "relaxations_by_source": "; ".join(made)})
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0] if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _times(traces: Sequence[Trace], column: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cost to success, or to the end, by relaxations (column 0) or force calls (1); and which of them is the latter."""
    ends = [(trace.relaxations, trace.force_calls)[column] for trace in traces]
    times = [end if t.solved_at is None else t.solved_at[column] for t, end in zip(traces, ends, strict=True)]
    return np.array(times, dtype=float), np.array([trace.solved_at is None for trace in traces])


def _censored(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> Any:
    from scipy.stats import CensoredData

    return CensoredData.right_censored(times, censored)


def _survival(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> Any:
    from scipy.stats import ecdf

    return ecdf(_censored(times, censored)).sf


def _median(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> float | None:
    survival = _survival(times, censored)
    reached = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    return float(survival.quantiles[reached[0]]) if len(reached) else None


def _row(name: str, own: Sequence[Trace], baseline: Sequence[Trace] | None, seed: int) -> Row:
    from scipy.stats import binomtest

    solved = sum(trace.solved_at is not None for trace in own)
    interval = binomtest(solved, len(own)).proportion_ci(method="wilson")
    by_relaxations, by_force_calls = _times(own, 0), _times(own, 1)
    against: dict[str, Any] = {}
    if baseline is not None:
        against = {"p_value": _p_value(own, baseline), **_ratio(own, baseline, seed)}
    return Row(
        strategy=name,
        runs=len(own),
        solved=solved,
        rate=solved / len(own),
        low=float(interval.low),
        high=float(interval.high),
        relaxations=_median(*by_relaxations),
        force_calls=_median(*by_force_calls),
        mean_relaxations=float(by_relaxations[0].mean()),
        mean_force_calls=float(by_force_calls[0].mean()),
        **against,
    )


def _p_value(own: Sequence[Trace], baseline: Sequence[Trace]) -> float | None:
    from scipy.stats import logrank

    common = {trace.problem for trace in own} & {trace.problem for trace in baseline}
    ours, theirs = ([trace for trace in traces if trace.problem in common] for traces in (own, baseline))
    if min(len(ours), len(theirs)) < 2 or all(trace.solved_at is None for trace in (*ours, *theirs)):
        return None
    with np.errstate(invalid="ignore"):  # where all have the same cost, there is no variance
        p_value = float(logrank(_censored(*_times(ours, 1)), _censored(*_times(theirs, 1))).pvalue)
    return p_value if math.isfinite(p_value) else 1.0


def _ratio(own: Sequence[Trace], baseline: Sequence[Trace], seed: int) -> dict[str, Any]:
    """Return the ratio of restricted-mean force calls on the runs that both have, resampled over problems or seeds."""
    ours = {(t.problem, t.seed): (t, cost) for t, cost in zip(own, _times(own, 1)[0], strict=True)}
    theirs = {(t.problem, t.seed): (t, cost) for t, cost in zip(baseline, _times(baseline, 1)[0], strict=True)}
    both = sorted(set(ours) & set(theirs))
    if not both:
        return {"no_interval": "no problem and seed in common"}
    if all(runs[key][0].solved_at is None for runs in (ours, theirs) for key in both):
        return {"no_interval": "nothing was solved"}
    unit = "seed" if len({problem for problem, _ in both}) == 1 else "problem"
    units: dict[object, list[tuple[str, int]]] = {}
    for key in both:
        units.setdefault(key[1] if unit == "seed" else key[0], []).append(key)
    sums = np.array([[sum(runs[k][1] for k in keys) for runs in (ours, theirs)] for keys in units.values()])
    if not sums[:, 1].all():
        return {"no_interval": "the baseline took no force calls"}
    ratio = float(sums[:, 0].sum() / sums[:, 1].sum())
    if len(units) < FEWEST:
        few = f"one {unit}" if len(units) == 1 else f"only {len(units)} {unit}s"
        return {"ratio": ratio, "no_interval": few}
    rng = np.random.default_rng(seed)
    drawn = sums[rng.integers(len(sums), size=(SAMPLES, len(sums)))].sum(axis=1)
    low, high = (float(value) for value in np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975]))
    if math.isclose(low, high, rel_tol=1e-9):
        return {"ratio": ratio, "no_interval": f"the ratio is the same for every {unit}"}
    return {"ratio": ratio, "ratio_low": low, "ratio_high": high, "resampled": f"{unit}s"}
