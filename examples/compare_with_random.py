"""Does it beat random search? Strategies times seeds with equal budgets, and how sure the difference is.

The command hybridcsp compare does the same; here the traces are at hand. Run again, only what is missing is done.
"""

from pathlib import Path

from rich.console import Console

from hybridcsp import Archive, campaign
from hybridcsp.analysis import compare

SETTINGS = {
    "problem": {"formula": "CuAu", "formula_units": [1, 2]},
    "search": {"calculator": "emt"},
    "budget": {"relaxations": 6, "refine": 0},
}
STRATEGIES = ["random", "random+evolution"]  # the first is the baseline; sources joined by + share the budget

runs = campaign.plan({"CuAu": SETTINGS}, STRATEGIES, seeds=range(2), directory=Path("comparison"))
campaign.execute(runs, parallel=2)


def trace(run: campaign.Planned, target: float | None) -> compare.Trace:
    with Archive(run.directory) as archive:
        return compare.trace_of(archive, problem=run.problem, strategy=run.strategy, seed=run.seed, target=target)


best = min(lowest for run in runs if (lowest := trace(run, None).best) is not None)
traces = [trace(run, best) for run in runs]  # a run has succeeded when it came within 2 meV/atom of the best of all
rows = compare.compare(traces)
Console(width=110).print(compare.table(rows, traces, f"{best:.4f} eV/atom"))
for row in rows:
    print(f"{row.strategy}: {row.solved} of {row.runs} runs, {row.mean_force_calls:.0f} force calls on average")
compare.plot(traces, Path("comparison.png"), f"{best:.4f} eV/atom")
