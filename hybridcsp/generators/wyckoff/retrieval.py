"""Prototypes that are remembered, and what those of similar elements say about the next token.

A network of a million weights cannot know all prototypes. Which elements were seen on which Wyckoff positions is kept
beside it (a table of occurrences, without coordinates or cells), as in kNN language models
(doi:10.48550/arXiv.1911.00172), and weighted by how alike the elements are (:mod:`hybridcsp.prototypes.ranking`); the
network is told, and learns how far to follow: in training, crystals of the same formula are never remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridcsp.generators.wyckoff.tables import N_CHANNELS, N_GROUPS, N_LETTERS
from hybridcsp.generators.wyckoff.tokens import Occupation
from hybridcsp.prototypes.labels import slot_orders
from hybridcsp.structure.elements import KERNEL_EXPONENT, squared_distances
from hybridcsp.structure.normalizer import canonical_letters
from hybridcsp.structure.wyckoff import LETTERS

# Shares below this are as good as none.
_FLOOR = 0.003


@dataclass(eq=False)
class RetrievedPrototypes:
    """What is remembered of crystals with given contents.

    Attributes
    ----------
    groups
        Space group of each remembered way to build the contents, shape ``(n,)``.
    letters
        Indices of its letters, site after site, -1 behind the last; shape ``(n, longest)``.
    weights
        How much each counts, shape ``(n, 4)``; see :data:`~hybridcsp.generators.wyckoff.tables.N_CHANNELS`.
    names
        Position of each by space group and letters of each element.
    """

    groups: NDArray[np.int_]
    letters: NDArray[np.int_]
    weights: NDArray[np.float64]
    names: dict[tuple[int, tuple[str, ...]], int]

    @property
    def summary(self) -> NDArray[np.float32]:
        """How much is known, and how certain it is; shape ``(9,)``."""
        total = self.weights.sum(axis=0)
        best = self.weights.max(axis=0, initial=0.0)
        parts = [np.log(total + 1e-4) / 5, best / (total + 1e-6), [len(self.weights) > 0]]
        return np.concatenate(parts).astype(np.float32)

    def group_evidence(self) -> NDArray[np.float32]:
        """Evidence for each space group, shape ``(231, 4)``."""
        return _evidence(self.groups, self.weights, N_GROUPS)

    def consistent(self, group: int) -> NDArray[np.bool_]:
        """Which ways are in a space group, shape ``(n,)``."""
        return np.asarray(self.groups == group)

    def letter_evidence(self, consistent: NDArray[np.bool_], step: int) -> NDArray[np.float32]:
        """Evidence for each letter at a site, among ways that agree so far; shape ``(27, 4)``."""
        if step >= self.letters.shape[1] or not consistent.any():
            return np.zeros((N_LETTERS, N_CHANNELS), dtype=np.float32)
        return _evidence(self.letters[consistent, step], self.weights[consistent], N_LETTERS)

    def knows(self, prototype: tuple[int, tuple[str, ...]]) -> bool:
        """Whether a prototype is remembered, with the elements in the same order or another."""
        return prototype in self.names


class PrototypeStore:
    """Remembered occupations of Wyckoff positions, by their contents; each combination of them once."""

    def __init__(self, crystals: Iterable[Occupation] = ()) -> None:
        self.occupations: list[Occupation] = []
        self._prototypes: list[tuple[int, tuple[str, ...]]] = []
        self._shelves: dict[tuple[int, ...], list[int]] = {}
        self._known: set[tuple[object, ...]] = set()
        self._numbers: dict[tuple[int, tuple[str, ...]], int] = {}
        self.add(crystals)

    @property
    def n_prototypes(self) -> int:
        """How many different prototypes are remembered."""
        return len(self._numbers)

    def number_of(self, prototype: tuple[int, tuple[str, ...]]) -> int:
        """Return the number of a prototype, from 1 in the order in which they were remembered; 0 if it is not."""
        return self._numbers.get(prototype, 0)

    def add(self, crystals: Iterable[Occupation]) -> None:
        """Remember more, those aside that are remembered already."""
        for crystal in crystals:
            key = crystal.elements, crystal.counts, crystal.prototype
            if key in self._known:
                continue
            self._known.add(key)
            self._shelves.setdefault(crystal.counts, []).append(len(self.occupations))
            self.occupations.append(crystal)
            self._prototypes.append(crystal.prototype)
            self._numbers.setdefault(crystal.prototype, 1 + len(self._numbers))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it as arrays, one behind the other."""
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
        """Take it from what :meth:`arrays` gave."""
        numbers = {name: array.astype(np.int64) for name, array in arrays.items()}
        elements = np.cumsum([0, *numbers["n_elements"].tolist()]).tolist()
        sites = np.cumsum([0, *numbers["n_sites"].tolist()]).tolist()
        every_element, every_count = numbers["elements"].tolist(), numbers["counts"].tolist()
        if elements[-1] != len(every_element) or sites[-1] != len(numbers["letters"]):
            raise ValueError("the crystals in memory are not whole")
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
        """Weigh what is remembered of such contents.

        Parameters
        ----------
        elements, counts
            In order (:func:`~hybridcsp.generators.wyckoff.tokens.contents_in_order`).
        same_formula
            Whether crystals of the same formula count.
        """
        names: dict[tuple[int, tuple[str, ...]], int] = {}
        members = [
            m
            for m in self._shelves.get(counts, [])
            if same_formula or sorted(self.occupations[m].elements) != sorted(elements)
        ]
        if not members:
            return RetrievedPrototypes(np.zeros(0, int), np.zeros((0, 0), int), np.zeros((0, N_CHANNELS)), names)
        remembered = np.array([self.occupations[m].elements for m in members])
        prototypes = [self._prototypes[m] for m in members]
        owners: list[int] = []
        weights: list[NDArray[np.float64]] = []
        asked = np.array(elements)
        for turn, order in enumerate(slot_orders(counts)):
            # Slot i of what is asked is taken by the remembered crystal's slot order[i].
            squares = squared_distances()[asked, remembered[:, list(order)]]
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
    """Logarithms of the shares of tokens, from 0 (none) to about 6 (all)."""
    sums = _sums(tokens[tokens >= 0], weights[tokens >= 0], size)
    shares = sums / np.maximum(sums.sum(axis=0), 1e-12)
    return np.asarray(np.log(shares + _FLOOR) - np.log(_FLOOR), dtype=np.float32)


def _sums(owners: NDArray[np.int_], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Add up weights by owner in each channel, shape ``(size, 4)``."""
    return np.column_stack([np.bincount(owners, channel, size) for channel in weights.T])
