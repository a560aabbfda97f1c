"""Fit the table of shortest distances of pairs of elements, and measure it on formulas that it has not seen.

    python benchmarks/pair_distances.py TRAIN.extxyz ... [--write hybridcsp/data/pair_distances.json]

For each pair of elements the table holds a low quantile of the nearest distance, over the crystals that contain both
(the nearest distance of one crystal counts once). Distances are compared as fractions of summed covalent radii. To a
pair's own crystals those of similar pairs are added, weighted by the similarity of the elements, as if they were
``--neighbours`` crystals more: a pair that is rare, or occurs nowhere, has the quantile of pairs that resemble it.

The formulas held out of all training sets are left out of the table. The error on them is the pinball loss of the
logarithm of the distance, which is smallest at the true quantile; below it are the share of distances and of crystals
with a distance below the table's, and the share of crystals with one that is shorter by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import ase.io
import numpy as np
from ase.data import chemical_symbols

from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.structure.elements import covalent_radii, squared_distances
from hybridcsp.structure.geometry import nearest_distances
from hybridcsp.utils.files import atomic_write

#: Distances are exact up to this many Å; longer ones count as this long.
CUTOFF = 6.0

#: Resolution of distances as fractions of summed covalent radii.
STEP = 0.002

Floats = np.ndarray


class Observed:
    """Nearest distances by crystal and pair of elements (the lighter first)."""

    def __init__(self, files: list[Path]) -> None:
        rows = []
        self.crystals = 0
        for path in files:
            for atoms in ase.io.iread(path):
                found = np.minimum(nearest_distances(atoms, CUTOFF), CUTOFF)
                held = is_held_out(formula_of(atoms))
                elements = np.unique(atoms.numbers)
                for i, first in enumerate(elements):
                    for second in elements[i:]:
                        shortest = found[np.ix_(atoms.numbers == first, atoms.numbers == second)].min()
                        rows.append((self.crystals, held, first, second, shortest))
                self.crystals += 1
        table = np.array(rows)
        self.crystal, self.held = table[:, 0].astype(int), table[:, 1].astype(bool)
        self.pairs, self.distances = table[:, 2:4].astype(int), table[:, 4]

    @property
    def fractions(self) -> Floats:
        radii = covalent_radii()
        return self.distances / radii[self.pairs].sum(axis=1)


def fit(seen: Observed, quantile: float, exponent: float, neighbours: float) -> Floats:
    """Return distances in Å by atomic numbers, shape (119, 119)."""
    used = ~seen.held
    steps = np.rint(seen.fractions[used] / STEP).astype(int)
    first, second = seen.pairs[used].T
    counts = np.zeros((119, 119, steps.max() + 1))
    for ways in ((first, second), (second, first)):
        np.add.at(counts, (*ways, steps), 1.0)
    counts[np.diag_indices(119)] /= 2
    similarity = np.exp(-exponent * squared_distances())
    alike = np.einsum("ac,bd,cds->abs", similarity, similarity, counts, optimize=True) - counts
    alike += 1e-9 * counts.sum(axis=(0, 1))  # elements without a similar one resemble all
    counts += alike * (neighbours / alike.sum(axis=-1, keepdims=True))
    cumulated = counts.cumsum(axis=-1)
    at = (cumulated < quantile * cumulated[..., -1:]).sum(axis=-1)
    radii = covalent_radii()
    result = at * STEP * (radii[:, None] + radii)
    result[0] = result[:, 0] = 0.0
    return result


def evaluate(seen: Observed, table: Floats, quantile: float) -> tuple[float, float, float, float]:
    """Return loss, and shares of distances, of crystals, and of crystals by a tenth, that are below the table."""
    test = seen.held & (seen.distances < CUTOFF)
    error = np.log(seen.distances[test] / table[tuple(seen.pairs[test].T)])
    crystal = seen.crystal[test]
    shares = [len(np.unique(crystal[error < limit])) / len(np.unique(crystal)) for limit in (0.0, np.log(0.9))]
    return float(np.where(error > 0, quantile * error, (quantile - 1) * error).mean()), (error < 0).mean(), *shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--quantile", type=float, default=0.03)
    parser.add_argument("--exponent", type=float, default=0.1, help="decay of the similarity of elements")
    parser.add_argument("--neighbours", type=float, default=20, help="weight of all similar pairs, in crystals")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    seen = Observed(arguments.files)
    table = fit(seen, arguments.quantile, arguments.exponent, arguments.neighbours)
    radii = covalent_radii()
    one_fraction = np.quantile(seen.fractions[~seen.held], arguments.quantile) * (radii[:, None] + radii)
    print(f"{seen.crystals} crystals; formulas held out:       loss  distances  crystals  by a tenth")
    for name, each in (("one fraction of covalent radii", one_fraction), ("distances by pair", table)):
        loss, *shares = evaluate(seen, each, arguments.quantile)
        print(f"  {name:40} {loss:8.5f}" + "".join(f" {share:9.1%}" for share in shares))
    if arguments.write:
        write(arguments.write, table, seen, arguments)


def write(path: Path, table: Floats, seen: Observed, arguments: argparse.Namespace) -> None:
    loss, _, crystals, by_a_tenth = evaluate(seen, table, arguments.quantile)
    known = len(np.unique(seen.crystal[~seen.held]))
    card = {
        "what": "low quantiles of the nearest distance of two elements in known crystals, in Å; row Z, columns 1 to Z",
        "data": f"{known} Materials Project crystals ({', '.join(p.name for p in arguments.files)}), numbers only; "
        "formulas that are held out of training sets are left out",
        "method": "weighted quantiles, pairs of similar elements added, benchmarks/pair_distances.py",
        "quantile": arguments.quantile,
        "exponent": arguments.exponent,
        "neighbours": arguments.neighbours,
        "held_out_loss": round(loss, 5),
        "held_out_crystals_below": round(crystals, 3),
        "held_out_crystals_below_by_a_tenth": round(by_a_tenth, 3),
    }
    rows = {chemical_symbols[z]: " ".join(f"{value:.2f}" for value in table[z, 1 : z + 1]) for z in range(1, 119)}
    with atomic_write(path) as file:
        file.write(json.dumps({"card": card, "distances": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
