"""Crystals around whose latent vectors samples of given contents are drawn.

As published, these are known crystals (:class:`KnownStarts`). By default the requested elements are put into known
crystals with the same numbers of atoms (:class:`SubstitutedStarts`), so that the latent vectors are those of the
contents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hybridcsp.generators.ftcp.known import KnownCrystals
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.lattice import log_length

if TYPE_CHECKING:
    from ase import Atoms

#: Largest number of known crystals around which samples of equal requests are drawn.
NEAREST = 24


class LatentStarts(ABC):
    """Abstract base class of a choice of crystals around which samples are drawn."""

    @abstractmethod
    def choose(self, known: KnownCrystals, wanted: Mapping[int, int]) -> tuple[list[Atoms], NDArray[np.int64]]:
        """Return crystals, the most similar first, and the positions of the known crystals that they come from.

        Parameters
        ----------
        known
            Known crystals.
        wanted
            Requested number of atoms by atomic number.
        """


class KnownStarts(LatentStarts):
    """Known crystals of the contents, or else those with the same numbers of atoms of the most similar elements."""

    def choose(self, known: KnownCrystals, wanted: Mapping[int, int]) -> tuple[list[Atoms], NDArray[np.int64]]:
        """Return known crystals as they are."""
        found, distances = known.nearest(wanted, NEAREST)
        if (distances == 0).any():
            found = found[distances == 0]
        return [known.atoms(index) for index in found], found


class SubstitutedStarts(LatentStarts):
    """Known crystals with the same numbers of atoms, in which the requested elements replace the most similar ones."""

    def choose(self, known: KnownCrystals, wanted: Mapping[int, int]) -> tuple[list[Atoms], NDArray[np.int64]]:
        """Return crystals of the contents with volumes that are scaled as those of the elements."""
        found, _ = known.nearest(wanted, NEAREST)
        return [_substituted(known.atoms(index), wanted) for index in found], found


def _substituted(atoms: Atoms, wanted: Mapping[int, int]) -> Atoms:
    present = {int(z): int(n) for z, n in zip(*np.unique(atoms.numbers, return_counts=True), strict=True)}
    replacement = dict(zip(element_order(present), element_order(wanted), strict=True))
    other = atoms.copy()
    other.numbers = np.array([replacement[int(z)] for z in atoms.numbers])
    factor = np.exp(log_length(other.numbers) - log_length(atoms.numbers))
    other.set_cell(atoms.cell.array * factor, scale_atoms=True)
    return other
