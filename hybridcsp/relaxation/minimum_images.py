"""Distances of atoms to the nearest images of each other, fast for the small cells of a relaxation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Coefficients of the 27 lattice vectors around a cell; the row _HOME is zero, and the rows after it are the reverse of
# those before it.
_IMAGES = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)], dtype=float)
_HOME = 13


def minimum_image_distances(cell: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each atom to the nearest image of each other atom, and of itself.

    A distance is exact if it is below 1.5 times the smallest height of the cell, and never too small.

    Parameters
    ----------
    cell
        Lattice vectors in Å as rows, shape ``(3, 3)``.
    positions
        Cartesian positions in Å, shape ``(n_atoms, 3)``.

    Returns
    -------
    ndarray
        Distances in Å, shape ``(n_atoms, n_atoms)``.
    """
    first, second = _pairs(len(positions))
    difference = (positions[second] - positions[first]) @ np.linalg.inv(cell)
    difference -= np.rint(difference)
    images = _IMAGES @ cell
    vectors = (difference @ cell)[:, None, :] + images
    squared = np.einsum("ijk,ijk->ij", vectors, vectors).min(axis=1)
    own = np.einsum("ij,ij->i", images[:_HOME], images[:_HOME]).min()
    distances = np.full((len(positions), len(positions)), np.sqrt(own))
    distances[first, second] = distances[second, first] = np.sqrt(squared)
    return distances


@cache
def _pairs(n_atoms: int) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = np.triu_indices(n_atoms, 1)
    return first, second
