"""Interface of array representations: from a crystal to arrays and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import HybridCSPError, InputError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.cell import Cell

Encoded = TypeVar("Encoded")


class DecodingError(HybridCSPError):
    """Tell that arrays describe no crystal.

    Parameters
    ----------
    reason
        Short reason; equal reasons are counted together.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BeyondLimitsError(DecodingError):
    """Tell that a crystal cannot be reconstructed, because it is beyond the limits of a model.

    Parameters
    ----------
    reason
        Short reason; equal reasons are counted together.
    """


class Representation(ABC, Generic[Encoded]):
    """Abstract base class of a pair of an encoder and a decoder of crystals."""

    #: Name in tables.
    name: ClassVar[str]

    def limit(self, atoms: Atoms) -> str:
        """Return why this crystal cannot be represented, or an empty string if it can."""
        from hybridcsp.structure.validity import is_finite_crystal

        if not is_finite_crystal(atoms):
            return "there must be atoms, finite positions, and a cell that spans a volume"
        return self._own_limit(atoms)

    @abstractmethod
    def _own_limit(self, atoms: Atoms) -> str:
        """Return why a crystal of finite positions and volume cannot be represented, or an empty string."""

    def check(self, atoms: Atoms) -> None:
        """Check that a crystal can be represented.

        Raises
        ------
        InputError
            If it is beyond the limits of the representation.
        """
        if reason := self.limit(atoms):
            raise InputError("atoms", atoms, reason=f"a crystal has no representation as {self.name}: {reason}")

    @abstractmethod
    def encode(self, atoms: Atoms) -> Encoded:
        """Return the crystal as arrays.

        Raises
        ------
        InputError
            If the crystal is beyond the limits of the representation.
        """

    @abstractmethod
    def decode(self, encoded: Encoded) -> Atoms:
        """Return the crystal that arrays describe.

        Raises
        ------
        DecodingError
            If they describe none.
        """


def right_handed_fractions(atoms: Atoms) -> NDArray[np.float64]:
    """Return the fractional coordinates of a crystal in right-handed axes, shape ``(n_atoms, 3)``.

    If its axes are left-handed, all of them are reversed, which leaves the crystal the same.
    """
    fractions: NDArray[np.float64] = atoms.get_scaled_positions()
    return fractions if np.linalg.det(atoms.cell.array) > 0 else (-fractions) % 1.0


def cell_of_parameters(lengths: NDArray[np.float64], angles: NDArray[np.float64]) -> Cell:
    """Return the cell of lengths (Å) and angles (degrees).

    Raises
    ------
    DecodingError
        If they make no cell of a positive volume.
    """
    from ase.cell import Cell

    if not (np.isfinite(lengths).all() and np.isfinite(angles).all()):
        raise DecodingError("lengths or angles of the cell are not finite")
    if (lengths <= 0).any() or (angles <= 0).any() or (angles >= 180).any():
        raise DecodingError("lengths or angles of the cell are out of range")
    cosines = np.cos(np.radians(angles))
    if 1 + 2 * cosines.prod() - (cosines**2).sum() <= 1e-6:
        raise DecodingError("the angles make no cell")
    return Cell.fromcellpar([*lengths, *angles])
