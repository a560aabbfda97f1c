"""Strains of a crystal that keep its symmetry."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.structure.symmetry import SYMPREC, spglib_cell, symmetry_dataset

Array = NDArray[np.float64]

# The six symmetric matrices that are orthonormal in the Frobenius norm and span all strains.
_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def symmetric_strains(atoms: Atoms) -> Array:
    """Return a basis of the strains that the symmetry of a crystal allows.

    The first strain is isotropic, the others keep the volume to first order: none for a cubic crystal, one for a
    tetragonal, trigonal or hexagonal, two for an orthorhombic, three for a monoclinic and five for a triclinic one. A
    strain ε turns the cell A, with its vectors as rows, into A(1 + ε).

    Parameters
    ----------
    atoms
        Any cell of the crystal, in any orientation.

    Returns
    -------
    numpy.ndarray
        Symmetric matrices of shape ``(n_strains, 3, 3)``. Each changes lengths by up to its coefficient.
    """
    dataset = symmetry_dataset(spglib_cell(atoms), SYMPREC)
    rotations = np.eye(3)[None] if dataset is None else np.unique(dataset.rotations, axis=0)
    cell = atoms.cell.array
    cartesian = cell.T @ rotations @ np.linalg.inv(cell.T)
    whole = np.stack([_symmetric_unit(*pair) for pair in _PAIRS])
    averaged = np.einsum("rij,bjk,rlk->bil", cartesian, whole, cartesian) / len(cartesian)
    averaged -= np.eye(3) * np.trace(averaged, axis1=1, axis2=2)[:, None, None] / 3
    # The average over the point group is a projection; its singular vectors of value 1 span the allowed strains.
    projection = np.einsum("bij,cij->bc", averaged, whole)
    _, values, vectors = np.linalg.svd(projection)
    found = np.einsum("sb,bij->sij", vectors[values > 0.5], whole)
    found /= np.abs(np.linalg.eigvalsh(found)).max(axis=1)[:, None, None] if len(found) else 1.0
    return np.concatenate([np.eye(3)[None], found])


def _symmetric_unit(row: int, column: int) -> Array:
    unit = np.zeros((3, 3))
    unit[row, column] = unit[column, row] = 1.0 if row == column else np.sqrt(0.5)
    return unit
