"""Compare strategies statistically: success rates, costs to success and their ratios, with unfinished runs censored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.source_activity import SourceShare, source_shares
from hybridcsp.analysis.survival import (
    FORCE_CALLS,
    RELAXATIONS,
    common_horizons,
    median_cost,
    restricted_costs,
    stratified_log_rank,
    success_costs,
)

#: Number of bootstrap samples for an interval.
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
        Restricted means of the same costs, with one horizon for all runs of a problem, whatever their strategy; see
        :func:`hybridcsp.analysis.survival.common_horizons`.
    expected_force_calls, expected_low, expected_high
        Expected running time in force calls, see :func:`expected_running_time`, and its 95 % interval. ``None`` if
        nothing was solved, or without an interval; the upper end is infinite if too few problems were solved to bound
        it.
    p_value
        Log-rank test of the force calls to success against the baseline, stratified by problem; see
        :func:`hybridcsp.analysis.survival.stratified_log_rank`. ``None`` for the baseline, without any success, and if
        either has a single run.
    ratio, ratio_low, ratio_high
        Expected running time divided by that of the baseline on the same problems and seeds, and its 95 %
        percentile-bootstrap interval. ``None`` for the baseline, and if either has solved nothing.
    mean_ratio, mean_ratio_low, mean_ratio_high
        The same of the restricted means of force calls. ``None`` for the baseline, and if neither has solved anything.
    resampled
        The unit of the bootstrap: "problems", or "seeds" if there is one problem.
    no_interval
        The reason why the ratio or its interval is undefined, such as "one seed"; empty otherwise.
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
    expected_force_calls: float | None
    expected_low: float | None = None
    expected_high: float | None = None
    p_value: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    mean_ratio: float | None = None
    mean_ratio_low: float | None = None
    mean_ratio_high: float | None = None
    resampled: str = ""
    no_interval: str = ""
    shares: tuple[SourceShare, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the ends of its 95 % interval; ``None`` where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


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
    horizons = tuple(common_horizons(counted, column) for column in (RELAXATIONS, FORCE_CALLS))
    strategies = list(dict.fromkeys(result.strategy for result in counted))
    by_strategy = {name: [result for result in counted if result.strategy == name] for name in strategies}
    baseline = by_strategy[strategies[0]] if strategies else []
    return [
        replace(
            _statistics(name, own, None if own is baseline else baseline, horizons, seed),
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


def expected_running_time(
    calls: ArrayLike, successes: ArrayLike, units: Sequence[object] = (), seed: int = 0
) -> Estimate:
    """Return the expected running time: the cost of all runs divided by the number of successes.

    It is the expected cost until the first success if a run that ends without one is started anew
    (doi:10.1109/CEC.2005.1554903). Unlike a restricted mean it does not depend on where the runs without success were
    stopped, as long as the rate of success stays the same.

    Parameters
    ----------
    calls
        Cost of each run until its success or its end, shape ``(n_runs,)``.
    successes
        Whether each run succeeded, shape ``(n_runs,)``.
    units
        Unit of each run that the bootstrap resamples, such as its problem. Without these, and with fewer than three
        different ones, there is no interval.
    seed
        Random seed of the bootstrap.

    Returns
    -------
    Estimate
        The expected running time, ``None`` without any success. The upper end of its interval is infinite if more
        than 2.5 % of the samples have no success.
    """
    columns = np.column_stack([np.asarray(calls, dtype=float), np.asarray(successes, dtype=float)])
    if not columns[:, 1].any():
        return Estimate(value=None)
    value = float(columns[:, 0].sum() / columns[:, 1].sum())
    sums = _sums(columns, units)
    if len(sums) < FEWEST:
        return Estimate(value=value)
    low, high = _interval(_resampled(sums, seed), 0, 1)
    return Estimate(value=value, low=low, high=high)


def paired_ratio(
    ours: Mapping[tuple[str, int], float], theirs: Mapping[tuple[str, int], float], seed: int = 0
) -> Estimate:
    """Return the ratio of the sums of a quantity of two strategies, on common problems and seeds.

    Parameters
    ----------
    ours, theirs
        The quantity of each run of the strategy and of the baseline, by problem and seed.
    seed
        Random seed of the bootstrap.

    Returns
    -------
    Estimate
        The ratio, ``None`` if the sum of the baseline is zero or no problem and seed is in common. Its interval is a
        percentile bootstrap over problems, or over the seeds of a single problem; there is none with fewer than three
        of these, or if all have the same ratio.
    """
    both = sorted(set(ours) & set(theirs))
    columns = np.array([[ours[key], theirs[key]] for key in both], dtype=float).reshape(-1, 2)
    total = columns.sum(axis=0)
    if not total[1]:
        return Estimate(value=None)
    value = float(total[0] / total[1])
    sums = _sums(columns, units_of(both))
    if len(sums) < FEWEST:
        return Estimate(value=value)
    low, high = _interval(_resampled(sums, seed), 0, 1)
    return Estimate(value=value) if math.isclose(low, high, rel_tol=1e-9) else Estimate(value=value, low=low, high=high)


def units_of(runs: Sequence[tuple[str, int]]) -> list[object]:
    """Return what the bootstrap resamples for runs given by problem and seed: problems, or seeds of a single one."""
    several = len({problem for problem, _ in runs}) > 1
    return [problem if several else seed for problem, seed in runs]


def _statistics(
    name: str,
    own: Sequence[RunResult],
    baseline: Sequence[RunResult] | None,
    horizons: tuple[dict[str, float], ...],
    seed: int,
) -> StrategyStatistics:
    from scipy.stats import binomtest

    solved = sum(result.solved_at is not None for result in own)
    interval = binomtest(solved, len(own)).proportion_ci(method="wilson")
    calls, censored = success_costs(own, FORCE_CALLS)
    units = units_of([(result.problem, result.seed) for result in own])
    expected = expected_running_time(calls, ~censored, units, seed)
    means = [restricted_costs(own, column, horizons[column]).mean() for column in (RELAXATIONS, FORCE_CALLS)]
    against: dict[str, Any] = {}
    if baseline is not None:
        ratios = _ratios(own, baseline, horizons[FORCE_CALLS], seed)
        against = {"p_value": stratified_log_rank(own, baseline), **ratios}
    return StrategyStatistics(
        strategy=name,
        runs=len(own),
        solved=solved,
        rate=solved / len(own),
        low=float(interval.low),
        high=float(interval.high),
        relaxations=median_cost(*success_costs(own, RELAXATIONS)),
        force_calls=median_cost(calls, censored),
        mean_relaxations=float(means[RELAXATIONS]),
        mean_force_calls=float(means[FORCE_CALLS]),
        expected_force_calls=expected.value,
        expected_low=expected.low,
        expected_high=expected.high,
        **against,
    )


def _ratios(
    own: Sequence[RunResult], baseline: Sequence[RunResult], horizons: dict[str, float], seed: int
) -> dict[str, Any]:
    """Return the ratios of expected running times and of restricted means, on common problems and seeds."""
    ours, theirs = ({(result.problem, result.seed): result for result in runs} for runs in (own, baseline))
    both = sorted(set(ours) & set(theirs))
    if not both:
        return {"no_interval": "no problem and seed in common"}
    # Columns: force calls, successes and restricted force calls, of the strategy and of the baseline.
    columns = np.column_stack(
        [
            column
            for runs in ([ours[key] for key in both], [theirs[key] for key in both])
            for column in (
                success_costs(runs, FORCE_CALLS)[0],
                ~success_costs(runs, FORCE_CALLS)[1],
                restricted_costs(runs, FORCE_CALLS, horizons),
            )
        ]
    ).astype(float)
    total = columns.sum(axis=0)
    if not (total[1] or total[4]):
        return {"no_interval": "nothing was solved"}
    if not (total[3] and total[5]):
        return {"no_interval": "the baseline took no force calls"}
    found: dict[str, Any] = {"mean_ratio": float(total[2] / total[5])}
    if total[1] and total[4]:
        found["ratio"] = float(total[0] / total[1] / (total[3] / total[4]))
    unit = "seed" if len({problem for problem, _ in both}) == 1 else "problem"
    sums = _sums(columns, units_of(both))
    if len(sums) < FEWEST:
        few = f"one {unit}" if len(sums) == 1 else f"only {len(sums)} {unit}s"
        return found | {"no_interval": few}
    drawn = _resampled(sums, seed)
    mean = _interval(drawn, 2, 5)
    if not math.isclose(*mean, rel_tol=1e-9):
        found |= {"mean_ratio_low": mean[0], "mean_ratio_high": mean[1], "resampled": f"{unit}s"}
    if "ratio" not in found:
        return found | {"no_interval": "it solved nothing" if total[4] else "the baseline solved nothing"}
    products = np.column_stack([drawn[:, 0] * drawn[:, 4], drawn[:, 1] * drawn[:, 3]])
    low, high = _interval(products, 0, 1)
    if math.isclose(low, high, rel_tol=1e-9):
        return found | {"no_interval": f"the ratio is the same for every {unit}"}
    return found | {"ratio_low": low, "ratio_high": high, "resampled": f"{unit}s"}


def _sums(columns: NDArray[np.float64], units: Sequence[object]) -> NDArray[np.float64]:
    """Return the sums of the columns over the runs of each unit, shape ``(n_units, n_columns)``."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    sums = np.zeros((len(numbers), columns.shape[1]))
    np.add.at(sums, [numbers[unit] for unit in units], columns[: len(units)])
    return sums


def _resampled(sums: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the column totals of bootstrap samples of the units, shape ``(SAMPLES, n_columns)``."""
    drawn = np.random.default_rng(seed).integers(len(sums), size=(SAMPLES, len(sums)))
    totals: NDArray[np.float64] = sums[drawn].sum(axis=1)
    return totals


def _interval(totals: NDArray[np.float64], above: int, below: int) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of the quotient of two columns; samples of zero by zero are left out."""
    defined = totals[(totals[:, above] != 0) | (totals[:, below] != 0)]
    with np.errstate(divide="ignore"):
        quotients = defined[:, above] / defined[:, below]
    # Without interpolation, because a quotient may be infinite.
    low, high = np.quantile(quotients, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)
