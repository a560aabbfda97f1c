"""Fit what each source is expected to earn per force call, the prior of the allocation between sources.

    python benchmarks/allocation_priors.py                                     # do what is missing, print the table
    python benchmarks/allocation_priors.py --write hybridcsp/data/allocation_priors.json

Each development system is searched by all sources together, with equal shares, 10 relaxations for each on average,
with CHGNet and one worker, without energies before relaxations: what a source is worth depends on the company it
keeps. Evolution breeds what others have found, shaking has nothing to shake without them, and a crystal that
prototypes have already led to earns random search nothing. The yield of a source is the credit for minima that it was
the first to reach (exp(-ΔH / 20 meV) above the lowest of the run, a part of it for the sources of the parents, as in
:mod:`hybridcsp.search.allocation`) over its force calls.
The model is ``exp(a + b ln(atoms) + c (elements - 2))`` for each source, b and c drawn towards those of all sources
together: the systems are few.

The systems are the contents of the primitive cells of 18 crystals, drawn once without looking at anything but their
size from those whose formulas no generator learns from. The table of prototypes is used without these formulas. None
of them is a crystal of the recovery benchmark.

Finished runs are lines of results/allocation_priors_runs.jsonl; nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.resources import files
from math import exp
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from hybridcsp import Problem, Search
from hybridcsp.archive.credit import CREDIT_SCALE
from hybridcsp.core.records import REFINE, Failed, Relaxed
from hybridcsp.generators.datasets import is_held_out
from hybridcsp.prototypes import CountTable
from hybridcsp.prototypes.table import reduced_hill_formula
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.search.allocation import SHARE_OF_PARENTS
from hybridcsp.sources.registry import DEFAULT_SOURCES

RUNS = Path(__file__).parent / "results" / "allocation_priors_runs.jsonl"
SEARCHES = Path(__file__).parent / ".searches" / "allocation_priors"  # kept, so that they can be looked at
SOURCES = DEFAULT_SOURCES
RELAXATIONS = 10 * len(SOURCES)
SECONDS_PER_RELAXATION = 2.0  # only to plan

SYSTEMS = (
    *("As2K2Li4", "H4F2N2Sn", "CrS4V2", "H4N2Rb2", "F6NaRb2Ti", "Ru3Ta", "Cl4Nb2O2", "Cs2F6Ni"),
    *("H4Li2O4P2", "Nd4Sn4Zn4", "Cl4N4Zn8", "Au14BiCa3", "Pt4Yb10", "Ba2Ce4Mn2S10", "O12P4SrTl2", "Cu6Eu2P5"),
    *("Cu4Pr4S8", "Ni4Si4Y4"),
)

#: How strongly the slopes of sources are drawn together.
RIDGE = 5.0


def without_held_out() -> CountTable:
    """Return the table of prototypes as it would be without the formulas that generators do not learn from."""
    raw = json.loads(files("hybridcsp").joinpath("data/prototype_counts.json").read_text(encoding="utf-8"))
    kept: dict[str, dict[str, str]] = {}
    for stoichiometry, prototypes in raw["prototypes"].items():
        for label, kinds in prototypes.items():
            known = [kind for kind in kinds.split() if not _held_out(stoichiometry, label, kind)]
            if known:
                kept.setdefault(stoichiometry, {})[label] = " ".join(known)
    return CountTable({"card": raw["card"], "prototypes": kept})


def _held_out(stoichiometry: str, label: str, kind: str) -> bool:
    (formula,) = CountTable({"card": {}, "prototypes": {stoichiometry: {label: kind}}}).formulas
    return is_held_out(formula)


def measure(system: str, seed: int, pool: WorkerPool) -> dict[str, Any]:
    problem = Problem(system, formula_units=1)
    assert is_held_out(reduced_hill_formula(problem.composition)), system
    directory = SEARCHES / f"{system}-{seed}"
    start = time.perf_counter()
    with Search(
        problem,
        sources=SOURCES,
        seed=seed,
        allocation="equal",
        directory=directory,
        backend=pool,
        workers=1,
        one_shot=1,
    ) as search:
        search.run(relaxations=RELAXATIONS, refine=0)
        sources = {n: search.archive.candidate(n).source for n in range(1, search.archive.candidates + 1)}
        return {
            "system": system,
            "seed": seed,
            "atoms": problem.atoms_per_unit,
            "elements": len(problem.composition),
            # Source, operator, the parents' sources, force calls, and the enthalpy per atom of a new minimum.
            "relaxations": [
                [
                    event.candidate.source,
                    event.candidate.operator,
                    [sources[id_] for id_ in event.candidate.proposal.parents],
                    event.cost.force_calls,
                    round(event.enthalpy_per_atom, 5) if isinstance(event, Relaxed) and event.is_new_minimum else None,
                ]
                for event in search.archive.history()
                if isinstance(event, Relaxed | Failed) and event.level != REFINE
            ],
            "seconds": round(time.perf_counter() - start, 1),
            "load": round(os.getloadavg()[0], 1),
        }


def best_of(run: dict[str, Any]) -> float:
    """Lowest enthalpy per atom that a run has reached."""
    return min(enthalpy for *_, enthalpy in run["relaxations"] if enthalpy is not None)


def credit_for(enthalpy: float | None, lowest: float) -> float:
    """Credit for a new minimum, none for what was no new one."""
    return 0.0 if enthalpy is None else exp((lowest - enthalpy) / CREDIT_SCALE)


def accounts(run: dict[str, Any]) -> dict[str, np.ndarray]:
    """Relaxations, force calls and credit of each source."""
    lowest = best_of(run)
    sums = {source: np.zeros(3) for source in SOURCES}
    for source, _, parents, calls, enthalpy in run["relaxations"]:
        credit = credit_for(enthalpy, lowest)
        for parent in parents:
            sums[parent][2] += SHARE_OF_PARENTS * credit / len(parents)
        sums[source] += 1, calls, credit * (1 - SHARE_OF_PARENTS if parents else 1.0)
    return sums


def by_operator(runs: list[dict[str, Any]]) -> None:
    """Print what operators earned."""
    sums: dict[tuple[str, str], np.ndarray] = {}
    for run in runs:
        lowest = best_of(run)
        for source, operator, _, calls, enthalpy in run["relaxations"]:
            credit = credit_for(enthalpy, lowest)
            key = source, operator
            sums[key] = sums.get(key, np.zeros(3)) + np.array([1, calls, credit])
    print("relaxations, force calls, credit and credit per 1,000 force calls by operator:")
    for (source, operator), (n, calls, credit) in sorted(sums.items()):
        print(f"  {source:14s} {operator:20s} {n:5.0f} {calls:7.0f} {credit:7.2f} {1000 * credit / calls:7.2f}")


def fit(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Poisson regression of the credit on the force calls, source by source around common slopes."""

    def solve(rows: np.ndarray, centre: np.ndarray, ridge: np.ndarray) -> np.ndarray:
        x, exposure, y = np.c_[np.ones(len(rows)), rows[:, :2]], rows[:, 2], rows[:, 3]
        beta = centre.copy()
        beta[0] = np.log((y.sum() + 0.5) / exposure.sum()) - x[:, 1:].mean(axis=0) @ beta[1:]
        for _ in range(100):  # Newton's method
            rate = exposure * np.exp(x @ beta)
            gradient = x.T @ (y - rate) - ridge * (beta - centre)
            step = np.linalg.solve((x * rate[:, None]).T @ x + np.diag(ridge + 1e-9), gradient)
            beta = beta + np.clip(step, -1, 1)
        return beta

    rows = {
        source: np.array([[np.log(run["atoms"]), run["elements"] - 2.0, *accounts(run)[source][1:]] for run in runs])
        for source in SOURCES
    }
    common = solve(np.concatenate(list(rows.values())), np.zeros(3), np.array([0.0, 0.5, 0.5]))
    ridge = np.array([0.5, RIDGE, RIDGE])
    return {source: [round(float(v), 3) for v in solve(own, common, ridge)] for source, own in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only-fit", action="store_true")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to use several cores")
    arguments = parser.parse_args()
    runs = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    done = {(run["system"], run["seed"]) for run in runs}
    part, parts = map(int, arguments.part.split("/"))
    planned = [(n, k) for k in range(arguments.seeds) for n in SYSTEMS[part::parts] if (n, k) not in done]
    if not arguments.only_fit and planned:
        hours = len(planned) * RELAXATIONS * SECONDS_PER_RELAXATION / 3600
        print(f"{len(planned)} runs to do, about {hours:.1f} core-hours", flush=True)
        table = without_held_out()
        with (
            patch("hybridcsp.sources.prototypes.shipped_table", lambda: table),
            WorkerPool(Relaxer(), workers=1) as pool,
        ):
            for name, seed in planned:
                runs.append(measure(name, seed, pool))
                with RUNS.open("a") as lines:
                    lines.write(json.dumps(runs[-1]) + "\n")
                print(name, seed, best_of(runs[-1]), f"{runs[-1]['seconds']:.0f} s", flush=True)
    by_operator(runs)
    yields = fit(runs)
    print(f"{len(runs)} runs; credit per 1,000 force calls, measured and (fitted):")
    print("  " + " ".join(f"{name:>13s}" for name in ("system", *SOURCES)))
    for name in SYSTEMS:
        own = [run for run in runs if run["system"] == name]
        cells = []
        for source in SOURCES if own else ():
            a, b, c = yields[source]
            fitted = 1000 * np.exp(a + b * np.log(own[0]["atoms"]) + c * (own[0]["elements"] - 2))
            _, calls, credit = sum(accounts(run)[source] for run in own)
            cells.append(f"{1000 * credit / max(calls, 1):.2f} ({fitted:.2f})")
        print("  " + " ".join(f"{cell:>13s}" for cell in (name, *cells)))
    if arguments.write:
        # What a seed earns that its owner found worth handing in cannot be measured.
        yields["seeds"] = yields["prototypes"]
        card = {
            "what": "yield of each source, in credit per force call: exp(a + b ln(atoms) + c (elements - 2))",
            "method": "benchmarks/allocation_priors.py: Poisson regression, sources in company, CHGNet",
            "systems": list(SYSTEMS),
            "atoms": [min(run["atoms"] for run in runs), max(run["atoms"] for run in runs)],
            "elements": [min(run["elements"] for run in runs), max(run["elements"] for run in runs)],
            "relaxations_per_run": RELAXATIONS,
            "runs": len(runs),
            "seeds": sorted({run["seed"] for run in runs}),
        }
        temporary = arguments.write.with_suffix(".tmp")
        temporary.write_text(json.dumps({"card": card, "yields": yields}, indent=1) + "\n")
        temporary.replace(arguments.write)


if __name__ == "__main__":
    main()
