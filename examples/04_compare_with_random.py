"""Does it beat random search? Strategies times seeds with equal budgets, and how sure the difference is.

The command hybridcsp compare does the same; here the traces are at hand. Run again, only what is missing is done.
"""

from pathlib import Path

from rich.console import Console

from hybridcsp import Archive
from hybridcsp.analysis import source_activity, statistics
from hybridcsp.analysis.run_results import Trace, trace_of
from hybridcsp.workflows import compare

SETTINGS = {
    "problem": {"formula": "CuAu", "formula_units": [1, 2]},
    "search": {"calculator": "emt"},
    "budget": {"relaxations": 6, "refine": 0},
}
# The first is the baseline; sources joined by + share the budget. Prototypes act from the first relaxation on;
# evolution would need longer runs, since it breeds from six minima on.
STRATEGIES = ["random", "random+prototypes"]

runs = compare.plan({"CuAu": SETTINGS}, STRATEGIES, seeds=range(3), directory=Path("comparison"))
compare.execute(runs, parallel=2)


def trace(run: compare.PlannedRun, target: float | None) -> Trace:
    about = {"problem": run.problem, "strategy": run.strategy, "seed": run.seed, "roles": run.sources}
    with Archive(run.directory) as archive:
        return trace_of(archive, target=target, relaxations=run.relaxations, **about)


best = min(lowest for run in runs if (lowest := trace(run, None).best) is not None)
traces = [trace(run, best) for run in runs]  # a run has succeeded when it came within 2 meV/atom of the best of all
rows = statistics.compare(traces)
notes = source_activity.notes(traces, {run.strategy: run.sources for run in runs})
Console(width=110).print(statistics.table(rows, traces, f"{best:.4f} eV/atom", notes))
for row in rows:
    made = ", ".join(f"{share.relaxations} by {share.source}" for share in row.shares)
    print(f"{row.strategy}: {row.solved} of {row.runs} runs solved, {row.mean_force_calls:.0f} force calls; {made}")
statistics.plot(traces, Path("comparison.png"), f"{best:.4f} eV/atom", notes)
