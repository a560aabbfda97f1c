"""Measure what random structures cost and lead to: force calls, low minima, seconds, and anomalous distances.

    python benchmarks/random_starts.py run --label new [--systems NiAl-8 ...] [--starts 16] [--seeds 1 2 3]
    python benchmarks/random_starts.py report [--labels old new]

``run`` draws starts with the random source of the installed package and relaxes each; each is a line of
results/random_starts.jsonl, and what is there already is not repeated. To compare two versions, run both with a label
each, one after the other on the same machine. Systems are development systems; none is a benchmark crystal.

``report`` prints for each system and label, with 95 % bootstrap intervals over the starts:

- milliseconds per proposal and force calls per relaxation, failures included;
- the share of starts with a distance below 0.9 of the table of usual distances (``hybridcsp/data``);
- distinct minima within 50 meV/atom of the lowest known per 1000 force calls, and the height of the lowest.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import model_potentials
import numpy as np
from ase.data import atomic_numbers
from ase.formula import Formula
from run_lines import append_line, read_lines

from hybridcsp import Problem
from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed
from hybridcsp.core.records import Candidate, Job, Limits
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.sources.base import Context
from hybridcsp.sources.random import RandomSource

TABLE = Path(__file__).parents[1] / "hybridcsp" / "data" / "pair_distances.json"
RESULTS = Path(__file__).parent / "results" / "random_starts.jsonl"

#: Minima count as low up to this height above the lowest known, in eV/atom, and as one if energies and volumes agree.
LOW, SAME_ENERGY, SAME_VOLUME = 0.05, 0.002, 0.005

SYSTEMS = {
    "TiO2-12": ("TiO2", 4, "chgnet", 0.06),
    "Al2O3-10": ("Al2O3", 2, "chgnet", 0.05),
    "SiO2-12": ("SiO2", 4, "chgnet", 0.05),
    "MgSiO3-10": ("MgSiO3", 2, "chgnet", 0.06),
    "NiAl3-16": ("NiAl3", 4, "emt", 0.006),
    "Cu3Au-16": ("Cu3Au", 4, "emt", 0.006),
    "NiAl-8": ("NiAl", 4, "emt", 0.004),
    "PdAg2-12": ("PdAg2", 4, "emt", 0.005),
}
#: Formula, formula units and pair potential of oxides: distances are real, and a call is a tenth of CHGNet's.
OXIDES = {
    "TiO2-pair-12": ("TiO2", 4),
    "SiO2-pair-12": ("SiO2", 4),
    "Al2O3-pair-10": ("Al2O3", 2),
}
MODELS = ("binary-lj-1-12", "binary-lj-3-16", "binary-lj-5-12", "ionic-1-12", "ionic-3-12", "ionic-5-16")


@cache
def build(name: str) -> tuple[Problem, Any, float]:
    """Return problem, calculator and seconds of a force call."""
    if name in SYSTEMS:
        formula, units, calculator, seconds = SYSTEMS[name]
        return Problem(formula, formula_units=units), calculator, seconds
    if name in OXIDES:
        formula, units = OXIDES[name]
        return Problem(formula, formula_units=units), Oxide(formula), 0.004
    family, seed, atoms = name.rsplit("-", 2)
    model = model_potentials.make(family, int(seed), int(atoms))
    return model.problem, model.calculator, 0.002


#: Charges of cation and anion, and A (eV), rho (Å) and C (eV Å^6) of cation-cation, cation-anion and anion-anion pairs.
#: TiO2: Matsui, Akaogi, doi:10.1080/08927029108022432. SiO2: van Beest, Kramer, van Santen,
#: doi:10.1103/PhysRevLett.64.1955. Al2O3: Matsui, Phys. Chem. Minerals 23, 345 (1996).
BUCKINGHAM = {
    "TiO2": ((2.196, -1.098), ((31120.2, 0.154, 5.25), (16957.5, 0.194, 12.59), (11782.8, 0.234, 30.22))),
    "SiO2": ((2.4, -1.2), ((0.0, 1.0, 0.0), (18003.757, 1 / 4.87318, 133.5381), (1388.773, 1 / 2.76, 175.0))),
    "Al2O3": ((1.4175, -0.945), ((3.157e7, 0.068, 14.05), (28538.4, 0.172, 34.5778), (6463.4, 0.276, 85.0924))),
}

#: Energy (eV) and lengths (Å) of the cores that keep atoms from falling into each other, in the order of the pairs.
CORE, CORES = 0.01, np.array([1.5, 1.31, 1.78])


class Oxide(model_potentials.PairPotential):
    """Coulomb interactions by damped shifted forces, Buckingham potentials, and a core."""

    def __init__(self, formula: str) -> None:
        charges, parameters = BUCKINGHAM[formula]
        numbers = [atomic_numbers[symbol] for symbol in Formula(formula).count()]
        super().__init__((numbers[0], numbers[1]), model_potentials.COULOMB_CUTOFF)
        a, b = charges
        self.charges = np.array(charges)
        self.products = model_potentials.COULOMB * np.array([a * a, a * b, b * b])
        self.parameters = np.array(parameters)

    def pairs(self, kinds: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        screened, slope = model_potentials.screened_coulomb(distances)
        end, end_slope = model_potentials.screened_coulomb(np.array(self.cutoff))
        products = self.products[kinds]
        energies = products * (screened - end - (distances - self.cutoff) * end_slope)
        slopes = products * (slope - end_slope)
        a, rho, c = self.parameters[kinds].T
        repulsion, core = a * np.exp(-distances / rho), CORE * (CORES[kinds] / distances) ** 24
        energies += repulsion - c / distances**6 + core
        return energies, slopes - repulsion / rho + 6 * c / distances**7 - 24 * core / distances

    def self_energies(self, kinds: np.ndarray) -> float:
        return model_potentials.screening_energy(self.charges[kinds], self.cutoff)


def usual_fraction(atoms: Any, table: np.ndarray) -> float:
    """Return the smallest distance as a fraction of the usual one."""
    from hybridcsp.structure.geometry import nearest_distances

    required = table[np.ix_(atoms.numbers, atoms.numbers)]
    return float((nearest_distances(atoms, float(required.max())) / required).min())


def usual_table() -> np.ndarray:
    table = np.zeros((119, 119))
    for number, row in enumerate(json.loads(TABLE.read_text())["distances"].values(), start=1):
        table[number, 1 : number + 1] = np.array(row.split(), dtype=float)
    return np.maximum(table, table.T)


def run(arguments: argparse.Namespace) -> None:
    done = {(r["label"], r["system"], r["seed"], r["start"]) for r in read(arguments.output)}
    plan = [
        (name, seed, start)
        for name in arguments.systems
        for seed in arguments.seeds
        for start in range(arguments.starts)
        if (arguments.label, name, seed, start) not in done
    ]
    hours = sum(60 * build(name)[2] for name, _, _ in plan) / 3600
    print(f"{len(plan)} relaxations, about {hours:.2f} core-hours", flush=True)
    table = usual_table()
    for name in arguments.systems:
        problem, calculator, _ = build(name)
        source = RandomSource(problem)
        relax = Relaxer(calculator=calculator, settings=RelaxationSettings())()
        # Tables of space groups are loaded before anything is timed.
        source.propose(20, context(problem, [0]))
        for seed, start in [(seed, start) for other, seed, start in plan if other == name]:
            before = time.process_time()
            (proposal,) = source.propose(1, context(problem, [seed, zlib.crc32(name.encode()), start]))
            seconds = time.process_time() - before
            candidate = Candidate(id=0, source="random", proposal=proposal)
            outcome = relax(Job(candidate=candidate, atoms=proposal.atoms, level="relax", limits=Limits()))
            relaxed = not isinstance(outcome, Failed)
            row = {
                "label": arguments.label,
                "system": name,
                "seed": seed,
                "start": start,
                "seconds": seconds,
                "fraction": usual_fraction(proposal.atoms, table),
                "spacegroup": proposal.tag["spacegroup"],
                "force_calls": outcome.cost.force_calls,
                "converged": relaxed and outcome.converged,
                "energy": outcome.evaluation.enthalpy / len(proposal.atoms) if relaxed else None,
                "volume": outcome.atoms.get_volume() / len(proposal.atoms) if relaxed else None,
            }
            append_line(arguments.output, row)


def context(problem: Problem, seed: Sequence[int]) -> Context:
    empty = cast(Archive, SimpleNamespace(preferred_minima=lambda n: []))
    return Context(problem=problem, archive=empty, rng=np.random.default_rng(seed))


def read(path: Path) -> list[dict[str, Any]]:
    return read_lines(path)


def low_minima(rows: list[dict[str, Any]], lowest: float) -> int:
    """Return the number of distinct minima that are low."""
    kept: list[tuple[float, float]] = []
    for energy, volume in sorted((r["energy"], r["volume"]) for r in rows if r["converged"]):
        if energy > lowest + LOW:
            break
        if not any(energy - e < SAME_ENERGY and abs(volume / v - 1) < SAME_VOLUME for e, v in kept):
            kept.append((energy, volume))
    return len(kept)


def interval(rows: list[dict[str, Any]], statistic: Callable[[list[dict[str, Any]]], float]) -> str:
    rng = np.random.default_rng(0)
    draws = [statistic([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(300)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{statistic(rows):7.1f} ({low:6.1f}-{high:6.1f})"


def report(arguments: argparse.Namespace) -> None:
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in read(arguments.output):
        groups[row["system"]][row["label"]].append(row)
    print(f"{'':26}starts  ms per proposal          calls per relaxation     anomalous  low / 1000 calls       lowest")
    for name, by_label in groups.items():
        lowest = min(r["energy"] for rows in by_label.values() for r in rows if r["converged"])
        for label in arguments.labels or by_label:
            rows = by_label.get(label, [])
            if not rows:
                continue
            found = [r["energy"] for r in rows if r["converged"]]
            print(
                f"{name:18} {label:8} {len(rows):5}  "
                + interval(rows, lambda r: 1000 * float(np.mean([x["seconds"] for x in r])))
                + " "
                + interval(rows, lambda r: float(np.mean([x["force_calls"] for x in r])))
                + f"   {np.mean([r['fraction'] < 0.9 for r in rows]):6.0%}  "
                + interval(rows, lambda r, at=lowest: 1000 * low_minima(r, at) / sum(x["force_calls"] for x in r))
                + f"  {1000 * (min(found) - lowest):6.0f} meV"
                + f"  failed {np.mean([not r['converged'] for r in rows]):.0%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--label", default="new")
    parser.add_argument("--labels", nargs="*")
    parser.add_argument("--systems", nargs="+", default=[*SYSTEMS, *OXIDES, *MODELS])
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    (run if arguments.command == "run" else report)(arguments)


if __name__ == "__main__":
    main()
