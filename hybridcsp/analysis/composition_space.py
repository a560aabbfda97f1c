"""The places of compositions in a line, triangle or tetrahedron, and names of compositions in pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Corners of the triangle of a ternary system: the first element is at the left, the second at the right.
TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])

#: Corners of the tetrahedron of a quaternary system; the fourth element is on top.
TETRAHEDRON = np.array(
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, np.sqrt(3) / 2, 0.0], [0.5, np.sqrt(3) / 6, np.sqrt(2 / 3)]]
)

#: Direction from which the tetrahedron is seen: turned about the vertical axis, then tilted, in degrees.
_TURN, _TILT = 12.0, 14.0

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def places(fractions: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return the places of compositions in the simplex of their elements, shape ``(n, 1)``, ``(n, 2)`` or ``(n, 3)``.

    Parameters
    ----------
    fractions
        Fractions of two to four elements for each composition, shape ``(n, n_elements)``.
    """
    given = np.asarray(fractions, dtype=float)
    corners = {2: np.array([[0.0], [1.0]]), 3: TRIANGLE, 4: TETRAHEDRON}[given.shape[1]]
    placed: NDArray[np.float64] = given @ corners
    return placed


def seen_from_front(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points in space as they are seen from a fixed direction in parallel projection.

    Parameters
    ----------
    points
        Points, shape ``(n, 3)``.

    Returns
    -------
    projected
        Points in the plane of the picture, shape ``(n, 2)``.
    depth
        Distance behind the plane, shape ``(n,)``; points in front have smaller ones.
    """
    turn, tilt = np.radians(_TURN), np.radians(_TILT)
    x, y, z = (points - TETRAHEDRON.mean(axis=0)).T
    across = np.cos(turn) * x - np.sin(turn) * y
    behind = np.sin(turn) * x + np.cos(turn) * y
    up = np.cos(tilt) * z + np.sin(tilt) * behind
    return np.column_stack([across, up]), np.cos(tilt) * behind - np.sin(tilt) * z


def with_subscripts(formula: str) -> str:
    """Return a formula with numbers as subscripts: ``"Cu₃Au"``."""
    return re.sub(r"\d+", lambda match: match[0].translate(_SUBSCRIPTS), formula)
