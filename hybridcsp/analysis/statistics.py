"""Compare strategies statistically: success rates, costs to success and their ratios, with unfinished runs censored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.source_activity import SourceShare, source_shares

#: Number of bootstrap samples for the interval of a ratio.
SAMPLES = 2000

#: Fewest problems (or seeds) that are resampled: the interval of two would merely be the two.
FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class StrategyStatistics:
    """Statistics of one strategy, compared with the first strategy, the baseline.

    Attributes
    ----------
    strategy
        Name of the strategy.
    runs, solved
        Number of runs, and number of runs that reached the target.
    rate, low, high
        Fraction of runs that reached it, and its 95 % Wilson interval (doi:10.1080/01621459.1927.10502953).
    relaxations, force_calls
        Kaplan-Meier medians of the cost to the first success (doi:10.1080/01621459.1958.10501452); a run without
        success is censored at its total cost. ``None`` if fewer than half of the runs succeeded.
    mean_relaxations, mean_force_calls
        Restricted means of the same costs: each run counts with its cost until success or until its end.
    p_value
        Log-rank test of the force calls to success against the baseline, on the problems of both. ``None`` for the
        baseline, without any success, and if either has a single run.
    ratio
        Restricted-mean force calls divided by those of the baseline on the same problems and seeds. ``None`` for the
        baseline, and if neither has solved anything.
    ratio_low, ratio_high
        95 % percentile-bootstrap interval of the ratio; ``None`` if it is undefined.
    resampled
        The unit of the bootstrap: "problems", or "seeds" if there is one problem.
    no_interval
        The reason why the interval is undefined, such as "one seed"; empty otherwise.
    shares
        Share of each source in the relaxations.
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
    shares: tuple[SourceShare, ...] = ()


def compare(results: Sequence[RunResult], seed: int = 0) -> list[StrategyStatistics]:
    """Compare strategies with the strategy of the first result, the baseline.

    A run that ended early without success because its sources were exhausted counts as unsuccessful up to the length
    of the longest run of its problem; otherwise giving up would look cheap.

    Parameters
    ----------
    results
        Results of all runs.
    seed
        Random seed of the bootstrap.
    """
    counted = extended_to_longest(results)
    strategies = list(dict.fromkeys(result.strategy for result in counted))
    by_strategy = {name: [result for result in counted if result.strategy == name] for name in strategies}
    baseline = by_strategy[strategies[0]] if strategies else []
    return [
        replace(
            _statistics(name, own, None if own is baseline else baseline, seed),
            shares=tuple(source_shares([result for result in results if result.strategy == name])),
        )
        for name, own in by_strategy.items()
    ]


def extended_to_longest(results: Sequence[RunResult]) -> list[RunResult]:
    """Return the results, with runs that ended early without success extended to the longest run of their problem."""
    longest: dict[str, tuple[int, int]] = {}
    for result in results:
        relaxations, force_calls = longest.get(result.problem, (0, 0))
        longest[result.problem] = max(relaxations, result.relaxations), max(force_calls, result.force_calls)
    return [
        replace(result, relaxations=longest[result.problem][0], force_calls=longest[result.problem][1])
        if result.ended and result.solved_at is None
        else result
        for result in results
    ]


def success_costs(results: Sequence[RunResult], column: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the cost of each run until success or its end.

    Parameters
    ----------
    results
        The runs.
    column
        Unit of the cost: 0 for relaxations, 1 for force calls.

    Returns
    -------
    costs, censored
        Arrays of shape ``(n_runs,)``: the costs, and whether each belongs to a run that ended without success.
    """
    ends = [(result.relaxations, result.force_calls)[column] for result in results]
    times = [end if t.solved_at is None else t.solved_at[column] for t, end in zip(results, ends, strict=True)]
    return np.array(times, dtype=float), np.array([result.solved_at is None for result in results])


def _censored(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> Any:
    from scipy.stats import CensoredData

    return CensoredData.right_censored(times, censored)


def success_curve(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> Any:
    """Return the Kaplan-Meier estimate of the fraction of runs without success, as SciPy's empirical function."""
    from scipy.stats import ecdf

    return ecdf(_censored(times, censored)).sf


def _median(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> float | None:
    survival = success_curve(times, censored)
    reached = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    return float(survival.quantiles[reached[0]]) if len(reached) else None


def _statistics(
    name: str, own: Sequence[RunResult], baseline: Sequence[RunResult] | None, seed: int
) -> StrategyStatistics:
    from scipy.stats import binomtest

    solved = sum(result.solved_at is not None for result in own)
    interval = binomtest(solved, len(own)).proportion_ci(method="wilson")
    by_relaxations, by_force_calls = success_costs(own, 0), success_costs(own, 1)
    against: dict[str, Any] = {}
    if baseline is not None:
        against = {"p_value": _p_value(own, baseline), **_ratio(own, baseline, seed)}
    return StrategyStatistics(
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


def _p_value(own: Sequence[RunResult], baseline: Sequence[RunResult]) -> float | None:
    from scipy.stats import logrank

    common = {result.problem for result in own} & {result.problem for result in baseline}
    ours, theirs = ([result for result in results if result.problem in common] for results in (own, baseline))
    if min(len(ours), len(theirs)) < 2 or all(result.solved_at is None for result in (*ours, *theirs)):
        return None
    with np.errstate(invalid="ignore"):  # zero variance if all runs have the same cost
        p_value = float(logrank(_censored(*success_costs(ours, 1)), _censored(*success_costs(theirs, 1))).pvalue)
    return p_value if math.isfinite(p_value) else 1.0


def _ratio(own: Sequence[RunResult], baseline: Sequence[RunResult], seed: int) -> dict[str, Any]:
    """Return the ratio of restricted-mean force calls on common problems and seeds, with its bootstrap interval."""
    ours = {(t.problem, t.seed): (t, cost) for t, cost in zip(own, success_costs(own, 1)[0], strict=True)}
    theirs = {(t.problem, t.seed): (t, cost) for t, cost in zip(baseline, success_costs(baseline, 1)[0], strict=True)}
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
