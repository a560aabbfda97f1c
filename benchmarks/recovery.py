"""Which method finds the known structure of a cell, and at what cost?

    python benchmarks/recovery.py CRYSTALS.extxyz                            # what is missing of the core set
    python benchmarks/recovery.py CRYSTALS.extxyz --methods random all --seeds 1 --cells 3 5 7
    python benchmarks/recovery.py CRYSTALS.extxyz --methods ase-ga cryspy    # other codes: see peers/README.md
    python benchmarks/recovery.py CRYSTALS.extxyz --report                   # only the tables

For each crystal the contents of its primitive cell are searched with CHGNet, 60 relaxations at most, one worker. The
reference is the crystal itself, relaxed to 0.01 eV/Å. *Matched*: a minimum that pymatgen's StructureMatcher (default
tolerances) fits to the reference. *Solved*: lowest enthalpy within 2 meV/atom of the best minimum known, the reference
or any of any run. A run stops when it is solved against the reference. Minima more than 150 meV/atom below the
reference are holes of the potential: they are counted and left out.

Each finished run is a line of results/recovery_runs.jsonl (energies and costs, no structures); nothing is run twice,
and the tables are made of all lines. No table shipped with the sources may rest on a formula of the benchmark: that is
asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.formula import Formula
from peers import PEERS, run_peer
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.console import Console

from hybridcsp import Problem, Search
from hybridcsp.analysis.compare import Trace, compare, table
from hybridcsp.prototypes import aflow, training_formulas
from hybridcsp.records import REFINE, Candidate, Job, Limits, Proposal, Relaxed
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.structure import primitive, to_pymatgen

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "recovery_runs.jsonl"
REFERENCES = RESULTS / "recovery_references.json"

RELAXATIONS, SOLVED, HOLE, SMALL = 60, 0.002, 0.150, 10
SECONDS_PER_RELAXATION = 2.0  # only to plan

METHODS = {
    "random": ["random"],
    "evolution": ["evolution"],
    "swarm": ["swarm"],
    "prototypes": ["prototypes", "random"],
    "basin-hopping": ["basin-hopping"],
    "all": ["random", "prototypes", "evolution", "swarm", "basin-hopping"],
}


def core_set(crystals: Sequence[Atoms]) -> list[int]:
    """Twelve cells of at most ten atoms and six larger ones, drawn once without looking at anything but their size."""
    rng = np.random.default_rng(0)
    small = [i for i, atoms in enumerate(crystals) if len(atoms) <= SMALL]
    large = [i for i, atoms in enumerate(crystals) if len(atoms) > SMALL]
    return sorted([*rng.choice(small, 12, replace=False).tolist(), *rng.choice(large, 6, replace=False).tolist()])


def problem_of(atoms: Atoms) -> Problem:
    return Problem(atoms.get_chemical_formula(mode="hill"), formula_units=1, max_atoms=max(20, len(atoms)))


class References:
    """The crystals themselves, relaxed to 0.01 eV/Å: once a process, because structures are not kept in files."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.relaxed: dict[str, Atoms] = {}

    def __call__(self, name: str, atoms: Atoms) -> Atoms:
        if name not in self.relaxed:
            candidate = Candidate(proposal=Proposal(atoms=atoms, operator="reference"), id=1, source="reference")
            limits = Limits(force_calls=1000, seconds=600)
            self.pool.submit(Job(candidate=candidate, atoms=atoms, level=REFINE, limits=limits))
            (outcome,) = self.pool.completed(None)
            assert isinstance(outcome, Relaxed), f"the reference {name} cannot be relaxed: {outcome}"
            self.relaxed[name] = outcome.atoms
            self._note(name, outcome, atoms)
        return self.relaxed[name]

    @staticmethod
    def _note(name: str, outcome: Relaxed, atoms: Atoms) -> None:
        known = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
        known[name] = {
            "energy_per_atom": outcome.enthalpy_per_atom,
            "converged": outcome.converged,
            "still_matches_the_crystal": bool(StructureMatcher().fit(to_pymatgen(outcome.atoms), to_pymatgen(atoms))),
            "calculator": outcome.evaluation.calculator,
        }
        temporary = REFERENCES.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1) + "\n")
        temporary.replace(REFERENCES)


def run(name: str, atoms: Atoms, method: str, seed: int, formulas: set[str], pool: WorkerPool) -> dict[str, Any]:
    """Search the contents of a reference with one method until it is solved, or out of relaxations."""
    start = time.perf_counter()
    goal = atoms.get_potential_energy() / len(atoms)
    problem = problem_of(atoms)
    matcher, wanted = StructureMatcher(), to_pymatgen(atoms)
    improvements: list[tuple[int, int, float]] = []
    matched_at: tuple[int, int] | None = None
    holes = 0
    seen: set[int] = set()
    with (
        tempfile.TemporaryDirectory() as directory,
        Search(
            problem, sources=sources_of(method, problem, formulas), seed=seed, directory=directory, backend=pool
        ) as search,
    ):
        stopped = "relaxations used up"
        for n in range(1, RELAXATIONS + 1):
            stopped = search.run(relaxations=n, refine=0).stopped
            for minimum in search.minima():
                if minimum.enthalpy_per_atom < goal - HOLE:
                    holes += minimum.id not in seen
                else:
                    at = (minimum.first_relaxation, minimum.first_force_calls)
                    if not improvements or minimum.enthalpy_per_atom < improvements[-1][2] - 1e-6:
                        improvements.append((n, search.archive.ledger.cost.force_calls, minimum.enthalpy_per_atom))
                    if minimum.id not in seen and matched_at is None:
                        matched_at = at if matcher.fit(wanted, to_pymatgen(minimum.atoms)) else None
                seen.add(minimum.id)
            if improvements and improvements[-1][2] <= goal + SOLVED:
                stopped = "solved"
                break
            if search.archive.ledger.relaxations < n:
                break
        ledger = search.archive.ledger
        tallies = [
            {
                "source": source,
                "operator": operator,
                "proposed": tally.proposed,
                "rejected": dict(tally.rejected),
                "relaxed": tally.relaxed,
                "unconverged": tally.unconverged,
                "failed": dict(tally.failed),
                "first_reached": tally.first_reached,
                "force_calls": tally.cost.force_calls,
            }
            for (source, operator), tally in ledger.tallies.items()
        ]
        return {
            "cell": name,
            "atoms": len(atoms),
            "elements": len(set(atoms.symbols)),
            "method": method,
            "seed": seed,
            "goal": goal,
            "stopped": stopped,
            "relaxations": ledger.relaxations,
            "force_calls": ledger.cost.force_calls,
            "calculator_seconds": round(ledger.cost.seconds - ledger.proposing.seconds, 2),
            "proposing_seconds": round(ledger.proposing.seconds, 2),
            "seconds": round(time.perf_counter() - start, 2),
            "improvements": improvements,
            "matched_at": matched_at,
            "holes": holes,
            "tallies": tallies,
            "hybridcsp": version("hybridcsp"),
            "calculator": ledger.calculator,
            "load": round(os.getloadavg()[0], 1),
            "machine": platform.machine(),
        }


def run_of_peer(name: str, atoms: Atoms, peer: str, seed: int) -> dict[str, Any]:
    """The same, by another code in an environment of its own."""
    goal = atoms.get_potential_energy() / len(atoms)
    budget = {"relaxations": RELAXATIONS, "solved": SOLVED, "hole": HOLE}
    return run_peer(peer, atoms, {"cell": name, "seed": seed, "goal": goal, **budget})


def past_runs() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []


def reduced_formulas(crystals: Sequence[Atoms]) -> set[str]:
    return {Formula(str(atoms.symbols)).reduce()[0].format("hill") for atoms in crystals}


class Prototypes(PrototypesSource):
    """The source as it ships, but for the library structures of the benchmark's own compounds (AFLOW has SnS)."""

    name = "prototypes"

    def __init__(self, problem: Problem, formulas: set[str]) -> None:
        library = aflow().without(formulas)
        for what, listed in (("the table", training_formulas()), ("the library", library.formulas)):
            assert not formulas & set(listed), f"{what} of prototypes rests on {sorted(formulas & set(listed))}"
        super().__init__(problem, libraries=[library])


def sources_of(method: str, problem: Problem, formulas: set[str]) -> list[Any]:
    return [Prototypes(problem, formulas) if name == "prototypes" else name for name in METHODS[method]]


def report(console: Console) -> None:
    """Print one table for small cells and one for large, made of all runs there are."""
    runs = past_runs()
    best: dict[str, float] = {}
    for one in runs:
        found = [energy for *_, energy in one["improvements"]]
        best[one["cell"]] = min([best.get(one["cell"], one["goal"]), one["goal"], *found])
    for title, group in (
        (f"cells of at most {SMALL} atoms", [one for one in runs if one["atoms"] <= SMALL]),
        ("larger cells", [one for one in runs if one["atoms"] > SMALL]),
    ):
        if not group:
            continue
        order = [*METHODS, *PEERS]
        group.sort(key=lambda one: order.index(one["method"]) if one["method"] in order else 99)
        traces = [_trace(one, best[one["cell"]]) for one in group]
        rows = compare(traces)
        console.print(table(rows, traces, f"solution, {title}"))
        for row in rows:
            own = [t for t in traces if t.strategy == row.strategy]
            within = {n: sum(t.solved_at is not None and t.solved_at[0] <= n for t in own) for n in (5, 10, 20, 40, 60)}
            matched = sum(one["matched_at"] is not None for one in group if one["method"] == row.strategy)
            own_cost = [one for one in group if one["method"] == row.strategy]
            outside = 1 - sum(o["calculator_seconds"] for o in own_cost) / sum(o["seconds"] for o in own_cost)
            console.print(
                f"  {row.strategy}: solved within "
                + ", ".join(f"{n}: {k}/{len(own)}" for n, k in within.items())
                + f"; matched {matched}/{len(own)}; outside the calculator {outside:.0%}; "
                f"holes {sum(o['holes'] for o in own_cost)}",
                highlight=False,
            )
    RESULTS.joinpath("recovery.json").write_text(
        json.dumps({"runs": len(runs), "cells": len({r["cell"] for r in runs}), "best": best}, indent=1) + "\n"
    )


def _trace(one: dict[str, Any], best: float) -> Trace:
    solved = next(((n, calls) for n, calls, energy in one["improvements"] if energy <= best + SOLVED), None)
    return Trace(
        problem=one["cell"],
        strategy=one["method"],
        seed=one["seed"],
        relaxations=one["relaxations"],
        failed=sum(sum(tally["failed"].values()) for tally in one["tallies"]),
        rejected=sum(sum(tally["rejected"].values()) for tally in one["tallies"]),
        force_calls=one["force_calls"],
        seconds=one["seconds"],
        best=one["improvements"][-1][2] if one["improvements"] else None,
        solved_at=solved,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *PEERS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", type=int, nargs="+", help="numbers of crystals in the file; by default the core set")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th run from the i-th, to use several cores")
    parser.add_argument("--hours", type=float, help="begin no further run after this time")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    console = Console()
    if arguments.report:
        report(console)
        return

    crystals = [primitive(atoms) for atoms in ase.io.read(arguments.crystals, ":")]
    formulas = reduced_formulas(crystals)
    cells = arguments.cells or core_set(crystals)
    names = {i: f"{i}-{crystals[i].get_chemical_formula()}" for i in cells}
    done = {(one["cell"], one["method"], one["seed"]) for one in past_runs()}
    planned = [
        (i, method, seed)
        for seed in range(arguments.seeds)
        for i in cells
        for method in arguments.methods
        if (names[i], method, seed) not in done
    ]
    index, parts = map(int, arguments.part.split("/"))
    planned = planned[index::parts]
    hours = len(planned) * RELAXATIONS * SECONDS_PER_RELAXATION / 3600
    console.print(f"{len(planned)} runs to do, at most about {hours:.1f} core-hours; {len(done)} are done")
    start = time.monotonic()
    with WorkerPool(Relaxer(), workers=1) as pool:
        references = References(pool)
        for i, method, seed in planned:
            if arguments.hours and time.monotonic() - start > 3600 * arguments.hours:
                console.print("time used up; run again to go on")
                break
            reference = references(names[i], crystals[i])
            if method in PEERS:
                one = run_of_peer(names[i], reference, method, seed)
            else:
                one = run(names[i], reference, method, seed, formulas, pool)
            with RUNS.open("a") as lines:
                lines.write(json.dumps(one) + "\n")
            console.print(
                f"{names[i]} {method} seed {seed}: {one['stopped']} after {one['relaxations']} relaxations, "
                f"{one['force_calls']} force calls, {one['seconds']:.0f} s",
                highlight=False,
            )
    report(console)


if __name__ == "__main__":
    main()
