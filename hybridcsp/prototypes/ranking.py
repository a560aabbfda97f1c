"""Which prototype is tried first: an estimate of its probability from popularity and from chemistry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridcsp.prototypes.labels import Label, slot_orders
from hybridcsp.prototypes.table import Occurrences
from hybridcsp.structure.elements import KERNEL_EXPONENT, squared_distances

#: How many crystals of mere popularity weigh against one crystal of the very same elements. Fitted with the
#: chemistry's weights (benchmarks/prototypes.py).
POPULARITY = 0.0064


@dataclass(frozen=True)
class Placement:
    """A prototype with elements in its slots, and the estimated probability that it is the one sought.

    Attributes
    ----------
    label
        The prototype.
    elements
        Atomic numbers for the slots; the label cannot tell other orders from it that its symmetries make equal.
    probability
        All that are known of a stoichiometry add up to 1.
    """

    label: Label
    elements: tuple[int, ...]
    probability: float


def placements(elements: Sequence[int], known: Occurrences) -> list[Placement]:
    r"""Rank all inequivalent ways to put elements into the known prototypes of their stoichiometry.

    The probability is that of a kernel estimate, shrunk towards popularity:
    :math:`p(L, a) = (\sum_{m \in L} n_m k(a, m) + \beta n_L / (N c_L)) / (\sum_m n_m \sum_a k(a, m) + \beta)`, where
    m are known crystals, :math:`n_m` how many of them there are, :math:`n_L / N` the popularity of the prototype and
    :math:`c_L` in how many ways the elements can be put into it. The kernel is :math:`k = (1 + d^2 / 2 t)^{-t}` with
    t = :data:`~hybridcsp.structure.elements.KERNEL_EXPONENT`, where :math:`d^2` is the sum of the squared distances of
    the elements, slot by slot (:mod:`hybridcsp.structure.elements`).

    Parameters
    ----------
    elements
        Atomic numbers of the elements sought, in ascending order of their numbers of atoms.
    known
        Of their stoichiometry.

    Returns
    -------
    list of Placement
        The most probable first; a fixed order among equals.
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
    """Add up the placements of each prototype; the most probable prototype first."""
    total: dict[Label, float] = {}
    for placement in ranked:
        total[placement.label] = total.get(placement.label, 0.0) + placement.probability
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))


def _similarity_by_label(elements: Sequence[int], known: Occurrences) -> NDArray[np.float64]:
    """Similarity of the elements in one order to the known crystals, added up by prototype, shape ``(n_labels,)``."""
    squares = squared_distances()[np.array(elements), known.elements].sum(axis=1)
    alike = (1 + squares / (2 * KERNEL_EXPONENT)) ** -KERNEL_EXPONENT
    weights = np.bincount(known.which, known.counts * alike, len(known.labels))
    return np.asarray(weights, dtype=float)
