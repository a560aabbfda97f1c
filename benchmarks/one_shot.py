"""Do energies before relaxations lead a source to the right structure sooner, and at what cost?

    python benchmarks/one_shot.py CRYSTALS.extxyz [MORE.extxyz ...] [--n 40] [--seed 7] [--part 0/2]
    python benchmarks/one_shot.py                                          # only the tables

For crystals of formulas that no generator learns from (and without these in the table of prototypes), half of them of 3
to 11 atoms and half of 12 to 20, each source alone searches the contents of the primitive cell with CHGNet and one
worker, at most 20 relaxations: once with every structure a job, once with twelve together, of which energies choose
one. A search has *recovered* the crystal when its best lies no more than 2 meV/atom above the crystal itself, relaxed
to 0.01 eV/Å; it ends there. Force calls count all, energies included; those of a search that did not recover it as far
as it went. Each crystal is a line of results/one_shot_runs.jsonl; nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ase.io
import numpy as np
from allocation_priors import without_held_out
from ase import Atoms

from hybridcsp import Problem, Retraining, Search
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.generators.opening import read_card
from hybridcsp.generators.storage import shipped
from hybridcsp.records import REFINE, Candidate, Job, Limits, Proposal, Relaxed
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.sources import ONE_SHOT
from hybridcsp.structure import primitive

RUNS = Path(__file__).parent / "results" / "one_shot_runs.jsonl"
SOURCES = ("prototypes", "wyckoff")
SIZES = ((3, 11), (12, 20))
RELAXATIONS, RECOVERED = 20, 0.002
SECONDS_PER_CRYSTAL = 60.0  # only to plan
SHOWN = (1, 3, 5, 10, 20)


def chosen_crystals(files: Sequence[Path], n: int, seed: int) -> list[Atoms]:
    """Return ``n`` crystals of each size, each of another formula held out."""
    rng = np.random.default_rng(seed)
    crystals = [primitive(atoms) for file in files for atoms in ase.io.iread(file) if is_held_out(formula_of(atoms))]
    chosen = []
    for low, high in SIZES:
        fitting: dict[str, Atoms] = {}
        for atoms in crystals:
            if low <= len(atoms) <= high:
                fitting.setdefault(formula_of(atoms), atoms)
        names = sorted(fitting)
        chosen += [fitting[names[i]] for i in rng.permutation(len(names))[:n]]
    return chosen


def relaxed_energy(crystal: Atoms, pool: WorkerPool) -> float | None:
    """Enthalpy per atom of the crystal itself in eV, relaxed; ``None`` where that fails."""
    candidate = Candidate(proposal=Proposal(atoms=crystal, operator="reference"), id=1, source="reference")
    pool.submit(Job(candidate=candidate, atoms=crystal, level=REFINE, limits=Limits(force_calls=1000)))
    (outcome,) = pool.completed(None)
    return outcome.enthalpy_per_atom if isinstance(outcome, Relaxed) and outcome.converged else None


def measure(problem: Problem, name: str, one_shot: int, goal: float, pool: WorkerPool) -> dict[str, Any]:
    """Search with one source until the goal (eV/atom) is reached, or out of relaxations or of structures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Search(
            problem,
            sources=[name],
            directory=Path(folder) / "search",
            backend=pool,
            workers=1,
            one_shot=one_shot,
            retraining=Retraining(new_minima=0),
        ) as search,
    ):
        search.run(relaxations=RELAXATIONS, refine=0, stop_at=goal)
        ledger = search.archive.ledger
        lowest = ledger.lowest()
        return {
            "recovered": lowest is not None and lowest <= goal,
            "relaxations": ledger.relaxations,
            "force_calls": ledger.cost.force_calls,
        }


def report(runs: Sequence[dict[str, Any]]) -> None:
    rng = np.random.default_rng(0)
    for low, high in SIZES:
        group = [run for run in runs if low <= run["atoms"] <= high]
        print(f"\n{low} to {high} atoms: {len(group)} crystals; recovered within so many relaxations; force calls")
        print(f"{'source':12s} {'energies':>8s} " + " ".join(f"{k:>5d}" for k in SHOWN) + "   calls  ratio (95 %)")
        for name in SOURCES if group else ():
            calls = {}
            for one_shot in (1, ONE_SHOT):
                found = [run["found"][f"{name} {one_shot}"] for run in group]
                within = [sum(one["recovered"] and one["relaxations"] <= k for one in found) for k in SHOWN]
                calls[one_shot] = np.array([one["force_calls"] for one in found])
                line = f"{name:12s} {one_shot if one_shot > 1 else 'none':>8} "
                line += " ".join(f"{count:5d}" for count in within) + f"  {calls[one_shot].mean():6.0f}"
                if one_shot > 1:
                    picks = rng.integers(len(group), size=(2000, len(group)))
                    ratios = calls[one_shot][picks].mean(axis=1) / calls[1][picks].mean(axis=1)
                    ratio = calls[one_shot].mean() / calls[1].mean()
                    line += f"  {ratio:.2f} ({np.quantile(ratios, 0.025):.2f}-{np.quantile(ratios, 0.975):.2f})"
                print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--n", type=int, default=40, help="crystals of each size")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--part", default="0/1", help="i/n: every n-th crystal from the i-th, to use several cores")
    arguments = parser.parse_args()
    runs = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    weights = read_card(shipped("wyckoff")).get("weights_sha256", "")[:12]
    done = {(run["formula"], run["seed"]) for run in runs}
    part, parts = map(int, arguments.part.split("/"))
    crystals = chosen_crystals(arguments.files, arguments.n, arguments.seed) if arguments.files else []
    planned = [one for one in crystals[part::parts] if (formula_of(one), arguments.seed) not in done]
    if planned:
        hours = len(planned) * SECONDS_PER_CRYSTAL / 3600
        print(f"{len(planned)} crystals to do, about {hours:.1f} core-hours", flush=True)
    table = without_held_out()
    with (
        patch("hybridcsp.sources.prototypes.shipped_table", lambda: table),
        WorkerPool(Relaxer(), workers=1) as pool,
    ):
        for crystal in planned:
            start = time.perf_counter()
            run = {"formula": formula_of(crystal), "atoms": len(crystal), "seed": arguments.seed, "weights": weights}
            reference = relaxed_energy(crystal, pool)
            if reference is None:
                print(f"{run['formula']}: the crystal itself cannot be relaxed, left out", flush=True)
                continue
            problem = Problem(crystal.get_chemical_formula(mode="hill"), formula_units=1)
            goal = reference + RECOVERED
            run["found"] = {f"{n} {k}": measure(problem, n, k, goal, pool) for n in SOURCES for k in (1, ONE_SHOT)}
            run |= {"seconds": round(time.perf_counter() - start, 1), "load": round(os.getloadavg()[0], 1)}
            runs.append(run)
            with RUNS.open("a") as lines:
                lines.write(json.dumps(run) + "\n")
    report(runs)


if __name__ == "__main__":
    main()
