"""Known crystals, around whose latent vectors samples are drawn, found by their contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.structure.elements import element_order, squared_distances
from hybridcsp.structure.representations.fourier import ELEMENTS

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]


class KnownCrystals:
    """Crystals, with their properties, as a few arrays that are stored with the weights.

    Parameters
    ----------
    sizes
        Number of atoms of each crystal, shape ``(n,)``.
    numbers, positions
        Atomic numbers and fractional coordinates of all atoms, shape ``(n_atoms,)`` and ``(n_atoms, 3)``.
    cells
        Lengths (Å) and angles (degrees) of the cells, shape ``(n, 6)``.
    properties
        Scaled values of the properties of each crystal, NaN where unknown, shape ``(n, n_properties)``.

    Raises
    ------
    ValueError
        If the shapes do not match, or a number is out of its range.
    """

    def __init__(
        self, sizes: NDArray[np.int64], numbers: NDArray[np.int64], positions: Array, cells: Array, properties: Array
    ) -> None:
        n, atoms = len(sizes), int(sizes.sum())
        if numbers.shape != (atoms,) or positions.shape != (atoms, 3) or cells.shape != (n, 6) or len(properties) != n:
            raise ValueError("the arrays of the known crystals must have matching shapes")
        within = bool((sizes > 0).all() and (numbers > 0).all() and (numbers <= ELEMENTS).all())
        if not within or not np.isfinite(positions).all() or not (np.isfinite(cells) & (cells > 0)).all():
            raise ValueError("the known crystals must have elements, finite coordinates, and positive cell parameters")
        self.properties = properties
        self._numbers, self._positions, self._cells = numbers, positions, cells
        self._ends = np.cumsum(sizes)
        patterns: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for index in range(n):
            contents = self.contents(index)
            order = element_order(contents)
            patterns.setdefault(tuple(contents[z] for z in order), []).append((index, order))
        # Positions and elements of the crystals with the same numbers of atoms.
        self._patterns = {
            counts: (np.array([index for index, _ in rows]), np.array([elements for _, elements in rows]))
            for counts, rows in patterns.items()
        }

    def __len__(self) -> int:
        return len(self._ends)

    @classmethod
    def of(cls, crystals: Sequence[Atoms], properties: Array) -> Self:
        """Return the arrays of crystals."""
        return cls(
            np.array([len(atoms) for atoms in crystals], dtype=np.int64),
            np.concatenate([atoms.numbers for atoms in crystals] or [np.zeros(0)]).astype(np.int64),
            np.concatenate([atoms.get_scaled_positions() for atoms in crystals] or [np.zeros((0, 3))]),
            np.array([atoms.cell.cellpar() for atoms in crystals]).reshape(-1, 6),
            properties,
        )

    def joined(self, other: KnownCrystals) -> KnownCrystals:
        """Return these crystals and the different ones of another set that are not among them."""
        there: dict[bytes, list[tuple[KnownCrystals, int]]] = {}
        for index in range(len(self)):
            there.setdefault(self._symbols(index), []).append((self, index))
        new = []
        for index in range(len(other)):
            like = there.setdefault(other._symbols(index), [])
            if not any(other._equals(index, *one) for one in like):
                like.append((other, index))
                new.append(index)
        crystals = [*map(self.atoms, range(len(self))), *map(other.atoms, new)]
        return KnownCrystals.of(crystals, np.concatenate([self.properties, other.properties[new]]))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays as tensors by name."""
        known = np.isfinite(self.properties)
        return {
            "sizes": torch.as_tensor(np.diff(self._ends, prepend=0), dtype=torch.int16),
            "numbers": torch.as_tensor(self._numbers, dtype=torch.uint8),
            "positions": torch.as_tensor(self._positions, dtype=torch.float32),
            "cells": torch.as_tensor(self._cells, dtype=torch.float32),
            "properties": torch.as_tensor(np.where(known, self.properties, 0.0), dtype=torch.float32),
            "known": torch.as_tensor(known, dtype=torch.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Build the crystals from the tensors that :meth:`tensors` returned."""
        arrays = {name: value.numpy() for name, value in tensors.items()}
        properties = arrays["properties"].astype(float)
        if arrays["known"].shape != properties.shape:
            raise ValueError("the arrays of the known crystals must have matching shapes")
        return cls(
            arrays["sizes"].astype(np.int64),
            arrays["numbers"].astype(np.int64),
            arrays["positions"].astype(float),
            arrays["cells"].astype(float),
            np.where(arrays["known"] > 0, properties, np.nan),
        )

    def atoms(self, index: int) -> Atoms:
        """Return one crystal."""
        from ase import Atoms

        rows = self._rows(index)
        positions, cell = self._positions[rows], self._cells[index]
        return Atoms(self._numbers[rows], scaled_positions=positions, cell=cell, pbc=True)

    def contents(self, index: int) -> dict[int, int]:
        """Return the number of atoms of each element of one crystal, by atomic number."""
        found, counts = np.unique(self._numbers[self._rows(index)], return_counts=True)
        return {int(z): int(n) for z, n in zip(found, counts, strict=True)}

    def nearest(self, wanted: Mapping[int, int], most: int) -> tuple[NDArray[np.int64], Array]:
        """Return the positions of the crystals with the most similar elements, the most similar first.

        Parameters
        ----------
        wanted
            Number of atoms by atomic number. Only crystals with the same numbers of atoms are returned.
        most
            Largest number of positions.

        Returns
        -------
        tuple
            Positions and distances, shape ``(n,)`` each; the distance of crystals of these contents is 0.
        """
        order = element_order(wanted)
        counts = tuple(wanted[z] for z in order)
        if counts not in self._patterns:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        indices, elements = self._patterns[counts]
        distances = (squared_distances()[np.array(order), elements] * np.array(counts)).sum(axis=1)
        chosen = np.argsort(distances, kind="stable")[:most]
        return indices[chosen], distances[chosen]

    def _rows(self, index: int) -> slice:
        return slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))

    def _symbols(self, index: int) -> bytes:
        return self._numbers[self._rows(index)].tobytes()

    def _equals(self, index: int, other: KnownCrystals, number: int) -> bool:
        """Return whether two crystals with the same atoms are equal, in spite of rounding in files."""
        apart = self._positions[self._rows(index)] - other._positions[other._rows(number)]
        same_sites = bool((np.abs(apart - np.round(apart)) < 0.01).all())
        return same_sites and bool(np.allclose(self._cells[index], other._cells[number], rtol=5e-3, atol=0))
