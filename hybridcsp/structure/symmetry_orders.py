"""Point-group orders of known crystals by their size, and random orders of space groups that follow them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from hybridcsp.structure.wyckoff import point_group_order


def order_probabilities(n_atoms: int) -> dict[int, float]:
    """Return the probabilities of the orders of a crystal's point group.

    They are those of known crystals (``data/symmetry_orders.json``) whose primitive cells have a similar number of
    atoms: 89 % of those with up to four atoms, 26 % of those with 11 to 20 have an order above 8.

    Parameters
    ----------
    n_atoms
        Number of atoms in the primitive cell.
    """
    sizes, orders, probabilities = _table()
    at = np.log(n_atoms)
    return {order: float(np.interp(at, sizes, column)) for order, column in zip(orders, probabilities.T, strict=True)}


def random_groups(groups: Sequence[int], n_atoms: int, rng: np.random.Generator) -> Iterator[int]:
    """Yield space groups in random order: orders of the point group by their probabilities, groups of one order evenly.

    The first group that holds some contents is a draw of an order among those of all groups that hold them, and of one
    of these groups. The groups after it need not be looked at.

    Parameters
    ----------
    groups
        International numbers.
    n_atoms
        Number of atoms in the primitive cell.
    rng
        Random generator.

    References
    ----------
    The order is drawn with exponential keys: Efraimidis, Spirakis, doi:10.1016/j.ipl.2005.11.003.
    """
    by_order: dict[int, list[int]] = {}
    for number in groups:
        by_order.setdefault(point_group_order(number), []).append(number)
    probabilities = order_probabilities(n_atoms)
    keys = rng.exponential(size=len(by_order)) / [probabilities[order] for order in by_order]
    orders = list(by_order)
    for index in np.argsort(keys):
        yield from rng.permutation(by_order[orders[index]]).tolist()


@cache
def _table() -> tuple[NDArray[np.float64], tuple[int, ...], NDArray[np.float64]]:
    """Return logarithms of sizes, the orders, and probabilities, shape ``(n_sizes, n_orders)``."""
    known = json.loads(files("hybridcsp").joinpath("data/symmetry_orders.json").read_text(encoding="utf-8"))
    rows = known["probabilities"]
    return np.log([int(size) for size in rows]), tuple(known["orders"]), np.array(list(rows.values()))
