"""The two binary domains of CrystalGAN, and crystals as rows: of the cell, of the shared element, and of both others.

A crystal is an array of shape ``(3 + n_slots, 4)``. The first three rows are the cell vectors in Å, the others the
slots of the shared element, of the first domain's own element and of the second's, with fractional coordinates; the
last column is 1 for slots with an atom and otherwise 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.base import right_handed_fractions

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Represent the elements of two binary systems that share one.

    Attributes
    ----------
    shared
        Element of both systems.
    first, second
        Their own elements, by atomic number.
    slots
        Number of slots of the shared element, of the first and of the second.
    """

    shared: str
    first: str
    second: str
    slots: tuple[int, int, int]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Domains:
        """Return the domains of examples, of which crystals of other systems are ignored.

        Raises
        ------
        InputError
            If there are not exactly two binary systems, or they share no element.
        """
        counts = [example.atoms.symbols.formula.count() for example in examples]
        systems = sorted({tuple(sorted(one, key=atomic_numbers.__getitem__)) for one in counts if len(one) == 2})
        shared = set(systems[0]) & set(systems[1]) if len(systems) == 2 else set()
        if len(shared) != 1:
            found = ", ".join("-".join(system) for system in systems) or "none"
            reason = (
                "there must be crystals of two binary systems that share an element, such as Ca-O and Ti-O, and there "
                f"are {len(systems)} ({found:.200})"
            )
            raise InputError("examples", len(examples), reason=reason)
        common = shared.pop()
        own = sorted(({*systems[0], *systems[1]}) - {common}, key=atomic_numbers.__getitem__)
        elements = (common, *own)
        binary = [one for one in counts if len(one) == 2]
        slots = [max(one.get(element, 0) for one in binary) for element in elements]
        return cls(shared=common, first=own[0], second=own[1], slots=(slots[0], slots[1], slots[2]))

    @property
    def elements(self) -> tuple[str, str, str]:
        """The shared element, the first and the second."""
        return self.shared, self.first, self.second

    @property
    def kinds(self) -> NDArray[np.int_]:
        """Position of the element of each slot among the elements, shape ``(n_slots,)``."""
        return np.repeat(np.arange(3), self.slots)

    def system_of(self, atoms: Atoms) -> int | None:
        """Return 0 for a crystal of the first system, 1 for one of the second, and ``None`` for one without a place."""
        counts = Counter(atoms.get_chemical_symbols())
        for system, own in enumerate((self.first, self.second)):
            if set(counts) == {self.shared, own}:
                fits = counts[self.shared] <= self.slots[0] and counts[own] <= self.slots[1 + system]
                return system if fits else None
        return None

    def encode(self, atoms: Atoms) -> Array:
        """Return the rows of a crystal in its reduced cell."""
        reduced = canonical_cell(atoms)
        cell, fractions = np.linalg.cholesky(reduced.cell.array @ reduced.cell.array.T), right_handed_fractions(reduced)
        rows = np.zeros((3 + sum(self.slots), 4), dtype=np.float32)
        rows[:3, :3] = cell
        symbols = np.array(reduced.get_chemical_symbols())
        start = 3
        for element, slots in zip(self.elements, self.slots, strict=True):
            found = fractions[symbols == element]
            rows[start : start + len(found)] = np.column_stack([found, np.ones(len(found))])
            start += slots
        return rows

    def decode(self, rows: NDArray[np.floating], elements: Sequence[str] | None = None) -> Atoms:
        """Return the crystal of rows.

        Parameters
        ----------
        rows
            Rows.
        elements
            Elements of the three blocks; by default the domains' own.
        """
        there = rows[3:, 3] > 0.5
        symbols = np.array(elements or self.elements)[self.kinds[there]]
        fractions = rows[3:, :3][there].astype(float)
        return Atoms(symbols.tolist(), scaled_positions=fractions % 1.0, cell=rows[:3, :3].astype(float), pbc=True)

    def counts(self, rows: NDArray[np.floating]) -> NDArray[np.int_]:
        """Return the number of atoms of the three elements of crystals, shape ``(n, 3)``."""
        there = rows[:, 3:, 3] > 0.5
        return np.stack([there[:, self.kinds == kind].sum(axis=1) for kind in range(3)], axis=1)


def cartesian(rows: Array) -> Array:
    """Return crystals with Cartesian coordinates (Å) in place of fractional ones; empty slots are 0."""
    found = rows.copy()
    found[:, 3:, :3] = rows[:, 3:, :3] @ rows[:, :3, :3] * rows[:, 3:, 3:]
    return found


def fractional(rows: Array) -> Array:
    """Return crystals with fractional coordinates in place of Cartesian ones, the inverse of :func:`cartesian`."""
    found = rows.copy()
    found[:, 3:, :3] = rows[:, 3:, :3] @ np.linalg.pinv(rows[:, :3, :3])
    return found


def same(rows: Array) -> Array:
    """Return crystals with the fractional coordinates that they have."""
    return rows


@dataclass(eq=False)
class PairData:
    """Pairs of a crystal of the first and one of the second system, of which the shorter set is repeated.

    Attributes
    ----------
    first, second
        Rows of the crystals, shape ``(n, 3 + n_slots, 4)``.
    weights, sizes
        As in :class:`hybridcsp.training.batches.TrainingData`.
    """

    first: Array
    second: Array

    def __post_init__(self) -> None:
        n = max(len(self.first), len(self.second))
        self.weights = np.ones(n)
        self.sizes = np.ones(n, dtype=int)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return crystals of both systems; the partners of the larger set are drawn at random."""
        parts = []
        for rows in (self.first, self.second):
            whole = len(rows) == len(self.weights)
            parts.append(rows[indices if whole else rng.integers(len(rows), size=len(indices))])
        order = rng.permutation(len(indices))
        return {"first": torch.as_tensor(parts[0]), "second": torch.as_tensor(parts[1][order])}
