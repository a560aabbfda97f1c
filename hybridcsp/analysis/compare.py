"""Does one strategy find structures more cheaply than another? Statistics for runs that may not have succeeded."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from rich.table import Table

from hybridcsp.analysis.plots import save_figure
from hybridcsp.analysis.report import plain_table
from hybridcsp.archive import Archive
from hybridcsp.structure import to_pymatgen

#: A run has solved a problem when its best lies no more than this above the target (eV/atom).
TOLERANCE = 0.002

#: Bootstrap samples for intervals of ratios.
SAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one run did, as far as it matters for a comparison.

    Attributes
    ----------
    problem, strategy, seed
        Which run it is.
    relaxations, failed, rejected, force_calls, seconds
        What it used in all; seconds are those of relaxing and proposing.
    best
        Lowest enthalpy per atom in eV, ``None`` if it found no minimum.
    solved_at
        Relaxations and force calls when it met the target; ``None`` if it did not.
    """

    problem: str
    strategy: str
    seed: int
    relaxations: int
    failed: int
    rejected: int
    force_calls: int
    seconds: float
    best: float | None
    solved_at: tuple[int, int] | None = None


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
        Log-rank test of the force calls to success against the baseline's; ``None`` for the baseline.
    ratio, ratio_low, ratio_high
        Restricted-mean force calls over the baseline's on the same problems and seeds, with a 95 % bootstrap interval
        over problems (over seeds if there is one problem); ``None`` for the baseline.
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


def trace_of(archive: Archive, *, problem: str, strategy: str, seed: int, target: float | Atoms | None) -> Trace:
    """Read the trace of one run.

    Parameters
    ----------
    archive
        The run.
    problem, strategy, seed
        What to call it.
    target
        An enthalpy per atom (eV), a structure, or ``None`` if that is not known yet.
    """
    ledger = archive.ledger
    return Trace(
        problem=problem,
        strategy=strategy,
        seed=seed,
        relaxations=ledger.relaxations,
        failed=sum(tally.failed.total() for tally in ledger.tallies.values()),
        rejected=sum(tally.rejected.total() for tally in ledger.tallies.values()),
        force_calls=ledger.cost.force_calls,
        seconds=ledger.cost.seconds,
        best=ledger.lowest(),
        solved_at=_matched_at(archive, target) if isinstance(target, Atoms) else _reached_at(archive, target),
    )


def compare(traces: Sequence[Trace], seed: int = 0) -> list[Row]:
    """Compare strategies, the first in ``traces`` being the baseline; ``seed`` is that of the bootstrap."""
    strategies = list(dict.fromkeys(trace.strategy for trace in traces))
    by_strategy = {name: [trace for trace in traces if trace.strategy == name] for name in strategies}
    baseline = by_strategy[strategies[0]]
    return [_row(name, own, None if own is baseline else baseline, seed) for name, own in by_strategy.items()]


def table(rows: Sequence[Row], traces: Sequence[Trace], target: str) -> Table:
    """Return a comparison as a table that says what it was measured on."""
    shown = plain_table(f"Cost to {target}")
    shown.add_column("strategy", overflow="fold")  # in a narrow terminal this one gives way: no number is cut short
    for heading in ("solved (95 %)", "relax.", "f.calls", "mean", "p", "ratio (95 %)"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.strategy,
            f"{row.solved}/{row.runs} ({100 * row.low:.0f}-{100 * row.high:.0f} %)",
            "-" if row.relaxations is None else f"{row.relaxations:.0f}",
            "-" if row.force_calls is None else f"{row.force_calls:.0f}",
            f"{row.mean_force_calls:.0f}",
            "" if row.p_value is None else f"{row.p_value:.3f}",
            "" if row.ratio is None else f"{row.ratio:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})",
        )
    problems = len({trace.problem for trace in traces})
    seeds = len({trace.seed for trace in traces})
    failed, rejected = sum(t.failed for t in traces), sum(t.rejected for t in traces)
    shown.caption = (
        "Kaplan-Meier medians of relaxations and force calls to success (-: half not reached); restricted mean of "
        f"force calls; log-rank p and ratio of means against {rows[0].strategy}. {problems} problems, {seeds} seeds, "
        f"{sum(t.relaxations for t in traces)} relaxations of which {failed} failed, {rejected} proposals rejected."
    )
    return shown


def plot(traces: Sequence[Trace], output: Path, target: str) -> None:
    """Draw which share of the runs had met the target after how many relaxations and force calls (a data profile).

    A curve ends with the longest run of its strategy; at 1, which is the last word, it goes on to the right edge.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
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
    save_figure(figure, output)


def as_json(rows: Sequence[Row], traces: Sequence[Trace], about: Mapping[str, Any]) -> str:
    """Return a comparison and the traces it rests on as JSON."""
    content = {**about, "rows": [asdict(row) for row in rows], "runs": [asdict(trace) for trace in traces]}
    return json.dumps(content, indent=1) + "\n"


def as_csv(traces: Sequence[Trace]) -> str:
    """Return the traces as CSV, one run a line."""
    text = io.StringIO()
    fields = [key for key in asdict(traces[0]) if key != "solved_at"]
    writer = csv.DictWriter(text, [*fields, "solved_at_relaxation", "solved_at_force_calls"])
    writer.writeheader()
    for trace in traces:
        values = asdict(trace)
        relaxation, force_calls = values.pop("solved_at") or ("", "")
        writer.writerow(values | {"solved_at_relaxation": relaxation, "solved_at_force_calls": force_calls})
    return text.getvalue()


def _reached_at(archive: Archive, enthalpy: float | None) -> tuple[int, int] | None:
    if enthalpy is None:
        return None
    for relaxation, force_calls, lowest in archive.ledger.improvements:
        if lowest <= enthalpy + TOLERANCE:
            return relaxation, force_calls
    return None


def _matched_at(archive: Archive, structure: Atoms) -> tuple[int, int] | None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher, wanted = StructureMatcher(), to_pymatgen(structure)
    for minimum in sorted(archive.minima(), key=lambda minimum: minimum.first_relaxation):
        if matcher.fit(wanted, to_pymatgen(minimum.best.atoms)):
            return minimum.first_relaxation, minimum.first_force_calls
    return None


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
    from scipy.stats import binomtest, logrank

    solved = sum(trace.solved_at is not None for trace in own)
    interval = binomtest(solved, len(own)).proportion_ci(method="wilson")
    by_relaxations, by_force_calls = _times(own, 0), _times(own, 1)
    against: dict[str, float] = {}
    if baseline is not None:
        theirs = _times(baseline, 1)
        p_value = 1.0
        if solved or any(trace.solved_at is not None for trace in baseline):
            p_value = float(logrank(_censored(*by_force_calls), _censored(*theirs)).pvalue)
        against["p_value"] = p_value if math.isfinite(p_value) else 1.0
        against |= _ratio(own, baseline, seed)
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


def _ratio(own: Sequence[Trace], baseline: Sequence[Trace], seed: int) -> dict[str, float]:
    """Ratio of restricted-mean force calls on the runs that both have, resampled over problems."""
    ours = {(t.problem, t.seed): cost for t, cost in zip(own, _times(own, 1)[0], strict=True)}
    theirs = {(t.problem, t.seed): cost for t, cost in zip(baseline, _times(baseline, 1)[0], strict=True)}
    both = sorted(set(ours) & set(theirs))
    if not both:
        return {}
    one_problem = len({problem for problem, _ in both}) == 1
    units: dict[object, list[tuple[str, int]]] = {}
    for key in both:
        units.setdefault(key[1] if one_problem else key[0], []).append(key)
    sums = np.array([[sum(ours[k] for k in keys), sum(theirs[k] for k in keys)] for keys in units.values()])
    rng = np.random.default_rng(seed)
    drawn = sums[rng.integers(len(sums), size=(SAMPLES, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    ratio = sums[:, 0].sum() / sums[:, 1].sum()
    return {"ratio": float(ratio), "ratio_low": float(low), "ratio_high": float(high)}
