"""Ranking of prototypes by a probability estimated from their popularity and from chemical similarity."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridcsp.prototypes.labels import Label, slot_orders
from hybridcsp.prototypes.table import Occurrences
from hybridcsp.structure.elements import KERNEL_EXPONENT, squared_distances

#: Weight of the popularity in units of one crystal of exactly the same elements. Fitted together with the weights of
#: the elements' properties (benchmarks/prototypes.py).
POPULARITY = 0.0064


@dataclass(frozen=True)
class Placement:
    """Prototype with elements in its slots, and the estimated probability that it is the structure sought.

    Attributes
    ----------
    label
        Prototype.
    elements
        Atomic numbers of the elements in the slots; one of the orders that are equivalent by symmetry.
    probability
        Estimated probability; the sum over all placements of a stoichiometry is 1.
    """

    label: Label
    elements: tuple[int, ...]
    probability: float


def placements(elements: Sequence[int], known: Occurrences) -> list[Placement]:
    r"""Rank all inequivalent placements of elements in the known prototypes of their stoichiometry.

    The probability is a kernel estimate shrunk towards the popularity:
    :math:`p(L, a) = (\sum_{m \in L} n_m k(a, m) + \beta n_L / (N c_L)) / (\sum_m n_m \sum_a k(a, m) + \beta)`, where
    m runs over the known crystals, :math:`n_m` are their counts, :math:`n_L / N` is the popularity of the prototype and
    :math:`c_L` the number of inequivalent placements of the elements in it. The kernel is
    :math:`k = (1 + d^2 / 2 t)^{-t}` with t = :data:`~hybridcsp.structure.elements.KERNEL_EXPONENT`, where :math:`d^2`
    is the sum over the slots of the squared distances of the elements (:mod:`hybridcsp.structure.elements`).

    Parameters
    ----------
    elements
        Atomic numbers of the elements in ascending order of their numbers of atoms.
    known
        Known crystals of the stoichiometry.

    Returns
    -------
    list of Placement
        Placements, the most probable first, ties in a fixed order.
    """
    if not known.labels:
        return []
    orders = slot_orders(known.labels[0].stoichiometry)
    weights = np.stack([_similarity_by_label([elements[i] for i in order], known) for order in orders])
    popularity = np.bincount(known.which, known.counts, len(known.labels))
    total = weights.sum() + POPULARITY
    popularity *= POPULARITY / popularity.sum()
    found = []
    for index, label in enumerate(known.labels):
        ways: dict[tuple[int, ...], float] = {}
        for order, weight in zip(orders, weights[:, index].tolist(), strict=True):
            way = min(tuple(elements[order[slot]] for slot in symmetry) for symmetry in label.symmetries)
            ways[way] = ways.get(way, 0.0) + weight
        prior = float(popularity[index]) / len(ways)
        found += [Placement(label, way, float((weight + prior) / total)) for way, weight in ways.items()]
    return sorted(found, key=lambda placement: (-placement.probability, placement.label, placement.elements))


def probability_by_label(ranked: Iterable[Placement]) -> list[tuple[Label, float]]:
    """Return the summed probability of the placements of each prototype, the most probable prototype first."""
    total: dict[Label, float] = {}
    for placement in ranked:
        total[placement.label] = total.get(placement.label, 0.0) + placement.probability
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))


def resemblance(elements: Sequence[int], known: Occurrences, units: Container[int]) -> float:
    """Return the summed similarity of elements to the known crystals of their stoichiometry, each in its best order.

    It is near 0 if no crystal is known of similar elements in similar positions, and about the number of those known if
    there are some. Only primitive cells with some numbers of formula units count.

    Parameters
    ----------
    elements
        Atomic numbers of the elements in ascending order of their numbers of atoms.
    known
        Known crystals of the stoichiometry.
    units
        Numbers of reduced formula units in the primitive cells that count.
    """
    fitting = np.array([label.units in units for label in known.labels], dtype=bool)
    if not fitting.any():
        return 0.0
    orders = slot_orders(known.labels[0].stoichiometry)
    weights = np.stack([_similarity_by_label([elements[i] for i in order], known) for order in orders])
    return float(weights.max(axis=0)[fitting].sum())


def _similarity_by_label(elements: Sequence[int], known: Occurrences) -> NDArray[np.float64]:
    """Return the similarity of elements to the known crystals, summed by prototype, shape ``(n_labels,)``."""
    squares = squared_distances()[np.array(elements), known.elements].sum(axis=1)
    alike = (1 + squares / (2 * KERNEL_EXPONENT)) ** -KERNEL_EXPONENT
    weights = np.bincount(known.which, known.counts * alike, len(known.labels))
    return np.asarray(weights, dtype=float)
