"""Crystals as space group and occupied Wyckoff positions, as a pair of an encoder and a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridcsp.errors import InputError
from hybridcsp.generators.wyckoff.representation import WyckoffCrystal, decode_wyckoff, encode_wyckoff
from hybridcsp.structure.representations.base import DecodingError, Representation
from hybridcsp.structure.symmetry import SYMPREC, SYMPREC_LOOSE

if TYPE_CHECKING:
    from ase import Atoms


class WyckoffSites(Representation[WyckoffCrystal]):
    """Representation of a crystal as space group, occupied Wyckoff positions and free parameters.

    The crystal is made as symmetric as it is within 0.1 Å. Where that leads to a cell with fewer atoms or to no space
    group, 0.01 Å is tried, as in the training of ``wyckoff``.
    """

    name = "Wyckoff"

    def _own_limit(self, atoms: Atoms) -> str:
        """Return an empty string: whether a crystal has a symmetry is found when it is encoded."""
        return ""

    def encode(self, atoms: Atoms) -> WyckoffCrystal:
        """Return the Wyckoff positions of a crystal.

        Raises
        ------
        InputError
            If the structure is no crystal, or its symmetry is that of a cell with fewer atoms at both tolerances.
        """
        self.check(atoms)
        for symprec in (SYMPREC_LOOSE, SYMPREC):
            crystal = encode_wyckoff(atoms, symprec)
            if crystal is not None and len(decode_wyckoff(crystal)) == len(atoms):
                return crystal
        reason = "no space group is found in which it has as many atoms"
        raise InputError("atoms", atoms, reason=f"a crystal has no representation as {self.name}: {reason}")

    def decode(self, encoded: WyckoffCrystal) -> Atoms:
        """Return the primitive cell of a crystal.

        Raises
        ------
        DecodingError
            If the cell has no volume.
        """
        atoms = decode_wyckoff(encoded)
        if not atoms.get_volume() > 0:
            raise DecodingError("the cell has no volume")
        return atoms
