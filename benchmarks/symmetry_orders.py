"""Count the point-group orders of known crystals by the size of their primitive cells, and compare draws of groups.

    python benchmarks/symmetry_orders.py TRAIN.extxyz ... [--write hybridcsp/data/symmetry_orders.json]

Space groups are spglib's at 0.05 Å. At each number of atoms of a list, crystals of similar sizes are counted with
Gaussian weights of the logarithm of the ratio. Formulas that are held out of all training sets are left out, and the
mean log-probability of their space groups is printed for ways to draw a group among those that hold the contents:
evenly, in proportion to the square root of the order (as before the table), and by order with the table.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import spglib

from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.structure.wyckoff import point_group_order, space_group
from hybridcsp.utils.files import atomic_write

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 52)
ORDERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)

#: Standard deviation of the logarithm of the ratio of sizes.
WIDTH = 0.15

#: Crystals of each order that are added to the counts.
PRIOR = 1.0


def read(files: list[Path]) -> list[tuple[bool, tuple[int, ...], int]]:
    """Return for each crystal whether it is held out, its contents of the primitive cell and its space group."""
    rows = []
    for path in files:
        for atoms in ase.io.iread(path):
            cell = atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers
            found = spglib.get_symmetry_dataset(cell, symprec=0.05)
            if found is not None:
                _, primitive = np.unique(found.mapping_to_primitive, return_index=True)
                counts = Counter(atoms.numbers[primitive].tolist())
                rows.append((is_held_out(formula_of(atoms)), tuple(counts.values()), int(found.number)))
    return rows


def fit(sizes: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return probabilities of the orders, shape (n_sizes, n_orders)."""
    weights = np.exp(-(((np.log(np.array(SIZES))[:, None] - np.log(sizes)) / WIDTH) ** 2) / 2)
    counts = np.stack([weights[:, orders == order].sum(axis=1) for order in ORDERS], axis=1) + PRIOR
    return counts / counts.sum(axis=1, keepdims=True)


def probability(group: int, counts: tuple[int, ...], weights: dict[int, float], by_order: bool) -> float:
    """Return the probability that a group is drawn for given contents."""
    holding = [g for g in range(1, 231) if space_group(g).holds(counts)]
    if group not in holding:
        return 0.0
    orders = Counter(point_group_order(g) for g in holding)
    order = point_group_order(group)
    if by_order:
        return weights[order] / sum(weights[o] for o in orders) / orders[order]
    return weights[order] / sum(weights[o] * n for o, n in orders.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tested", type=int, default=600, help="held-out crystals")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    rows = read(arguments.files)
    known = [row for row in rows if not row[0]]
    sizes = np.array([sum(counts) for _, counts, _ in known])
    orders = np.array([point_group_order(group) for _, _, group in known])
    table = fit(sizes, orders)
    print(f"{len(rows)} crystals; of those that are not held out have an order above 8:")
    for low, high in ((1, 4), (5, 10), (11, 20), (21, 40), (41, 60)):
        chosen = (sizes >= low) & (sizes <= high)
        print(f"  {low:2} to {high:2} atoms: {(orders[chosen] > 8).mean():.0%} of {chosen.sum()}")
    held = [(counts, group) for out, counts, group in rows if out]
    held = [held[i] for i in np.random.default_rng(0).permutation(len(held))[: arguments.tested]]
    print("mean log-probability of the space groups of held-out crystals, by atoms:")
    for low, high in ((1, 4), (5, 10), (11, 20), (21, 60)):
        chosen = [(c, g) for c, g in held if low <= sum(c) <= high and space_group(g).holds(c)]
        ways = {
            "evenly": [probability(g, c, dict.fromkeys(ORDERS, 1.0), False) for c, g in chosen],
            "sqrt(order)": [probability(g, c, {o: o**0.5 for o in ORDERS}, False) for c, g in chosen],
            "by order": [probability(g, c, weights(table, sum(c)), True) for c, g in chosen],
        }
        means = ", ".join(f"{name} {np.log(values).mean():.2f}" for name, values in ways.items())
        print(f"  {low:2} to {high:2} ({len(chosen)}): {means}")
    if arguments.write:
        card = {
            "what": "probabilities of point-group orders of crystals by the number of atoms in the primitive cell",
            "data": f"{len(known)} Materials Project crystals ({', '.join(p.name for p in arguments.files)}), numbers "
            "only; formulas that are held out of training sets are left out",
            "method": "counts, smoothed over the size, benchmarks/symmetry_orders.py",
        }
        write_table(arguments.write, table, card)


def write_table(path: Path, table: np.ndarray, card: dict[str, str]) -> None:
    rows = {str(n): [round(float(p), 4) for p in row] for n, row in zip(SIZES, table, strict=True)}
    lines = [f"  {json.dumps(n)}: {json.dumps(row)}" for n, row in rows.items()]
    with atomic_write(path) as file:
        file.write('{\n "card": ' + json.dumps(card, ensure_ascii=False, indent=1).replace("\n", "\n ") + ",\n")
        file.write(f' "orders": {json.dumps(ORDERS)},\n "probabilities": {{\n' + ",\n".join(lines) + "\n }\n}\n")


def weights(table: np.ndarray, n_atoms: int) -> dict[int, float]:
    return {o: float(np.interp(np.log(n_atoms), np.log(SIZES), table[:, i])) for i, o in enumerate(ORDERS)}


if __name__ == "__main__":
    main()
