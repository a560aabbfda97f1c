"""Retrieval of stored prototypes of similar elements as evidence for the next token.

A network of a million weights cannot represent all prototypes. The occupied Wyckoff positions of the training crystals
are stored in addition, without coordinates or cells, as in kNN language models (doi:10.48550/arXiv.1911.00172), and are
weighted by the similarity of the elements (:mod:`hybridcsp.prototypes.ranking`). The network learns the weight of this
evidence; in training, crystals of the same formula are excluded from retrieval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridcsp.generators.wyckoff.geometry_statistics import GeometryStatistics, MeanGeometry
from hybridcsp.generators.wyckoff.tables import N_CHANNELS, N_GROUPS, N_LETTERS
from hybridcsp.generators.wyckoff.tokens import Occupation
from hybridcsp.prototypes.labels import slot_orders
from hybridcsp.structure.elements import KERNEL_EXPONENT, squared_distances
from hybridcsp.structure.normalizer import canonical_letters
from hybridcsp.structure.wyckoff import LETTERS

# Smallest share that is distinguished from none.
_FLOOR = 0.003


@dataclass(eq=False)
class RetrievedPrototypes:
    """Prototypes retrieved for given contents.

    Attributes
    ----------
    groups
        Space group of each prototype, shape ``(n,)``.
    letters
        Indices of its letters, site after site, padded with -1; shape ``(n, longest)``.
    weights
        Weights of each prototype, shape ``(n, 4)``; see :data:`~hybridcsp.generators.wyckoff.tables.N_CHANNELS`.
    names
        Row of each prototype by space group and letters of each element.
    """

    groups: NDArray[np.int_]
    letters: NDArray[np.int_]
    weights: NDArray[np.float64]
    names: dict[tuple[int, tuple[str, ...]], int]

    @property
    def summary(self) -> NDArray[np.float32]:
        """Amount and certainty of the evidence, shape ``(9,)``."""
        total = self.weights.sum(axis=0)
        best = self.weights.max(axis=0, initial=0.0)
        parts = [np.log(total + 1e-4) / 5, best / (total + 1e-6), [len(self.weights) > 0]]
        return np.concatenate(parts).astype(np.float32)

    def group_evidence(self) -> NDArray[np.float32]:
        """Return the evidence for each space group, shape ``(231, 4)``."""
        return _evidence(self.groups, self.weights, N_GROUPS)

    def consistent(self, group: int) -> NDArray[np.bool_]:
        """Return the mask of the prototypes in a space group, shape ``(n,)``."""
        return np.asarray(self.groups == group)

    def letter_evidence(self, consistent: NDArray[np.bool_], step: int) -> NDArray[np.float32]:
        """Return the evidence for each letter at a site from prototypes that agree so far, shape ``(27, 4)``."""
        if step >= self.letters.shape[1] or not consistent.any():
            return np.zeros((N_LETTERS, N_CHANNELS), dtype=np.float32)
        return _evidence(self.letters[consistent, step], self.weights[consistent], N_LETTERS)

    def knows(self, prototype: tuple[int, tuple[str, ...]]) -> bool:
        """Return whether a prototype was retrieved, with the elements in any order."""
        return prototype in self.names


class PrototypeStore:
    """Store of occupied Wyckoff positions by contents, without duplicates, and of mean geometries of prototypes.

    Attributes
    ----------
    means
        Mean geometries by the numbers of the prototypes.
    """

    def __init__(self, crystals: Iterable[Occupation] = ()) -> None:
        self.occupations: list[Occupation] = []
        self.means = GeometryStatistics()
        self._prototypes: list[tuple[int, tuple[str, ...]]] = []
        self._by_contents: dict[tuple[int, ...], list[int]] = {}
        self._known: set[tuple[object, ...]] = set()
        self._numbers: dict[tuple[int, tuple[str, ...]], int] = {}
        self.add(crystals)

    @property
    def n_prototypes(self) -> int:
        """Number of different prototypes in the store."""
        return len(self._numbers)

    def number_of(self, prototype: tuple[int, tuple[str, ...]]) -> int:
        """Return the number of a prototype, from 1 in the order of insertion; 0 if it is not stored."""
        return self._numbers.get(prototype, 0)

    def mean_geometries(self, prototype: tuple[int, tuple[str, ...]]) -> tuple[MeanGeometry, ...]:
        """Return the mean geometries of a prototype, those of most formulas first."""
        return self.means.of_prototype(self.number_of(prototype))

    def add(self, crystals: Iterable[Occupation]) -> None:
        """Add crystals that are not in the store yet."""
        for crystal in crystals:
            key = crystal.elements, crystal.counts, crystal.prototype
            if key in self._known:
                continue
            self._known.add(key)
            self._by_contents.setdefault(crystal.counts, []).append(len(self.occupations))
            self.occupations.append(crystal)
            self._prototypes.append(crystal.prototype)
            self._numbers.setdefault(crystal.prototype, 1 + len(self._numbers))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the store as concatenated arrays."""
        found = self.occupations
        return {
            "n_elements": np.array([len(s.elements) for s in found], dtype=np.uint8),
            "n_sites": np.array([len(s.slots) for s in found], dtype=np.int16),
            "elements": np.array([z for s in found for z in s.elements], dtype=np.uint8),
            "counts": np.array([n for s in found for n in s.counts], dtype=np.int16),
            "groups": np.array([s.spacegroup for s in found], dtype=np.int16),
            "slots": np.concatenate([s.slots for s in found]).astype(np.uint8),
            "letters": np.concatenate([s.letters for s in found]).astype(np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> PrototypeStore:
        """Build a store from the arrays that :meth:`arrays` returned."""
        numbers = {name: array.astype(np.int64) for name, array in arrays.items()}
        elements = np.cumsum([0, *numbers["n_elements"].tolist()]).tolist()
        sites = np.cumsum([0, *numbers["n_sites"].tolist()]).tolist()
        every_element, every_count = numbers["elements"].tolist(), numbers["counts"].tolist()
        if elements[-1] != len(every_element) or sites[-1] != len(numbers["letters"]):
            raise ValueError("the arrays of the stored prototypes have inconsistent lengths")
        return cls(
            Occupation(
                tuple(every_element[first:last]),
                tuple(every_count[first:last]),
                group,
                numbers["slots"][start:stop],
                numbers["letters"][start:stop],
            )
            for first, last, start, stop, group in zip(
                elements, elements[1:], sites, sites[1:], numbers["groups"].tolist(), strict=False
            )
        )

    def retrieve(
        self, elements: tuple[int, ...], counts: tuple[int, ...], *, same_formula: bool = True
    ) -> RetrievedPrototypes:
        """Return the stored prototypes of given contents with their weights.

        Parameters
        ----------
        elements, counts
            Contents in order (:func:`~hybridcsp.generators.wyckoff.tokens.contents_in_order`).
        same_formula
            Whether crystals of the same formula are included.
        """
        names: dict[tuple[int, tuple[str, ...]], int] = {}
        members = [
            m
            for m in self._by_contents.get(counts, [])
            if same_formula or sorted(self.occupations[m].elements) != sorted(elements)
        ]
        if not members:
            return RetrievedPrototypes(np.zeros(0, int), np.zeros((0, 0), int), np.zeros((0, N_CHANNELS)), names)
        stored = np.array([self.occupations[m].elements for m in members])
        prototypes = [self._prototypes[m] for m in members]
        owners: list[int] = []
        weights: list[NDArray[np.float64]] = []
        asked = np.array(elements)
        for turn, order in enumerate(slot_orders(counts)):
            # Slot i of the request corresponds to slot order[i] of the stored crystal.
            squares = squared_distances()[asked, stored[:, list(order)]]
            alike = (1 + squares.sum(axis=1) / (2 * KERNEL_EXPONENT)) ** -KERNEL_EXPONENT
            each = ((1 + squares / (2 * KERNEL_EXPONENT)) ** -KERNEL_EXPONENT).mean(axis=1)
            weights.append(np.column_stack([alike, alike**3, each, np.ones(len(members))]))
            for group, letters in prototypes:
                key = (group, letters if not turn else canonical_letters(group, tuple(letters[i] for i in order)))
                index = names.setdefault(key, len(names))
                owners.append(index)
        longest = max(sum(map(len, letters)) for _, letters in names)
        table = np.full((len(names), longest), -1)
        for (_, letters), index in names.items():
            flat = [LETTERS.index(letter) for own in letters for letter in own]
            table[index, : len(flat)] = flat
        groups = np.array([group for group, _ in names])
        return RetrievedPrototypes(groups, table, _sums(np.array(owners), np.concatenate(weights), len(names)), names)


def _evidence(tokens: NDArray[np.int_], weights: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return the logarithms of the shares of tokens, from 0 (none) to about 6 (all)."""
    sums = _sums(tokens[tokens >= 0], weights[tokens >= 0], size)
    shares = sums / np.maximum(sums.sum(axis=0), 1e-12)
    return np.asarray(np.log(shares + _FLOOR) - np.log(_FLOOR), dtype=np.float32)


def _sums(owners: NDArray[np.int_], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the sums of the weights by owner in each channel, shape ``(size, 4)``."""
    return np.column_stack([np.bincount(owners, channel, size) for channel in weights.T])
