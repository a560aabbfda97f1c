"""Grids of k-points from their density, which is the same for every cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Parts of a division by which the length of a reciprocal vector may exceed a multiple of the spacing: cells that differ
# by rounding only must have the same grid.
_ROUNDING = 1e-6


def kpoint_grid(cell: NDArray[Any], spacing: float) -> tuple[int, int, int]:
    """Return the numbers of k-points along the reciprocal vectors, as ``KSPACING`` of VASP gives them.

    Parameters
    ----------
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``.
    spacing
        Largest distance of neighbouring k-points in Å⁻¹, where the reciprocal vectors contain the factor 2π.

    Examples
    --------
    >>> import numpy as np
    >>> kpoint_grid(np.diag([4.0, 4.0, 8.0]), 0.4)
    (4, 4, 2)
    """
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell), axis=0)
    first, second, third = (max(1, int(np.ceil(length / spacing - _ROUNDING))) for length in lengths)
    return first, second, third
