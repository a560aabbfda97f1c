"""Geometry that every room shares: distances, cells, symmetry, conversions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Tolerances in Å at which space groups are stated: for a structure as it is, and for one close to a higher symmetry.
SYMPREC = 0.01
SYMPREC_LOOSE = 0.1


def is_finite_crystal(atoms: Atoms) -> bool:
    """Whether there are atoms, finite positions, and a finite cell that spans a volume."""
    return bool(
        len(atoms) > 0
        and np.isfinite(atoms.positions).all()
        and np.isfinite(atoms.cell.array).all()
        and atoms.cell.rank == 3
        and abs(np.linalg.det(atoms.cell.array)) > 1e-3
    )


def shortest_violation(atoms: Atoms, distances: NDArray[np.float64]) -> tuple[int, int, float] | None:
    """Find the pair of atoms that is closest in proportion to what is required.

    Parameters
    ----------
    atoms
        Periodic structure; an atom and its own image are a pair too.
    distances
        Required distances in Å by atomic numbers, shape ``(119, 119)``.

    Returns
    -------
    tuple or None
        Indices and distance (Å) of the worst pair that is closer than required, ``None`` if there is none.
    """
    required = distances[np.ix_(atoms.numbers, atoms.numbers)]
    first, second, found = neighbor_list("ijd", atoms, float(required.max()))
    ratio = found / np.maximum(required[first, second], 1e-9)
    if len(ratio) == 0 or ratio.min() >= 1:
        return None
    worst = int(ratio.argmin())
    return int(first[worst]), int(second[worst]), float(found[worst])


def niggli_parameters(atoms: Atoms) -> NDArray[np.float64]:
    """Lengths (Å) and angles (degrees) of the Niggli-reduced cell, shape ``(6,)``."""
    import spglib

    try:
        reduced = spglib.niggli_reduce(atoms.cell.array, eps=1e-5)
    except spglib.SpglibError:
        reduced = None
    return np.asarray(Cell(atoms.cell.array if reduced is None else reduced).cellpar(), dtype=float)


def spacegroup(atoms: Atoms, symprec: float = SYMPREC) -> int:
    """Space group number of the positions (magnetic moments aside); 1 where spglib finds none at all."""
    dataset = _dataset(atoms, atoms.numbers, symprec)
    return 1 if dataset is None else int(dataset.number)


def primitive(atoms: Atoms, symprec: float = SYMPREC) -> Atoms:
    """Return the standardised primitive cell; initial moments and charges stay with their atoms."""
    return _standardized(atoms, symprec, to_primitive=True)


def conventional(atoms: Atoms, symprec: float = SYMPREC) -> Atoms:
    """Return the standardised conventional cell; initial moments and charges stay with their atoms."""
    return _standardized(atoms, symprec, to_primitive=False)


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


def _dataset(atoms: Atoms, labels: NDArray[Any], symprec: float) -> Any:
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), labels), symprec)
        except spglib.SpglibError:
            return None


def _standardized(atoms: Atoms, symprec: float, *, to_primitive: bool) -> Atoms:
    import spglib

    # Atoms that differ in moment or charge are different atoms: a magnetic cell is not folded onto a smaller one.
    states = np.column_stack([atoms.numbers, atoms.get_initial_magnetic_moments(), atoms.get_initial_charges()])
    kinds, labels = np.unique(states, axis=0, return_inverse=True)
    crystal = atoms.cell.array, atoms.get_scaled_positions(), labels.ravel() + 1
    try:
        found = spglib.standardize_cell(crystal, to_primitive=to_primitive, symprec=symprec)
    except spglib.SpglibError:
        found = None
    if found is None:
        return atoms.copy()
    cell, positions, kind = found
    state = kinds[np.asarray(kind) - 1]
    result = Atoms(numbers=state[:, 0].astype(int), cell=cell, scaled_positions=positions, pbc=True)
    if atoms.has("initial_magmoms"):
        result.set_initial_magnetic_moments(state[:, 1])
    if atoms.has("initial_charges"):
        result.set_initial_charges(state[:, 2])
    result.info.update(atoms.info)
    return result
