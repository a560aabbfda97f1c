"""Fit what each source is expected to earn per force call, the prior of the allocation between sources.

    python benchmarks/allocation_priors.py                                     # do what is missing, print the table
    python benchmarks/allocation_priors.py --write hybridcsp/data/allocation_priors.json

Each source searches each development system alone (shaking: beside random crystals, which it shakes), 40 relaxations
with CHGNet and one worker. Its yield is the credit for minima first reached (exp(-ΔH / 50 meV) above the lowest of all
runs of the system) over its force calls, both of its first 15 relaxations, which is when a prior matters: the best
prototypes come first. The model is ``exp(a + b ln(atoms) + c (elements - 2))`` for each source, with b and c drawn
towards those of all sources together: the systems are few. None of them is a crystal of the recovery benchmark.

Finished runs are lines of results/allocation_priors_runs.jsonl; nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
import os
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp import Problem, Search
from hybridcsp.allocation import CREDIT_SCALE
from hybridcsp.records import REFINE, Failed, Relaxed
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer

RUNS = Path(__file__).parent / "results" / "allocation_priors_runs.jsonl"
SEARCHES = Path(__file__).parent / ".searches" / "allocation_priors"  # kept, so that operators can be looked at too
RELAXATIONS = 40
SECONDS_PER_RELAXATION = 2.0  # only to plan

SOURCES = ("random", "prototypes", "evolution", "swarm", "basin-hopping", "shake")

#: Sources that have nothing to begin with share their searches with others; only their own relaxations count.
COMPANY = {"shake": ("random",)}

SYSTEMS = {
    "Si2": "Si2",
    "ZnS": "Zn2S2",
    "TiO2": "Ti2O4",
    "CaTiO3": "CaTiO3",
    "SiO2": "Si3O6",
    "Al2O3": "Al4O6",
    "Li3PO4": "Li3PO4",
    "MgSiO3": "Mg2Si2O6",
    "TiO2-4": "Ti4O8",
}

#: How strongly the slopes of sources are drawn together: what predicts systems that are left out best (0.5 to 100).
RIDGE = 5.0
EARLY = 15


def measure(name: str, source: str, seed: int, pool: WorkerPool) -> dict[str, Any]:
    problem = Problem(SYSTEMS[name], formula_units=1)
    directory = SEARCHES / source / f"{name}-{seed}"
    sources = [source, *COMPANY.get(source, ())]
    with Search(problem, sources=sources, seed=seed, directory=directory, backend=pool, workers=1) as search:
        search.run(relaxations=RELAXATIONS, refine=0)
        return {
            "system": name,
            "source": source,
            "seed": seed,
            "atoms": problem.atoms_per_unit,
            "elements": len(problem.composition),
            # Operator, force calls, and the enthalpy per atom where a minimum was reached that was not known.
            "relaxations": [
                [
                    event.candidate.operator,
                    event.cost.force_calls,
                    round(event.enthalpy_per_atom, 5) if isinstance(event, Relaxed) and event.opened else None,
                ]
                for event in search.archive.history()
                if isinstance(event, Relaxed | Failed) and event.level != REFINE and event.candidate.source == source
            ],
            "load": round(os.getloadavg()[0], 1),
        }


def best_of(runs: list[dict[str, Any]]) -> float:
    """Lowest enthalpy per atom that runs have reached, infinite if none has."""
    reached = (enthalpy for run in runs for *_, enthalpy in run["relaxations"] if enthalpy is not None)
    return min(reached, default=float("inf"))


def earned(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the credit of each relaxation, against the lowest enthalpy of all runs of a system, and their early sums."""
    systems = {run["system"] for run in runs}
    lowest = {system: best_of([run for run in runs if run["system"] == system]) for system in systems}
    found = []
    for run in runs:
        below = lowest[run["system"]]
        credits = [0.0 if e is None else exp((below - e) / CREDIT_SCALE) for *_, e in run["relaxations"]]
        calls = [calls for _, calls, _ in run["relaxations"]]
        found.append({**run, "credits": credits, "credit": sum(credits[:EARLY]), "force_calls": sum(calls[:EARLY])})
    return found


def by_operator(runs: list[dict[str, Any]]) -> None:
    """Print what operators earned in whole runs."""
    sums: dict[tuple[str, str], np.ndarray] = {}
    for run in runs:
        for (operator, calls, _), credit in zip(run["relaxations"], run["credits"], strict=True):
            key = run["source"], operator
            sums[key] = sums.get(key, np.zeros(3)) + np.array([1, calls, credit])
    print("relaxations, force calls, credit and credit per 1,000 force calls by operator:")
    for (source, operator), (n, calls, credit) in sorted(sums.items()):
        print(f"  {source:14s} {operator:20s} {n:5.0f} {calls:7.0f} {credit:7.2f} {1000 * credit / calls:7.2f}")


def fit(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Poisson regression of the credit on the force calls, source by source around common slopes."""

    def solve(chosen: list[dict[str, Any]], centre: np.ndarray, ridge: np.ndarray) -> np.ndarray:
        x = np.array([[1.0, np.log(r["atoms"]), r["elements"] - 2.0] for r in chosen])
        y = np.array([r["credit"] for r in chosen])
        exposure = np.array([float(r["force_calls"]) for r in chosen])
        beta = centre.copy()
        beta[0] = np.log((y.sum() + 0.5) / exposure.sum()) - x[:, 1:].mean(axis=0) @ beta[1:]
        for _ in range(100):  # Newton's method
            rate = exposure * np.exp(x @ beta)
            gradient = x.T @ (y - rate) - ridge * (beta - centre)
            step = np.linalg.solve((x * rate[:, None]).T @ x + np.diag(ridge + 1e-9), gradient)
            beta = beta + np.clip(step, -1, 1)
        return beta

    common = solve(runs, np.zeros(3), np.array([0.0, 0.5, 0.5]))
    return {
        source: [round(float(v), 3) for v in solve(own, common, np.array([0.5, RIDGE, RIDGE]))]
        for source in SOURCES
        if (own := [r for r in runs if r["source"] == source])
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only-fit", action="store_true")
    arguments = parser.parse_args()
    runs = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    done = {(r["system"], r["source"], r["seed"]) for r in runs}
    planned = [
        (n, s, k) for k in range(arguments.seeds) for n in SYSTEMS for s in arguments.sources if (n, s, k) not in done
    ]
    if not arguments.only_fit:
        hours = len(planned) * RELAXATIONS * SECONDS_PER_RELAXATION / 3600
        print(f"{len(planned)} runs to do, about {hours:.1f} core-hours", flush=True)
        with WorkerPool(Relaxer(), workers=1) as pool:
            for name, source, seed in planned:
                runs.append(measure(name, source, seed, pool))
                with RUNS.open("a") as lines:
                    lines.write(json.dumps(runs[-1]) + "\n")
                print(name, source, seed, best_of(runs[-1:]), flush=True)
    runs = earned(runs)
    by_operator(runs)
    yields = fit(runs)
    print(f"{len(runs)} runs; credit per 1,000 force calls, measured and (fitted):")
    print("  " + " ".join(f"{name:>16s}" for name in ("system", *SOURCES)))
    for name in SYSTEMS:
        cells = []
        for source in SOURCES:
            own = [r for r in runs if (r["system"], r["source"]) == (name, source)]
            if own:
                a, b, c = yields[source]
                fitted = 1000 * np.exp(a + b * np.log(own[0]["atoms"]) + c * (own[0]["elements"] - 2))
                measured = 1000 * sum(r["credit"] for r in own) / sum(r["force_calls"] for r in own)
                cells.append(f"{measured:.2f} ({fitted:.2f})")
            else:
                cells.append("-")
        print("  " + " ".join(f"{cell:>16s}" for cell in (name, *cells)))
    if arguments.write:
        # What a seed earns that its owner found worth handing in cannot be measured; generators have learned from
        # crystals of these systems. They are expected to earn what prototypes do.
        for name in ("seeds", "wyckoff", "flow"):
            yields[name] = yields.get("prototypes", yields["random"])
        card = {
            "what": "yield of each source, in credit per force call: exp(a + b ln(atoms) + c (elements - 2))",
            "method": "benchmarks/allocation_priors.py: Poisson regression, each source alone, CHGNet",
            "systems": list(SYSTEMS.values()),
            "atoms": [min(r["atoms"] for r in runs), max(r["atoms"] for r in runs)],
            "elements": [min(r["elements"] for r in runs), max(r["elements"] for r in runs)],
            "relaxations_per_run": EARLY,
            "runs": len(runs),
            "seeds": sorted({r["seed"] for r in runs}),
        }
        temporary = arguments.write.with_suffix(".tmp")
        temporary.write_text(json.dumps({"card": card, "yields": yields}, indent=1) + "\n")
        temporary.replace(arguments.write)


if __name__ == "__main__":
    main()
