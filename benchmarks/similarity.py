"""How fast and how right is "have we this structure already?" on a large archive.

    OMP_NUM_THREADS=1 python benchmarks/similarity.py [--minima 100000] [--operations 2000] [--seed 0]

Three tables, and all numbers in results/similarity.json:

1. Speed and errors. An archive of one composition (Ti4O8, the worst case: nothing is told apart by composition) whose
   energies crowd in 300 meV/atom. Half of its minima are crystals of their own, half are distortions of a few parents.
   Then operations, 70 % of which come back to a minimum in disguise (another cell or supercell, rotated, maybe
   reflected, shifted, reordered) with what a relaxation leaves: 0.01 Å, 0.1 % of strain, 1 meV/atom; "rough" is 0.03 Å
   and 0.5 %. Timed is what an archive does: describe and find, then add what is new or replace what is now lower; in
   wall time, and in processor time, which other people's load does not change. Identities are known, so wrong keys and
   misses are counted. The same for starts, without energies or noise, each at another scale.
2. Agreement with StructureMatcher alone on pairs that are distorted by about the tolerances.
3. Polymorphs that lie as close as nature makes them: are they kept apart at equal energies, and by how much.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal as from_spacegroup
from scipy.spatial.transform import Rotation

from hybridcsp.similarity import (
    ENERGY_WINDOW,
    MINIMA,
    STARTS,
    StructureIndex,
    Tolerances,
    compute_descriptors,
    same_structure,
)
from hybridcsp.similarity.fingerprint import environment_distance

TIO2 = [22] * 4 + [8] * 8
BAND = 0.3  # eV/atom
REDISCOVERED = 0.7
Draw = Callable[[], tuple[int, Atoms, float | None]]
RESULTS = Path(__file__).parent / "results" / "similarity.json"


def random_crystal(rng: np.random.Generator, numbers: list[int], volume: float = 10.5, closest: float = 1.5) -> Atoms:
    """Return atoms dropped one by one into a random cell, none closer than ``closest`` (Å)."""
    while True:
        cell = Atoms(cell=np.r_[rng.uniform(0.6, 1.6, 3), rng.uniform(60, 120, 3)], pbc=True).cell
        if cell.volume < 0.3:
            continue
        cell = cell * (volume * len(numbers) / cell.volume) ** (1 / 3)
        placed = np.empty((0, 3))
        for _ in range(20 * len(numbers)):
            trial = rng.random(3)
            # cells are not skewed enough for the nearest image to be missed at these distances
            separations = trial - placed
            separations = (separations - np.round(separations)) @ cell
            if np.all(np.einsum("ij,ij->i", separations, separations) > closest**2):
                placed = np.vstack([placed, trial])
                if len(placed) == len(numbers):
                    return Atoms(numbers, scaled_positions=placed, cell=cell, pbc=True)


def distorted(rng: np.random.Generator, atoms: Atoms, displacement: float, strain: float) -> Atoms:
    """Return a copy with random displacements (standard deviation in Å) and a random symmetric strain."""
    epsilon = rng.normal(0, strain, (3, 3))
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ (np.eye(3) + (epsilon + epsilon.T) / 2), scale_atoms=True)
    result.positions += rng.normal(0, displacement, (len(atoms), 3))
    return result


def disguised(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """Return the same crystal in another cell (one in ten a supercell), orientation, handedness, origin and order."""
    result = atoms.repeat((2, 1, 1)) if rng.random() < 0.1 else atoms.copy()
    change = np.eye(3, dtype=int)
    for i, j in rng.permutation(list(itertools.permutations(range(3), 2)))[:2]:
        change[i] += rng.integers(-1, 2) * change[j]
    turn = Rotation.random(random_state=rng).as_matrix() * rng.choice([-1, 1])
    result.positions += rng.normal(size=3)
    result = Atoms(result.numbers, positions=result.positions @ turn, cell=change @ result.cell.array @ turn, pbc=True)
    result.wrap()
    return result[rng.permutation(len(result))]


def new_minima(rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield crystals of TiO2, every second one a distortion of one of twenty parents."""
    parents = [random_crystal(rng, TIO2, closest=1.8) for _ in range(20)]
    while True:
        yield random_crystal(rng, TIO2)
        yield distorted(rng, parents[rng.integers(len(parents))], 0.25, 0.03)


def measure_speed(seed: int, sizes: list[int], operations: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    source = new_minima(rng)
    minima = StructureIndex(energy_window=ENERGY_WINDOW, tolerances=MINIMA)
    starts = StructureIndex(energy_window=None, tolerances=STARTS)
    kept: list[tuple[Atoms, float]] = []

    def draw(index: StructureIndex) -> tuple[int, Atoms, float]:
        """Return a key of the index and its crystal, or a crystal that neither index has, and its new key."""
        key = int(rng.integers(len(kept)))
        if rng.random() > REDISCOVERED or key not in index:
            key = len(kept)
            kept.append((next(source), float(rng.uniform(0, BAND))))
        return key, *kept[key]

    def relaxed(displacement: float, strain: float, spread: float) -> Draw:
        def relax() -> tuple[int, Atoms, float]:
            key, atoms, energy = draw(minima)
            return key, distorted(rng, disguised(rng, atoms), displacement, strain), energy + rng.normal(0, spread)

        return relax

    def propose() -> tuple[int, Atoms, None]:
        key, atoms, _ = draw(starts)
        atoms = disguised(rng, atoms)
        atoms.set_cell(atoms.cell * rng.uniform(0.9, 1.1), scale_atoms=True)
        return key, atoms, None

    rows = []
    for size in sizes:
        while len(starts) < size:
            key, described = len(kept), compute_descriptors(atoms := next(source))
            kept.append((atoms, float(rng.uniform(0, BAND))))
            minima.add(key, described, kept[key][1])
            starts.add(key, described)
        rows.append(measure_operations("minima", minima, relaxed(0.01, 0.001, 0.001), operations))
    rows.append(measure_operations("minima, rough", minima, relaxed(0.03, 0.005, 0.001), operations))
    rows.append(measure_operations("starts", starts, propose, operations))
    return rows


def measure_operations(name: str, index: StructureIndex, draw: Draw, operations: int) -> dict[str, object]:
    size = len(index)
    known: dict[int, float] = {}
    index.statistics.clear()
    wall, processor, wrong, missed, new = [], [], 0, 0, 0
    for _ in range(operations):
        key, atoms, energy = draw()
        there = key in index
        before, before_processor = time.perf_counter(), time.process_time()
        described = compute_descriptors(atoms)
        found = index.find(described, energy)
        if found is None and not there:
            index.add(key, described, energy)
        elif found is not None and energy is not None and energy < known.get(found, 0.0):
            index.replace(found, described, energy)
        wall.append(time.perf_counter() - before)
        processor.append(time.process_time() - before_processor)
        if found is not None and energy is not None:
            known[found] = min(energy, known.get(found, energy))
        if found is None:
            missed += there
            new += not there
        wrong += found is not None and found != key
    quantiles = [0.5, 0.9, 0.99]
    wall_ms, processor_ms = (np.quantile(np.array(seconds) * 1e3, quantiles).tolist() for seconds in (wall, processor))
    return {
        "index": name,
        "structures": size,
        "operations": operations,
        "new": new,
        **{f"wall_ms_{q:g}": value for q, value in zip(quantiles, wall_ms, strict=True)},
        **{f"cpu_ms_{q:g}": value for q, value in zip(quantiles, processor_ms, strict=True)},
        "false_merges": int(wrong),
        "misses": int(missed),
        **{
            f"{what}/query": index.statistics[what] / index.statistics["queries"]
            for what in ("neighbours", "different", "certain", "exact", "capped")
        },
    }


def measure_agreement(seed: int, pairs: int, tolerances: Tolerances, name: str) -> dict[str, object]:
    """Compare the verdict of an index on pairs at the edge of the tolerances with that of StructureMatcher alone."""
    rng = np.random.default_rng(seed)
    contents = [[14], [11, 17], [22, 8, 8], [38, 22, 8, 8, 8], [13, 13, 8, 8, 8], [29, 29, 29, 79, 79]]
    counts = dict.fromkeys(("same", "dropped", "accepted_unasked", "accepted_wrongly"), 0)
    for _ in range(pairs):
        numbers = contents[rng.integers(len(contents))] * int(rng.integers(1, 3))
        atoms = random_crystal(rng, numbers, volume=12.0)
        if rng.random() < 0.5:
            atoms = symmetrised(rng, numbers, atoms)
        size = (atoms.get_volume() / len(atoms)) ** (1 / 3)
        amount = rng.uniform(0, 1)
        other = distorted(rng, atoms, amount * tolerances.displacement * size, amount * tolerances.lattice)
        truth = same_structure(atoms, other, tolerances)
        index = StructureIndex(energy_window=None, tolerances=tolerances)
        index.add(1, atoms)
        found = index.find(other) is not None
        certain = index.statistics["certain"] > 0
        counts["same"] += truth
        counts["dropped"] += truth and not found
        counts["accepted_unasked"] += certain
        counts["accepted_wrongly"] += found and not truth
    return {"tolerances": name, "pairs": pairs, **counts}


def symmetrised(rng: np.random.Generator, numbers: list[int], atoms: Atoms) -> Atoms:
    """Return a crystal of the same contents with its atoms on a grid of special positions."""
    grid = np.array(list(itertools.product((0, 0.5), (0, 0.5), (0, 0.25, 0.5, 0.75))))
    length = atoms.get_volume() ** (1 / 3)
    cell = (
        np.diag([length, length, length])
        if rng.random() < 0.5
        else np.diag([length * 0.9, length * 0.9, length / 0.81])
    )
    return Atoms(numbers, cell=cell, scaled_positions=rng.permutation(grid)[: len(numbers)], pbc=True)


def layered(stacking: str, partner: bool) -> Atoms:
    """Return a polytype: close-packed layers, or layers of tetrahedra if every atom has a partner above it."""
    a, n = 3.08, len(stacking)
    where = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    positions = [(*where[s], i / n) for i, s in enumerate(stacking)]
    if partner:
        positions += [(*where[s], (i + 0.75) / n) for i, s in enumerate(stacking)]
    cell = [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, n * a * (2 / 3) ** 0.5]]
    return Atoms("Si" * n + "C" * n * partner, cell=cell, scaled_positions=positions, pbc=True)


def stackings(longest: int) -> list[str]:
    """Return one stacking sequence of every polytype of up to so many layers."""
    found = {}
    for n in range(2, longest + 1):
        for steps in itertools.product((1, -1), repeat=n):
            if sum(steps) % 3 or any(steps == steps[i:] + steps[:i] for i in range(1, n) if n % i == 0):
                continue
            turned = [steps[i:] + steps[:i] for i in range(n)]
            mirrored = [tuple(-s for s in t) for t in turned]
            name = min(x for t in turned + mirrored for x in (t, t[::-1]))
            found[name] = "".join("ABC"[sum(name[:i]) % 3] for i in range(n))
    return list(found.values())


def perovskite(c_over_a: float = 1.0, titanium: float = 0.0, apical: float = 0.0, equatorial: float = 0.0) -> Atoms:
    positions = [(0, 0, 0), (0.5, 0.5, 0.5 + titanium), (0.5, 0.5, apical)]
    positions += [(0.5, 0, 0.5 + equatorial), (0, 0.5, 0.5 + equatorial)]
    return Atoms("BaTiO3", cell=[4.0, 4.0, 4.0 * c_over_a], scaled_positions=positions, pbc=True)


def measure_polymorphs() -> list[dict[str, object]]:
    quartz = from_spacegroup(
        ["Si", "O"], [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)], spacegroup=154,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    )  # fmt: skip
    mirrored = Atoms(quartz.numbers, positions=-quartz.positions, cell=quartz.cell, pbc=True)
    rutile = from_spacegroup(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90]
    )
    cacl2 = from_spacegroup(
        ["Ti", "O"], [(0, 0, 0), (0.325, 0.285, 0)], spacegroup=58, cellpar=[4.75, 4.45, 2.96, 90, 90, 90]
    )
    rocksalt = bulk("NaCl", "rocksalt", a=5.6)
    swapped = Atoms(rocksalt.numbers[::-1], positions=rocksalt.positions, cell=rocksalt.cell, pbc=True)
    l1_2 = bulk("Au", cubic=True)
    l1_2.numbers[0] = 29
    d0_22 = bulk("Au", cubic=True).repeat((1, 1, 2))
    d0_22.numbers[[0, 5]] = 29
    rutile_swapped = rutile.copy()
    rutile_swapped.numbers = np.where(rutile.numbers == 22, 8, 22)
    pairs: list[tuple[str, Atoms, Atoms, bool]] = [
        ("Cu: 3C, 2H", layered("ABC", False), layered("AB", False), False),
        ("SiC: zincblende, wurtzite", layered("ABC", True), layered("AB", True), False),
        ("SiC: 4H, 6H", layered("ABCB", True), layered("ABCACB", True), False),
        ("CuAu3: L1_2, D0_22", l1_2, d0_22, False),
        ("rutile, CaCl2 type (orthorhombic strain 6.5 %)", rutile, cacl2, False),
        ("BaTiO3: Pm-3m, P4mm (c/a 1.055, computed)", perovskite(), perovskite(1.055, 0.018, -0.042, -0.027), False),
        ("BaTiO3: Pm-3m, P4mm (c/a 1.011, measured)", perovskite(), perovskite(1.011, 0.0135, -0.025, -0.015), False),
        ("PbTiO3-like: Pm-3m, P4mm (c/a 1.064)", perovskite(), perovskite(1.064, 0.04, -0.11, -0.11), False),
        ("quartz: P3_121, P3_221", quartz, mirrored, True),
        ("rock salt, sublattices swapped", rocksalt, swapped, True),
    ]
    rows: list[dict[str, object]] = []
    for name, a, b, expected in pairs:
        index = StructureIndex(energy_window=ENERGY_WINDOW)
        index.add(1, a, 0.0)
        mean, largest = environment_distance(compute_descriptors(a), compute_descriptors(b).crystal)
        rows.append({"pair": name, "mean": mean, "largest": largest, "expected": expected,
                     "same": index.find(b, 0.0) is not None})  # fmt: skip
    for partner, longest in ((False, 10), (True, 8)):
        polytypes = [compute_descriptors(layered(s, partner)) for s in stackings(longest)]
        index = StructureIndex(energy_window=ENERGY_WINDOW)
        distances, merged = [], 0
        for key, described in enumerate(polytypes):
            merged += index.find(described, 0.0) is not None
            index.add(key, described, 0.0)
            distances += [environment_distance(described, other.crystal) for other in polytypes[:key]]
        closest = min(distances, key=lambda d: d[1])
        name = f"{'SiC' if partner else 'Si'}: all {len(polytypes)} polytypes of up to {longest} layers, closest pair"
        rows.append({"pair": name, "mean": closest[0], "largest": closest[1], "expected": False, "same": merged > 0})
    return rows


def table(rows: list[dict[str, object]]) -> str:
    def text(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    cells = [list(rows[0]), *([text(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minima", type=int, default=100_000, help="structures in the largest archive")
    parser.add_argument("--operations", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    load = os.getloadavg()
    began = time.perf_counter()
    sizes = [int(arguments.minima * (1 - REDISCOVERED)), arguments.minima]
    speed = measure_speed(arguments.seed, sizes, arguments.operations)
    print(table(speed), "\n")
    agreement = [
        measure_agreement(arguments.seed + 2, arguments.pairs, tolerances, name)
        for name, tolerances in (("minima", MINIMA), ("starts", STARTS))
    ]
    print(table(agreement), "\n")
    polymorphs = measure_polymorphs()
    print(table(polymorphs))
    result = {
        "seed": arguments.seed,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one process",
        "load_average": {"before": load, "after": os.getloadavg()},
        "seconds": time.perf_counter() - began,
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("numpy", "scipy", "pymatgen", "spglib")},
        "tolerances": {"minima": asdict(MINIMA), "starts": asdict(STARTS)},
        "energy_window": ENERGY_WINDOW,
        "speed": speed,
        "agreement_with_structure_matcher": agreement,
        "polymorphs": polymorphs,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    temporary = RESULTS.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.rename(RESULTS)


if __name__ == "__main__":
    main()
