"""Interface of array representations: from a crystal to arrays and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import HybridCSPError

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


class Representation(ABC, Generic[Encoded]):
    """Abstract base class of a pair of an encoder and a decoder of crystals."""

    #: Name in tables.
    name: ClassVar[str]

    @abstractmethod
    def limit(self, atoms: Atoms) -> str:
        """Return why this crystal cannot be represented, or an empty string if it can."""

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
