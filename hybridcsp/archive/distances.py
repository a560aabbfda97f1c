"""Distances between atoms in the best minima of a search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybridcsp.archive.archive import Archive
from hybridcsp.core.problem import Problem
from hybridcsp.structure.separations import shortest_distances

#: Number of niches whose distances count, and the largest height of their minima above the best in eV/atom.
NICHES, HEIGHT = 4, 0.1

#: Number of minima from which a search uses its own distances.
FIRST = 8

#: Fraction of the shortest distances of the minima that is required.
FRACTION = 0.9


def search_distances(archive: Archive, problem: Problem) -> NDArray[np.float64] | None:
    """Return the distances that random atoms should keep by what a search has found, as AIRSS's ``MINSEP=AUTO`` does.

    They are the shortest distances in the lowest minimum of each of the best niches, shortened by a tenth.

    Parameters
    ----------
    archive
        Archive of the search.
    problem
        The problem of the search.

    Returns
    -------
    ndarray or None
        Distances in Å by atomic numbers, shape ``(119, 119)``, at least those of the problem; ``None`` while there are
        few minima.
    """
    preferred = archive.preferred_minima(max(FIRST, 4 * NICHES))
    if len(preferred) < FIRST:
        return None
    lowest: dict[int, int] = {}
    for index, one in enumerate(preferred):
        if one.height <= preferred[0].height + HEIGHT and len(lowest) < NICHES:
            lowest.setdefault(one.niche, index)
    found = shortest_distances([preferred[index].end.atoms for index in lowest.values()])
    return np.maximum(FRACTION * found, problem.distance_table)
