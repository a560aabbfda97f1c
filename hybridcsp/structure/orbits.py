"""Occupied Wyckoff positions: the orbits of symmetry-equivalent atoms that spglib finds in a crystal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

from hybridcsp.structure.normalizer import ENANTIOMORPHS
from hybridcsp.structure.symmetry import spglib_cell, symmetry_dataset
from hybridcsp.structure.wyckoff import free_axes, space_group, wyckoff_position


@dataclass(frozen=True, eq=False)
class Orbit:
    """Symmetry-equivalent atoms.

    Attributes
    ----------
    element
        Atomic number.
    letter
        Letter of the occupied Wyckoff position.
    points
        Fractional coordinates in the conventional cell, shape ``(multiplicity, 3)``.
    """

    element: int
    letter: str
    points: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OrbitCrystal:
    """An idealised crystal in the conventional cell of its space group.

    Attributes
    ----------
    spacegroup
        International number.
    lattice
        Vectors of the conventional cell as rows in Å, shape ``(3, 3)``.
    numbers
        Atomic numbers of the atoms in that cell, shape ``(n_atoms,)``.
    positions
        Their fractional coordinates, shape ``(n_atoms, 3)``.
    orbits
        Each orbit with all of its atoms.
    primitive_atoms
        Indices of the atoms that make up one primitive cell.
    """

    spacegroup: int
    lattice: NDArray[np.float64]
    numbers: NDArray[np.int_]
    positions: NDArray[np.float64]
    orbits: tuple[Orbit, ...]
    primitive_atoms: NDArray[np.int_]

    def primitive_cell(self) -> Atoms:
        """Return the primitive cell with the atoms inside of it."""
        cell = space_group(self.spacegroup).vectors @ self.lattice
        positions = (self.positions @ self.lattice)[self.primitive_atoms]
        atoms = Atoms(self.numbers[self.primitive_atoms], positions=positions, cell=cell, pbc=True)
        atoms.wrap()
        return atoms


def primitive_cell_with(
    spacegroup: int, cell: Sequence[float], sites: Iterable[tuple[int, str, Sequence[float]]]
) -> Atoms:
    """Return the primitive cell of a crystal that is given by its occupied Wyckoff positions, in their order.

    Parameters
    ----------
    spacegroup
        International number, in the setting of PyXtal's tables.
    cell
        Lengths (Å) and angles (degrees) of the conventional cell.
    sites
        Atomic number, Wyckoff letter, and coordinates along :func:`~hybridcsp.structure.wyckoff.free_axes` of each
        orbit.
    """
    numbers: list[int] = []
    fractions = []
    for number, letter, coordinates in sites:
        position = wyckoff_position(spacegroup, letter)
        point = np.zeros(3)
        point[list(free_axes(spacegroup, letter))] = coordinates
        fractions.append(position.rotations @ point + position.translations)
        numbers += [number] * position.multiplicity
    vectors = space_group(spacegroup).vectors @ Cell.fromcellpar(cell).array
    return Atoms(numbers, scaled_positions=np.concatenate(fractions) % 1.0, cell=vectors, pbc=True)


def find_orbits(atoms: Atoms, symprec: float) -> OrbitCrystal | None:
    """Return a crystal's occupied Wyckoff positions in spglib's setting of its space group.

    Parameters
    ----------
    atoms
        Any cell of the crystal.
    symprec
        Tolerance of spglib in Å.

    Returns
    -------
    OrbitCrystal or None
        ``None`` where spglib finds no consistent symmetry: orbits that lack atoms, or a position without free
        coordinates that is occupied twice.
    """
    return _orbits(symmetry_dataset(spglib_cell(atoms), symprec))


def find_tabulated_orbits(atoms: Atoms, symprec: float) -> OrbitCrystal | None:
    """Return the same as :func:`find_orbits` in the setting of PyXtal's tables.

    The tables have unique axis b, hexagonal axes and the second origin choice. A crystal in the enantiomorphic group of
    higher number is replaced by its mirror image.
    """
    from pyxtal.symmetry import pyxtal_hall_numbers

    cell = lattice, scaled, numbers = spglib_cell(atoms)
    dataset = symmetry_dataset(cell, symprec)
    if dataset is not None and dataset.number in ENANTIOMORPHS:
        cell = lattice, -scaled, numbers
        dataset = symmetry_dataset(cell, symprec)
    if dataset is not None and dataset.hall_number != (hall := int(pyxtal_hall_numbers[dataset.number - 1])):
        dataset = symmetry_dataset(cell, symprec, hall)
    return _orbits(dataset)


def _orbits(dataset: Any) -> OrbitCrystal | None:
    if dataset is None:
        return None
    number = int(dataset.number)
    numbers, positions = np.asarray(dataset.std_types), np.asarray(dataset.std_positions)
    mapping = np.asarray(dataset.std_mapping_to_primitive)
    # One atom of the given cell for each of the primitive cell, and so for each of the conventional one.
    given: dict[int, int] = {}
    for atom, primitive_atom in enumerate(np.asarray(dataset.mapping_to_primitive).tolist()):
        given.setdefault(primitive_atom, atom)
    given_atom = [given[primitive_atom] for primitive_atom in mapping.tolist()]
    orbit_of = np.asarray(dataset.crystallographic_orbits)[given_atom]
    orbits: list[Orbit] = []
    full: set[str] = set()
    for orbit in np.unique(orbit_of).tolist():
        members = np.flatnonzero(orbit_of == orbit)
        letter = str(dataset.wyckoffs[given_atom[members[0]]])
        position = wyckoff_position(number, letter, conventional=True)
        if len(members) != position.multiplicity or letter in full:
            return None
        if not position.freedom:
            full.add(letter)
        orbits.append(Orbit(int(numbers[members[0]]), letter, positions[members]))
    return OrbitCrystal(
        spacegroup=number,
        lattice=np.asarray(dataset.std_lattice),
        numbers=numbers,
        positions=positions,
        orbits=tuple(orbits),
        primitive_atoms=np.unique(mapping, return_index=True)[1],
    )
