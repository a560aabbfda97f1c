"""Do real crystals come back from the representations of the generators?

    OMP_NUM_THREADS=1 python benchmarks/round_trip.py CRYSTALS.extxyz [MORE.extxyz ...] [--limit N] [--seed 0]

Every crystal, in its primitive cell, goes through

- *Wyckoff*: space group, Wyckoff letters, free coordinates and cell
  (``hybridcsp.generators.wyckoff.representation``). Encoding makes
  it as symmetric as it is within 0.1 Å, so what comes back is compared in three steps: does spglib find the same
  space group in it, 100 times tighter; is it the same crystal to pymatgen's StructureMatcher (stol 0.1), and how far
  off (root mean square and largest displacement, Å); and is what comes back, encoded again, and once more in a
  disguise (other vectors, rotated, shifted, reordered), the same representation, coordinates within 1e-3. Where the
  tolerance of 0.1 Å leads to a cell with fewer atoms or to nothing, 0.01 Å is tried, as in training.
- *sequence*: what the transformer writes (``hybridcsp.generators.wyckoff.tokens``), with the positions of the
  shipped weights.
- *log-lattice*: fractional coordinates and the logarithm of the metric (``hybridcsp.structure.lattice``);
  distances between atoms must come back to 1e-6 Å.

Failures are counted by reason, with the formulas of the first ones. All numbers are in results/round_trip.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build.supercells import make_supercell

from hybridcsp.errors import InputError
from hybridcsp.generators.fidelity import CLOSE
from hybridcsp.generators.loading import open_generator
from hybridcsp.generators.wyckoff import representation
from hybridcsp.generators.wyckoff.symmetric import WyckoffSites
from hybridcsp.generators.wyckoff.tokens import detokenize, tokenize
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.similarity.deviation import deviation
from hybridcsp.structure import lattice
from hybridcsp.structure.normalizer import ENANTIOMORPHS
from hybridcsp.structure.symmetry import SYMPREC, primitive, spacegroup

RESULTS = Path(__file__).parent / "results" / "round_trip.json"
KINDS = ("Wyckoff", "sequence", "log-lattice")
SHOWN = 5  # formulas of each failure


def disguised(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    matrix = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        matrix[i] += int(rng.integers(-1, 2)) * matrix[j]
    other = make_supercell(atoms, matrix)
    other.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
    other.translate(rng.normal(size=3))
    other.wrap()
    return other[rng.permutation(len(other))]


def same(a: representation.WyckoffCrystal | None, b: representation.WyckoffCrystal | None) -> bool:
    if a is None or b is None or a.spacegroup != b.spacegroup or not np.allclose(a.cell, b.cell, atol=1e-2):
        return False
    if [(s.element, s.letter) for s in a.sites] != [(s.element, s.letter) for s in b.sites]:
        return False
    apart = [np.subtract(x.coordinates, y.coordinates) for x, y in zip(a.sites, b.sites, strict=True)]
    return all(np.abs(d - np.rint(d)).max(initial=0.0) < 1e-3 for d in apart)


def encoded(atoms: Atoms) -> representation.WyckoffCrystal | None:
    try:
        return WyckoffSites().encode(atoms)
    except InputError:
        return None


def through_symmetry(
    atoms: Atoms, crystal: representation.WyckoffCrystal, rng: np.random.Generator
) -> tuple[list[str], tuple[float, float] | None]:
    """What did not come back, and displacements."""
    back = representation.decode_wyckoff(crystal)
    wrong = []
    number = spacegroup(back, SYMPREC / 10)
    if ENANTIOMORPHS.get(number, number) != crystal.spacegroup:
        wrong.append("another space group")
    try:
        again, hidden = (
            representation.encode_wyckoff(back, SYMPREC),
            representation.encode_wyckoff(disguised(back, rng), SYMPREC),
        )
        if not same(crystal, again):
            wrong.append("encoded again it is another representation")
        elif not same(crystal, hidden):
            wrong.append("disguised it is another representation")
    except Exception as error:  # noqa: BLE001  # counted
        wrong.append(f"{type(error).__name__} when encoded again")
    found = deviation(atoms, back, CLOSE)
    if found is None:
        wrong.append("another crystal")
        return wrong, None
    return wrong, (found.rms, found.largest)


def through_sequence(crystal: representation.WyckoffCrystal, positions: object) -> list[str]:
    try:
        sequence = tokenize(crystal, positions)
    except (KeyError, ValueError, IndexError) as error:
        return [f"cannot be written: {type(error).__name__}"]
    back = detokenize(sequence, positions)
    return [] if same(crystal, back) else ["another representation"]


def through_lattice(atoms: Atoms) -> list[str]:
    back = lattice.decode_lattice_point(lattice.encode_lattice_point(atoms))
    far = np.abs(back.get_all_distances(mic=True) - atoms.get_all_distances(mic=True)).max()
    moved = np.abs(back.cell.cellpar() - atoms.cell.cellpar()).max()
    return [] if max(far, moved) < 1e-6 else ["other distances"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, help="crystals of each file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    positions = open_generator("wyckoff")._positions
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    print(f"{'file':24}{'representation':16}{'crystals':>9}{'came back':>10}  what did not")
    for path in options.files:
        rng = np.random.default_rng(options.seed)
        wrong: dict[str, dict[str, list[str]]] = {kind: defaultdict(list) for kind in KINDS}
        bad: Counter[str] = Counter()
        moved: list[tuple[float, float]] = []
        read = 0
        begun = time.process_time()
        for frame in read_structures(path):
            if isinstance(frame, ReadFailure) or read == options.limit:
                continue
            read += 1
            atoms = primitive(frame.atoms)
            crystal = encoded(atoms)
            if crystal is None:
                symmetry = sequence = ["no symmetry with as many atoms"]
            else:
                symmetry, distances = through_symmetry(atoms, crystal, rng)
                sequence = through_sequence(crystal, positions)
                if distances is not None:
                    moved.append(distances)
            for kind, found in zip(KINDS, (symmetry, sequence, through_lattice(atoms)), strict=True):
                bad[kind] += bool(found)
                for reason in found:
                    wrong[kind][reason].append(atoms.get_chemical_formula())
            if read % 1000 == 0:
                print(f"  {path.name}: {read} crystals", flush=True)
        rms, largest = np.array(moved).T
        table = {
            kind: {
                "came back": read - bad[kind],
                "failures": {why: {"crystals": len(f), "first": f[:SHOWN]} for why, f in reasons.items()},
            }
            for kind, reasons in wrong.items()
        }
        table["Wyckoff"]["displacement (Å)"] = {
            "median rms": round(float(np.median(rms)), 5),
            "99 % rms": round(float(np.quantile(rms, 0.99)), 4),
            "largest": round(float(largest.max()), 3),
        }
        results[path.name] = {
            "crystals": read,
            "seed": options.seed,
            "processor seconds": round(time.process_time() - begun),
            "representations": table,
        }
        for kind, row in table.items():
            said = "; ".join(f"{f['crystals']} {why} ({', '.join(f['first'])})" for why, f in row["failures"].items())
            print(f"{path.name:24}{kind:16}{read:9}{row['came back']:10}  {said}")
        print(f"{'':40}displaced: {table['Wyckoff']['displacement (Å)']}")
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
