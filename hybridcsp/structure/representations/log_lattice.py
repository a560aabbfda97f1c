"""Crystals as fractional coordinates and the logarithm of the lattice's metric (:mod:`hybridcsp.structure.lattice`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridcsp.structure.lattice import LatticePoint, decode_lattice_point, encode_lattice_point
from hybridcsp.structure.representations.base import Representation

if TYPE_CHECKING:
    from ase import Atoms


class LogLattice(Representation[LatticePoint]):
    """Representation of any crystal as fractional coordinates and the logarithm of its metric."""

    name = "log-lattice"

    def _own_limit(self, atoms: Atoms) -> str:
        """Return an empty string: all crystals have this representation."""
        return ""

    def encode(self, atoms: Atoms) -> LatticePoint:
        """Return the arrays of a crystal.

        Raises
        ------
        InputError
            If the structure has no atoms, or numbers that are not finite.
        """
        self.check(atoms)
        return encode_lattice_point(atoms)

    def decode(self, encoded: LatticePoint) -> Atoms:
        """Return the crystal in right-handed axes."""
        return decode_lattice_point(encoded)
