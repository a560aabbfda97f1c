"""Do energies before relaxations lead a source to the right structure sooner, and at what cost?

    python benchmarks/one_shot.py CRYSTALS.extxyz [MORE.extxyz ...] [--n 60] [--seed 7] [--part 0/2]
    python benchmarks/one_shot.py                                          # only the tables

For crystals of formulas that no generator learns from (and without these in the table of prototypes), half of them of 3
to 11 atoms and half of 12 to 20, each source is asked for up to 20 jobs, as in a search for the contents of the cell:
once with every structure a job, once with twelve together, of which CHGNet's energies choose one. Nothing is relaxed:
*right* is a job whose structure, the one that would be relaxed, StructureMatcher fits to the crystal (stol 0.5, ltol
0.3, angle 10). A source has the energies of its earlier jobs, as in a search, but learns nothing from ends.

Costs are in force calls: one for each energy, and 35, about what relaxations of such starts take, for each relaxation
up to the right one, or for all 20. Each crystal is a line of results/one_shot_runs.jsonl; nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import ase.io
import numpy as np
from allocation_priors import without_held_out
from ase import Atoms
from pymatgen.core.structure_matcher import StructureMatcher

from hybridcsp import Problem
from hybridcsp.archive import Archive
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.generators.opening import open_generator, read_card
from hybridcsp.generators.storage import shipped
from hybridcsp.records import Candidate, Failed, FailureReason
from hybridcsp.relaxation.chgnet_fast import build_chgnet
from hybridcsp.sources import ONE_SHOT, Context
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.structure import primitive, to_pymatgen

RUNS = Path(__file__).parent / "results" / "one_shot_runs.jsonl"
SOURCES = ("prototypes", "wyckoff")
SIZES = ((3, 11), (12, 20))
JOBS, FORCE_CALLS = 20, 35
SECONDS_PER_CRYSTAL = 15.0  # only to plan
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


def opened(name: str, problem: Problem, one_shot: int) -> PrototypesSource | GenerativeSource:
    if name == "prototypes":
        return PrototypesSource(problem, one_shot=one_shot)
    return GenerativeSource(problem, generator=open_generator(name), one_shot=one_shot)


def measure(crystal: Atoms, name: str, one_shot: int, calculator: Any) -> dict[str, Any]:
    """Return after how many jobs and energies the right structure comes; ``None`` where it does not."""
    problem = Problem(crystal.get_chemical_formula(mode="hill"), formula_units=1)
    source = opened(name, problem, one_shot)
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    target = to_pymatgen(crystal)
    energies = 0
    for job in range(1, JOBS + 1):
        context = Context(problem=problem, archive=cast(Archive, None), rng=np.random.default_rng([0, job]))
        proposals = source.propose(1, context)
        if not proposals:
            return {"right": None, "jobs": job - 1, "energies": energies}
        candidate = Candidate(proposal=proposals[0], id=job, source=name)
        source.proposed([candidate])
        starts = candidate.starts
        told: tuple[float, ...] = ()
        if len(starts) > 1:
            told = tuple(energy(start, calculator) for start in starts)
            energies += len(starts)
        first = starts[int(np.argmin(told))] if told else starts[0]
        if matcher.fit(to_pymatgen(first), target):
            return {"right": job, "jobs": job, "energies": energies}
        source.observe([Failed(candidate=candidate, reason=FailureReason.REPORTED, start_enthalpies=told)])
    return {"right": None, "jobs": JOBS, "energies": energies}


def energy(atoms: Atoms, calculator: Any) -> float:
    atoms = atoms.copy()
    atoms.calc = calculator
    return float(atoms.get_potential_energy()) / len(atoms)


def report(runs: Sequence[dict[str, Any]]) -> None:
    rng = np.random.default_rng(0)
    for low, high in SIZES:
        group = [run for run in runs if low <= run["atoms"] <= high]
        print(f"\n{low} to {high} atoms: {len(group)} crystals; right within so many relaxations, and force calls")
        print(f"{'source':12s} {'energies':>8s} " + " ".join(f"{k:>5d}" for k in SHOWN) + "   calls  ratio (95 %)")
        for name in SOURCES:
            costs = {}
            for one_shot in (1, ONE_SHOT):
                found = [run["found"][f"{name} {one_shot}"] for run in group]
                within = [sum(one["right"] is not None and one["right"] <= k for one in found) for k in SHOWN]
                costs[one_shot] = np.array([FORCE_CALLS * one["jobs"] + one["energies"] for one in found])
                line = f"{name:12s} {one_shot if one_shot > 1 else 'none':>8} "
                line += " ".join(f"{count:5d}" for count in within) + f"  {costs[one_shot].mean():6.0f}"
                if one_shot > 1:
                    picks = rng.integers(len(group), size=(2000, len(group)))
                    ratios = costs[one_shot][picks].mean(axis=1) / costs[1][picks].mean(axis=1)
                    ratio = costs[one_shot].mean() / costs[1].mean()
                    line += f"  {ratio:.2f} ({np.quantile(ratios, 0.025):.2f}-{np.quantile(ratios, 0.975):.2f})"
                print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--n", type=int, default=60, help="crystals of each size")
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
    calculator, _ = build_chgnet()
    with patch("hybridcsp.sources.prototypes.shipped_table", lambda: table):
        for crystal in planned:
            start = time.perf_counter()
            found = {f"{n} {k}": measure(crystal, n, k, calculator) for n in SOURCES for k in (1, ONE_SHOT)}
            run = {"formula": formula_of(crystal), "atoms": len(crystal), "seed": arguments.seed, "weights": weights}
            run |= {"found": found, "seconds": round(time.perf_counter() - start, 1)}
            run["load"] = round(os.getloadavg()[0], 1)
            runs.append(run)
            with RUNS.open("a") as lines:
                lines.write(json.dumps(run) + "\n")
    report(runs)


if __name__ == "__main__":
    main()
