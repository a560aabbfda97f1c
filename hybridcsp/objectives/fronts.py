"""Pareto fronts and hypervolumes of points whose coordinates are all the better the smaller.

The hypervolume is the volume that a set of points dominates, up to a reference point. Here coordinates are scaled so
that the front lies between 0 and 1 in each, and the reference point is at 1.1, so that the ends of the front count too.
Exact hypervolumes are those of moocore (Guerreiro, Fonseca, Paquete, ACM Comput. Surv. 54, 119 (2021),
doi:10.1145/3453474). It is imported where it is used, because that takes a third of a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Reference point in scaled coordinates.
REFERENCE = 1.1


def front_numbers(points: Sequence[Sequence[float]] | Floats) -> NDArray[np.int64]:
    """Return the number of the front of each point: 0 for the Pareto front, 1 for the front without these, and so on.

    Parameters
    ----------
    points
        Points, shape ``(n_points, n_criteria)``. Equal points are in the same front.
    """
    import moocore

    array = _array(points)
    if not len(array):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(array), dtype=np.int64)


def is_on_front(points: Sequence[Sequence[float]] | Floats) -> NDArray[np.bool_]:
    """Return whether each point is on the Pareto front, which means that no other is better or equal in everything."""
    import moocore

    array = _array(points)
    if not len(array):
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(moocore.is_nondominated(array, keep_weakly=True), dtype=np.bool_)


def exclusive_hypervolumes(points: Sequence[Sequence[float]] | Floats) -> Floats:
    """Return the hypervolume that only each single point dominates, with coordinates scaled by the front of all.

    Parameters
    ----------
    points
        Points, shape ``(n_points, n_criteria)``. Points that are not on the front, or are there twice, have 0.
    """
    import moocore

    array = _array(points)
    found = np.zeros(len(array))
    on_front = is_on_front(array)
    if on_front.any():
        front = array[on_front]
        scaled = scale(front, front.min(axis=0), front.max(axis=0))
        found[on_front] = moocore.hv_contributions(scaled, ref=np.full(array.shape[1], REFERENCE))
    return found


def hypervolume(points: Sequence[Sequence[float]] | Floats, ideal: Floats, nadir: Floats) -> float:
    """Return the hypervolume of points as a fraction of the volume between the ideal and the reference point.

    Parameters
    ----------
    points
        Points, shape ``(n_points, n_criteria)``.
    ideal, nadir
        Points at 0 and at 1 in the scaled coordinates, shape ``(n_criteria,)``. Sets of points can be compared only
        with the same two. Points beyond the reference point add nothing.
    """
    import moocore

    array = _array(points)
    if not len(array):
        return 0.0
    scaled = np.maximum(scale(array, ideal, nadir), 0.0)
    volume = moocore.hypervolume(scaled, ref=np.full(array.shape[1], REFERENCE))
    return float(volume / REFERENCE ** array.shape[1])


def scale(points: Floats, ideal: Floats, nadir: Floats) -> Floats:
    """Return points in coordinates that are 0 at the ideal and 1 at the nadir point."""
    width = np.asarray(nadir) - ideal
    return np.asarray((points - ideal) / np.where(width > 0, width, 1.0))


def _array(points: Sequence[Sequence[float]] | Floats) -> Floats:
    array = np.asarray(points, dtype=np.float64)
    return array if len(array) else array.reshape(0, 1)
