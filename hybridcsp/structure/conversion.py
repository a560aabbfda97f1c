"""Conversion between ASE's and pymatgen's structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ase import Atoms

if TYPE_CHECKING:
    from pymatgen.core import Structure


def to_pymatgen(atoms: Atoms) -> Structure:
    """Return the same crystal as a pymatgen ``Structure``."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(atoms.cell.array), list(atoms.symbols), atoms.get_scaled_positions(wrap=False))


def from_pymatgen(structure: Structure) -> Atoms:
    """Return the same crystal as ``Atoms``; every site must be one element at full occupancy."""
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
        pbc=True,
    )
