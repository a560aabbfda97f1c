"""Eigenmodes of a Hessian without the uniform translations."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def internal_modes(hessian: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues and eigenvectors of a Hessian in the space orthogonal to uniform translations.

    Parameters
    ----------
    hessian
        Symmetric matrix of second derivatives, shape ``(3 * n_atoms, 3 * n_atoms)``.

    Returns
    -------
    eigenvalues
        In ascending order, shape ``(3 * n_atoms - 3,)``.
    eigenvectors
        Orthonormal columns, shape ``(3 * n_atoms, 3 * n_atoms - 3)``; their signs are arbitrary.
    """
    n_atoms = len(hessian) // 3
    translations = np.tile(np.eye(3), (n_atoms, 1)) / math.sqrt(n_atoms)
    # Translations are shifted above all other eigenvalues, so that they come last even among other zero modes.
    shift = 2 * float(np.linalg.norm(hessian)) + 1.0
    values, vectors = np.linalg.eigh(hessian + shift * translations @ translations.T)
    return values[: 3 * n_atoms - 3], vectors[:, : 3 * n_atoms - 3]
