"""Analyse costs of which some are censored: the success curve, its median, and tests and means of costs to success."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.analysis.run_results import RunResult

#: Columns of a cost: relaxations and force calls.
RELAXATIONS, FORCE_CALLS = 0, 1


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
    return np.array(times, dtype=float), np.array([result.solved_at is None for result in results], dtype=bool)


def success_curve(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> Any:
    """Return the Kaplan-Meier estimate of the fraction of runs without success, as SciPy's empirical function."""
    from scipy.stats import CensoredData, ecdf

    return ecdf(CensoredData.right_censored(times, censored)).sf


def median_cost(times: NDArray[np.float64], censored: NDArray[np.bool_]) -> float | None:
    """Return the Kaplan-Meier median, or ``None`` if the curve does not fall to one half."""
    survival = success_curve(times, censored)
    reached = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    return float(survival.quantiles[reached[0]]) if len(reached) else None


def common_horizons(results: Sequence[RunResult], column: int) -> dict[str, float]:
    """Return the cost up to which every run of a problem has been followed, by problem.

    It is the lowest cost at which a run of the problem, of any strategy, ended without success; without such a run it
    is the highest cost of a success. Runs that have not begun are left out.

    Parameters
    ----------
    results
        Runs of all strategies.
    column
        Unit of the cost: 0 for relaxations, 1 for force calls.
    """
    ends: dict[str, list[float]] = defaultdict(list)
    successes: dict[str, list[float]] = defaultdict(list)
    for result, cost, censored in zip(results, *success_costs(results, column), strict=True):
        if cost > 0 or not censored:
            (ends if censored else successes)[result.problem].append(float(cost))
    return {
        problem: min(ends[problem]) if ends[problem] else max(successes[problem], default=0.0)
        for problem in dict.fromkeys(result.problem for result in results)
    }


def restricted_costs(
    results: Sequence[RunResult], column: int, horizons: dict[str, float] | None = None
) -> NDArray[np.float64]:
    """Return the cost of each run until success, at most up to the common horizon of its problem.

    Their mean is the restricted mean (doi:10.1186/1471-2288-13-152) of a horizon up to which nothing is censored.

    Parameters
    ----------
    results
        The runs.
    column
        Unit of the cost: 0 for relaxations, 1 for force calls.
    horizons
        Horizons by problem; by default the common ones of these runs.
    """
    horizons = common_horizons(results, column) if horizons is None else horizons
    limits = np.array([horizons[result.problem] for result in results], dtype=float)
    costs: NDArray[np.float64] = np.minimum(success_costs(results, column)[0], limits)
    return costs


def stratified_log_rank(
    ours: Sequence[RunResult], theirs: Sequence[RunResult], column: int = FORCE_CALLS
) -> float | None:
    """Return the p value of the two-sided log-rank test of equal costs to success, stratified by problem.

    Observed and expected successes are compared within each problem and summed over the problems
    (doi:10.2307/2344317). Runs of different problems are never compared with each other: costs that differ between
    problems by orders of magnitude would hide the difference between strategies.

    Parameters
    ----------
    ours, theirs
        Runs of the two strategies; problems with runs of only one of them contribute nothing.
    column
        Unit of the cost: 0 for relaxations, 1 for force calls.

    Returns
    -------
    float or None
        The p value; ``None`` if nothing was solved on common problems or if a strategy has fewer than two runs there.
    """
    from scipy.stats import chi2

    common = {result.problem for result in ours} & {result.problem for result in theirs}
    pairs = [[result for result in results if result.problem in common] for results in (ours, theirs)]
    if min(map(len, pairs)) < 2 or all(result.solved_at is None for results in pairs for result in results):
        return None
    difference = variance = 0.0
    for problem in sorted(common):
        own, other = (
            success_costs([result for result in results if result.problem == problem], column) for results in pairs
        )
        of_problem = _observed_minus_expected(own, other)
        difference, variance = difference + of_problem[0], variance + of_problem[1]
    if math.isclose(variance, 0.0, abs_tol=1e-12):
        return 1.0
    return float(chi2.sf(difference**2 / variance, 1))


Costs = tuple[NDArray[np.float64], NDArray[np.bool_]]


def _observed_minus_expected(own: Costs, other: Costs) -> tuple[float, float]:
    """Return the successes of the first group minus those expected with equal costs, and the variance of that."""
    times, censored = (np.concatenate(both) for both in zip(own, other, strict=True))
    events = np.unique(times[~censored])
    at_risk = (times[None] >= events[:, None]).sum(axis=1)
    own_at_risk = (own[0][None] >= events[:, None]).sum(axis=1)
    solved = ((times[None] == events[:, None]) & ~censored[None]).sum(axis=1)
    own_solved = ((own[0][None] == events[:, None]) & ~own[1][None]).sum(axis=1)
    share = own_at_risk / at_risk
    variance = solved * share * (1 - share) * (at_risk - solved) / np.maximum(at_risk - 1, 1)
    return float((own_solved - solved * share).sum()), float(variance.sum())
