"""Compare a strategy with random search: equal budgets, several random seeds, confidence intervals.

The command hybridcsp compare does the same; here the result of each run is available for further analysis. Run the
script again to continue: completed runs are kept.
"""

from pathlib import Path

from rich.console import Console

from hybridcsp.analysis import statistics
from hybridcsp.analysis.comparison_report import comparison_table
from hybridcsp.analysis.plots import plot_comparison
from hybridcsp.analysis.run_results import read_results
from hybridcsp.analysis.source_activity import comparison_notes
from hybridcsp.workflows import compare

SETTINGS = {
    "problem": {"formula": "CuAu", "formula_units": [1, 2]},
    "search": {"calculator": "emt"},
    "budget": {"relaxations": 6, "refine": 0},
}
# The first strategy is the baseline; sources joined by + share the budget. Prototypes propose candidates from the
# start; evolution would need longer runs, because it needs six minima as parents.
STRATEGIES = ["random", "random+prototypes"]

runs = compare.plan({"CuAu": SETTINGS}, STRATEGIES, seeds=range(3), directory=Path("comparison"))
compare.execute(runs, parallel=2)

results = read_results(runs, target=None)  # target: within 2 meV/atom of the lowest enthalpy of all runs
rows = statistics.compare(results)
# Sentences about sources that took no part and about identical runs.
notes = comparison_notes(results, {run.strategy: run.sources for run in runs})
Console(width=110).print(comparison_table(rows, results, "the best of all runs", notes))
for row in rows:
    by_source = ", ".join(f"{share.relaxations} by {share.source}" for share in row.shares)
    print(f"{row.strategy}: {row.solved} of {row.runs} runs solved; relaxations: {by_source}")
plot_comparison(results, Path("comparison.png"), "the best of all runs", notes)
