"""How often do the tests and intervals of a comparison find a difference, and how often one that is not there?

    python benchmarks/comparison_statistics.py
    python benchmarks/comparison_statistics.py --only-table      # print the recorded result

Comparisons of two strategies are simulated. The mean cost to success of a problem is drawn from a log-normal
distribution over problems (two decades and a half, as of the cells of `recovery.py`), that of a run from an exponential
distribution, and the second strategy needs the given ratio of it. A run ends unsuccessfully at 60 relaxations. The
results are the shares of the simulations in which

- the log-rank test of all runs together and the one stratified by problem reject equality (p < 0.05),
- the 95 % intervals of the ratio of expected running times and of restricted means exclude 1 and, of the first, contain
  the true ratio.

With a ratio of 1 these shares are the sizes of the tests, which should be 0.05, otherwise their powers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import CensoredData, binomtest, logrank

from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.statistics import compare
from hybridcsp.analysis.survival import success_costs

RESULT = Path(__file__).parent / "results" / "comparison_statistics.json"

BUDGET = 60
CALLS = 40  # of a relaxation

#: Standard deviation over problems of the natural logarithm of the mean cost, and median cost in relaxations.
SPREAD, MEDIAN = 2.0, 25.0

RATIOS = (1.0, 0.7, 0.5)
SIZES = ((18, 3), (40, 1), (46, 3))  # problems and seeds


def simulated(rng: np.random.Generator, ratio: float, problems: int, seeds: int) -> list[RunResult]:
    """Return the runs of two strategies on the same problems."""
    means = MEDIAN * np.exp(SPREAD * rng.standard_normal(problems))
    return [
        _run(strategy, problem, seed, rng.exponential(factor * mean))
        for strategy, factor in (("baseline", 1.0), ("other", ratio))
        for problem, mean in enumerate(means)
        for seed in range(seeds)
    ]


def _run(strategy: str, problem: int, seed: int, cost: float) -> RunResult:
    relaxations = int(cost) + 1
    solved = relaxations <= BUDGET
    end = relaxations if solved else BUDGET
    return RunResult(
        problem=str(problem),
        strategy=strategy,
        seed=seed,
        relaxations=end,
        failed=0,
        rejected=0,
        force_calls=CALLS * end,
        seconds=0.0,
        best=None,
        solved_at=(relaxations, CALLS * relaxations) if solved else None,
    )


def measured(ratio: float, problems: int, seeds: int, times: int) -> dict[str, Any]:
    """Return how many of the simulations reject equality, and how many intervals contain the true ratio."""
    rng = np.random.default_rng([problems, seeds, round(100 * ratio)])
    counts = dict.fromkeys(("pooled", "stratified", "expected", "means", "covered"), 0)
    for _ in range(times):
        runs = simulated(rng, ratio, problems, seeds)
        row = compare(runs)[1]
        groups = [[run for run in runs if run.strategy == name] for name in ("baseline", "other")]
        pooled = logrank(*(CensoredData.right_censored(*success_costs(group, 1)) for group in groups))
        counts["pooled"] += pooled.pvalue < 0.05
        counts["stratified"] += (row.p_value or 0.0) < 0.05
        assert row.ratio_low is not None and row.ratio_high is not None
        assert row.mean_ratio_low is not None and row.mean_ratio_high is not None
        counts["expected"] += not row.ratio_low <= 1 <= row.ratio_high
        counts["means"] += not row.mean_ratio_low <= 1 <= row.mean_ratio_high
        counts["covered"] += row.ratio_low <= ratio <= row.ratio_high
    return {
        "ratio": ratio,
        "problems": problems,
        "seeds": seeds,
        "simulations": times,
        **{name: int(count) for name, count in counts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--only-table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.only_table:
        rows = [
            measured(ratio, problems, seeds, arguments.simulations) for problems, seeds in SIZES for ratio in RATIOS
        ]
        RESULT.write_text(
            json.dumps({"spread": SPREAD, "median": MEDIAN, "budget": BUDGET, "rows": rows}, indent=1) + "\n"
        )
    table = Table(
        "problems", "seeds", "true ratio", "pooled", "stratified", "expected running time", "means", "covered"
    )
    for row in json.loads(RESULT.read_text())["rows"]:
        shares = (row[name] for name in ("pooled", "stratified", "expected", "means", "covered"))
        table.add_row(
            str(row["problems"]), str(row["seeds"]), str(row["ratio"]), *(_share(n, row["simulations"]) for n in shares)
        )
    Console(width=130).print(table)


def _share(count: int, of: int) -> str:
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return f"{100 * count / of:.0f} % ({100 * interval.low:.0f}-{100 * interval.high:.0f})"


if __name__ == "__main__":
    main()
