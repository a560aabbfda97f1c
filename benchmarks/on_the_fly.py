"""Expensive force calls that a search with a learning potential saves: against the plain search, at equal success.

A fast potential stands in for the expensive calculator. Both arms have the same problem, sources and seeds. A run is
successful when a minimum of the expensive calculator lies within 5 meV/atom of the lowest enthalpy that any run of the
problem has reached; its cost is the number of expensive force calls until then. Runs that are not successful are
counted with all their calls, and so the ratio of the sums is a lower bound of the saving where only the learning arm
succeeds, and an upper bound where only the plain one does. Settings were chosen on CuAl (EMT); the other problems were
run once. Each run is a line in ``results/on_the_fly_runs.jsonl``; finished runs are not repeated::

    python benchmarks/on_the_fly.py --set development --seeds 1
    python benchmarks/on_the_fly.py --set measured --seeds 2
    python benchmarks/on_the_fly.py --table
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from run_lines import execute_missing, read_lines

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.workflows.learned_rounds import LearningPlan
from hybridcsp.workflows.learned_search import LearnedSearch

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "on_the_fly_runs.jsonl"
TABLE = RESULTS / "on_the_fly.json"

#: Problems of each set: formula, formula units and calculator.
SETS = {
    "development": [("CuAl", (4, 4), "emt")],
    "measured": [("AuPd", (4, 4), "emt"), ("NaCl", (2, 2), "chgnet")],
}
SOURCES = ("random", "evolution")
ARMS = ("plain", "learning")
WITHIN = 0.005  # eV/atom

#: Relaxations of the plain search, and settings of the other, chosen for a short benchmark.
RELAXATIONS = 50
PLAN = {
    "rounds": 2,
    "start": 6,
    "relaxations": 25,
    "selected": 5,
    "max_steps": 30,
    "members": 2,
    "most": 150,
    "epochs": 20,
}


def improvements(archive: Archive) -> list[tuple[int, float]]:
    """Return the force calls at which the lowest enthalpy of a converged relaxation (eV/atom) fell, and its value."""
    calls, best, found = 0, float("inf"), []
    for outcome in archive.history():
        if not isinstance(outcome, Relaxed | Failed):
            continue
        calls += outcome.cost.force_calls
        if isinstance(outcome, Relaxed) and outcome.converged and outcome.enthalpy_per_atom < best:
            best = outcome.enthalpy_per_atom
            found.append((calls, best))
    return found


def execute(run: Mapping[str, Any]) -> dict[str, Any]:
    """Run one arm of one problem and seed, and return its line."""
    problem = Problem(run["formula"], formula_units=tuple(run["units"]))
    begun = time.monotonic()
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        rounds: list[dict[str, Any]] = []
        if run["arm"] == "plain":
            with Search(
                problem,
                calculator=run["calculator"],
                sources=SOURCES,
                seed=run["seed"],
                workers=1,
                directory=directory,
            ) as search:
                search.run(relaxations=RELAXATIONS, refine=0)
        else:
            plan = LearningPlan(seed=run["seed"], **PLAN)
            accounts = LearnedSearch(
                problem, run["calculator"], plan, directory=directory, sources=SOURCES, workers=1
            ).run()
            rounds = [
                {
                    "learned": one.learned,
                    "errors": dict(one.errors),
                    "stopped": one.stopped,
                    "committee_calls": one.committee_calls,
                    "selected": dict(one.selected),
                }
                for one in accounts
            ]
        with Archive(directory) as archive:
            curve, calls = improvements(archive), archive.state.cost.force_calls
            minima = archive.number_of_minima
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    settings = PLAN if run["arm"] == "learning" else {"relaxations": RELAXATIONS}
    return {
        **run,
        "id": name_of(run),
        "settings": settings,
        "force_calls": calls,
        "minima": minima,
        "improvements": curve,
        "rounds": rounds,
        "processor_seconds": round(processor, 1),
        "wall_seconds": round(time.monotonic() - begun, 1),
    }


def name_of(run: Mapping[str, Any]) -> str:
    """Return the name of a run."""
    return f"{run['formula']} {run['calculator']} {run['arm']} {run['seed']}"


def table(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return calls until success by problem, for seeds of which both arms are finished."""
    rows = []
    for name, problems in SETS.items():
        for formula, _, calculator in problems:
            own = [line for line in lines if (line["formula"], line["calculator"]) == (formula, calculator)]
            by_arm = {arm: {line["seed"]: line for line in own if line["arm"] == arm} for arm in ARMS}
            seeds = sorted(set(by_arm["plain"]) & set(by_arm["learning"]))
            if not seeds:
                continue
            reference = min(best for line in own for _, best in line["improvements"])
            row: dict[str, Any] = {"set": name, "problem": f"{formula} ({calculator})", "seeds": len(seeds)}
            for arm in ARMS:
                costs = []
                for seed in seeds:
                    line = by_arm[arm][seed]
                    reached = [calls for calls, best in line["improvements"] if best <= reference + WITHIN]
                    costs.append((reached[0], True) if reached else (line["force_calls"], False))
                row[arm] = {
                    "successes": sum(success for _, success in costs),
                    "force_calls": [calls for calls, _ in costs],
                    "total_force_calls": [by_arm[arm][seed]["force_calls"] for seed in seeds],
                    "processor_seconds": sum(by_arm[arm][seed]["processor_seconds"] for seed in seeds),
                }
            row["ratio"] = round(sum(row["plain"]["force_calls"]) / max(1, sum(row["learning"]["force_calls"])), 2)
            rows.append(row)
    return rows


def main() -> None:
    """Run what is missing, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="development", help="problems to run")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--table", action="store_true", help="only print the table of finished runs")
    given = parser.parse_args()
    if not given.table:
        plan = [
            {
                "formula": formula,
                "units": units,
                "calculator": calculator,
                "arm": arm,
                "seed": seed,
                "relaxations": RELAXATIONS,
            }
            for seed in range(given.seeds)
            for formula, units, calculator in SETS[given.set]
            for arm in ARMS
        ]
        execute_missing(plan, RUNS, name_of, execute, seconds_per_relaxation=1.5)
    rows = table(read_lines(RUNS))
    print(f"{'problem':16} {'seeds':>5} {'plain: successes, calls':>26} {'learning':>26} {'ratio':>6}")
    for row in rows:
        shown = [f"{row[arm]['successes']}, {sum(row[arm]['force_calls'])}" for arm in ARMS]
        print(f"{row['problem']:16} {row['seeds']:5} {shown[0]:>26} {shown[1]:>26} {row['ratio']:6.2f}")
    TABLE.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
