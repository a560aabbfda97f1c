"""Crystals as fractional coordinates and the logarithm of the lattice's metric, for generative models.

A cell with the vectors L as rows has the metric L Lᵀ, which is invariant under rotation. Its logarithm k = ½ log(L Lᵀ)
is a symmetric matrix, and any six components of k make a cell, exp(k), of positive volume (as in FlowMM,
arXiv:2406.04713, and CrystalFlow, arXiv:2412.11693). The volume expected from the contents is subtracted from k, whose
trace is then the deviation from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hybridcsp.core.volumes import additive_volume
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

#: Rows and columns of the six components in the symmetric matrix: xx, yy, zz, yz, xz, xy.
ROWS, COLUMNS = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class LatticePoint:
    """A crystal as arrays.

    Attributes
    ----------
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    positions
        Fractional coordinates in [0, 1), shape ``(n_atoms, 3)``.
    lattice
        Components xx, yy, zz, yz, xz, xy of ½ log(L Lᵀ) minus the expected size, shape ``(6,)``.
    """

    numbers: NDArray[np.int64]
    positions: Array
    lattice: Array


def encode_lattice_point(atoms: Atoms) -> LatticePoint:
    """Return a crystal as arrays in its own axes; :func:`decode_lattice_point` restores it up to a rotation.

    A left-handed cell has the metric of the cell with all axes reversed: the positions of such a crystal are inverted.

    Raises
    ------
    InputError
        If there are no atoms, or if positions or cell are not finite or span no volume.
    """
    from hybridcsp.structure.validity import is_finite_crystal

    if not is_finite_crystal(atoms):
        raise InputError("atoms", atoms, "a crystal with atoms, finite positions, and a cell that spans a volume")
    cell = atoms.cell.array
    hand = np.sign(np.linalg.det(cell))
    positions = hand * np.linalg.solve(cell.T, atoms.positions.T).T
    lattice = log_metric(cell) - diagonal(log_length(atoms.numbers))
    return LatticePoint(numbers=atoms.numbers.astype(np.int64), positions=_wrapped(positions), lattice=lattice)


def decode_lattice_point(point: LatticePoint) -> Atoms:
    """Return the crystal, in right-handed axes."""
    from ase import Atoms

    cell = cell_of(point.lattice + diagonal(log_length(point.numbers)))
    return Atoms(numbers=point.numbers, cell=cell, scaled_positions=point.positions, pbc=True)


def canonical_cell(atoms: Atoms) -> Atoms:
    """Return the same crystal in right-handed axes of the Niggli-reduced cell.

    If spglib cannot reduce a cell, ASE's Minkowski reduction is used.
    """
    import spglib
    from ase import Atoms
    from ase.geometry import minkowski_reduce

    try:
        cell = spglib.niggli_reduce(atoms.cell.array, eps=1e-5)
    except spglib.SpglibError:
        cell = None
    if cell is None:
        cell = minkowski_reduce(atoms.cell.array)[0]
    cell = np.asarray(cell) * np.sign(np.linalg.det(cell))
    positions = np.linalg.solve(cell.T, atoms.positions.T).T
    reduced = Atoms(numbers=atoms.numbers, cell=cell, scaled_positions=_wrapped(positions), pbc=True)
    reduced.info.update(atoms.info)
    return reduced


def log_metric(cell: Array) -> Array:
    """Return the components of ½ log(L Lᵀ) of a cell (Å), shape ``(6,)``."""
    # The singular values of L are used because those of L Lᵀ, their squares, lose half of the digits in flat cells.
    vectors, values, _ = np.linalg.svd(cell)
    matrix = (vectors * np.log(values)) @ vectors.T
    return np.asarray(matrix[ROWS, COLUMNS])


def cell_of(components: Array) -> Array:
    """Return the symmetric matrix exp(k) as a cell (Å), the inverse of :func:`log_metric` up to a rotation."""
    matrix = np.zeros((3, 3))
    matrix[ROWS, COLUMNS] = matrix[COLUMNS, ROWS] = components
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.exp(values)) @ vectors.T)


def diagonal(value: float) -> Array:
    """Return the components of a multiple of the unit matrix, shape ``(6,)``."""
    return value * np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def log_length(numbers: NDArray[np.integer]) -> float:
    """Return the logarithm of the edge (Å) of a cube with the additive volume of these atoms at no pressure."""
    from ase.data import chemical_symbols

    found, counts = np.unique(numbers, return_counts=True)
    return _log_length(tuple((chemical_symbols[z], int(n)) for z, n in zip(found, counts, strict=True)))


@lru_cache(maxsize=100_000)
def _log_length(contents: tuple[tuple[str, int], ...]) -> float:
    return float(np.log(additive_volume(dict(contents)) * sum(n for _, n in contents)) / 3)


def _wrapped(positions: Array) -> Array:
    wrapped = positions - np.floor(positions)
    return np.where(wrapped >= 1, 0.0, wrapped)  # a tiny negative number becomes 1 in floating point
