"""Maxima of the images of elements, which are atoms."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridcsp.structure.representations.voxel_grid import RESOLUTION, SMALLEST, VoxelGrid

Array = NDArray[np.float64]


class Peaks(NamedTuple):
    """Represent local maxima of an image.

    Attributes
    ----------
    positions
        Positions in voxels, shape ``(n_peaks, 3)``.
    heights
        Values at the maxima, shape ``(n_peaks,)``.
    """

    positions: Array
    heights: Array


#: Function from an image, the smallest value of a maximum, and the sizes of images to the maxima.
PeakFinder = Callable[[Array, float, VoxelGrid], Peaks]


def find_voxels(image: Array, lowest: float, grid: VoxelGrid) -> Peaks:
    """Find the voxels that are the largest among their neighbours, as published with CCDCGAN.

    Neighbours share a face or an edge. Every one of several adjacent voxels of one value is a maximum, and maxima may
    be as close as that. The parameters are those of :func:`find_peaks`.
    """
    from scipy.ndimage import generate_binary_structure, maximum_filter

    largest = maximum_filter(image, footprint=generate_binary_structure(3, 2), mode="wrap")
    top = np.argwhere((image >= lowest) & (image == largest))
    return Peaks(top.astype(float), image[tuple(top.T)])


def find_peaks(image: Array, lowest: float, grid: VoxelGrid) -> Peaks:
    """Find the maxima of the image of an element that reach ``lowest``, one for each atom.

    The logarithm of a Gaussian is a parabola: position and height of a maximum between voxels follow from the largest
    voxel and its neighbours. Adjacent voxels of one value, as in the middle between voxels and where a network reaches
    its largest value, are one maximum. Of maxima that are too close for two atoms, the highest is kept.

    Parameters
    ----------
    image
        Image, which is periodic.
    lowest
        Smallest value of the voxel of a maximum.
    grid
        Sizes of the images.
    """
    from scipy.ndimage import maximum_filter
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    size = image.shape[0]
    top = np.argwhere((image >= lowest) & (image == maximum_filter(image, size=3, mode="wrap")))
    if not len(top):
        return Peaks(np.zeros((0, 3)), np.zeros(0))
    offsets, heights = _between_voxels(image, top)
    pairs = cKDTree(top, boxsize=size).query_pairs(1.5, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(top),) * 2)
    n, group = connected_components(graph, directed=False)
    first = np.unique(group, return_index=True)[1]
    from_first = top + offsets - top[first[group]]
    from_first -= size * np.round(from_first / size)
    means = np.stack([np.bincount(group, from_first[:, axis]) for axis in range(3)], axis=1)
    positions = top[first] + means / np.bincount(group)[:, None]
    highest = np.zeros(n)
    np.maximum.at(highest, group, heights)
    kept = _highest_apart(positions, highest, RESOLUTION / 2 * grid.width * size / grid.box, size)
    return Peaks(positions[kept], highest[kept])


def _between_voxels(image: Array, top: NDArray[np.integer]) -> tuple[Array, Array]:
    """Return the offsets of maxima from their voxels, shape ``(n, 3)``, and their heights."""
    size = image.shape[0]
    logarithm = np.log(np.maximum(image, SMALLEST / 100))
    here = logarithm[tuple(top.T)]
    offsets, heights = np.zeros(top.shape), here.copy()
    for axis, step in enumerate(np.eye(3, dtype=int)):
        below, above = (logarithm[tuple(((top + sign * step) % size).T)] for sign in (-1, 1))
        curvature = 2 * here - below - above
        is_curved = curvature > 0
        offsets[is_curved, axis] = np.clip((above - below)[is_curved] / (2 * curvature[is_curved]), -0.5, 0.5)
        heights += offsets[:, axis] * (above - below) / 4
    return offsets, np.exp(heights)


def _highest_apart(positions: Array, heights: Array, distance: float, size: int) -> NDArray[np.integer]:
    """Return the numbers of those peaks that have no higher one within a distance in voxels, in their order."""
    from scipy.spatial import cKDTree

    inside = positions % size
    inside[inside >= size] = 0.0  # where rounding has carried a small negative number to the end
    near = cKDTree(inside, boxsize=size).query_ball_point(inside, distance)
    kept = np.zeros(len(positions), dtype=bool)
    for one in np.argsort(-heights, kind="stable"):
        kept[one] = not kept[near[one]].any()
    return np.flatnonzero(kept)
