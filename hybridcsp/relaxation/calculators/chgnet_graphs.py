"""Graphs of crystals for CHGNet: bonds and angles, built with array operations, and one graph of several crystals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres


@dataclass(frozen=True)
class BondGraph:
    """Bonds within CHGNet's cutoff and angles between short bonds.

    Attributes
    ----------
    centre, neighbour
        Indices of the atoms of each directed bond, shape ``(n_bonds,)``; each bond occurs once in both directions.
    undirected
        Index of the undirected bond of each directed bond, shape ``(n_bonds,)``; the short bonds come first.
    first
        Index of the first directed bond of each undirected bond, shape ``(n_undirected,)``.
    vectors
        Vectors from centre to neighbour of ``first`` in Å, shape ``(n_undirected, 3)``.
    n_short
        Number of short undirected bonds.
    left, right
        Indices of the directed bonds of each angle, which start at the same atom, shape ``(n_angles,)``.
    """

    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    undirected: NDArray[np.int64]
    first: NDArray[np.int64]
    vectors: NDArray[np.float64]
    n_short: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def bond_graph(lattice: NDArray[Any], positions: NDArray[Any], radius: float, short: float) -> BondGraph:
    """Return the graph of a crystal as ``chgnet.graph.CrystalGraphConverter`` defines it.

    Parameters
    ----------
    lattice
        Lattice vectors in rows, shape ``(3, 3)``, in Å.
    positions
        Cartesian, shape ``(n_atoms, 3)``, in Å.
    radius, short
        Largest length of bonds, and of bonds with angles, in Å.
    """
    positions, lattice = np.ascontiguousarray(positions, dtype=float), np.ascontiguousarray(lattice, dtype=float)
    periodic = np.ones(3, dtype=np.int64)
    centre, neighbour, image, distance = find_points_in_spheres(
        positions, positions, r=radius, pbc=periodic, lattice=lattice, tol=1e-8
    )
    bonds = distance > 1e-8  # not an atom with itself
    centre, neighbour, distance, image = centre[bonds], neighbour[bonds], distance[bonds], image[bonds]
    reverse = _reverse_bonds(centre, neighbour, image.astype(np.int64))
    index = np.arange(len(centre))
    first = index[index < reverse]
    first = first[np.argsort(distance[first] >= short, kind="stable")]
    undirected = np.empty_like(index)
    undirected[first] = undirected[reverse[first]] = np.arange(len(first))
    left, right = _angles(centre, distance, short)
    vectors = positions[neighbour[first]] + image[first] @ lattice - positions[centre[first]]
    n_short = int((distance[first] < short).sum())
    return BondGraph(centre, neighbour, undirected, first, vectors, n_short, left, right)


def _reverse_bonds(
    centre: NDArray[np.int64], neighbour: NDArray[np.int64], image: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the index of the reverse of each directed bond, shape ``(n_bonds,)``."""
    reach = int(np.abs(image).max(initial=0))
    width = 2 * reach + 1
    n_atoms = int(centre.max(initial=0)) + 1
    weights = np.array([width * width, width, 1])
    key = (centre * n_atoms + neighbour) * width**3 + (image + reach) @ weights
    reverse_key = (neighbour * n_atoms + centre) * width**3 + (reach - image) @ weights
    order = np.argsort(key)
    reverse: NDArray[np.int64] = order[np.searchsorted(key, reverse_key, sorter=order)]
    return reverse


def _angles(
    centre: NDArray[np.int64], distance: NDArray[np.float64], short: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all ordered pairs of short directed bonds that start at the same atom."""
    bonds = np.flatnonzero(distance < short)
    bonds = bonds[np.argsort(centre[bonds], kind="stable")]
    counts = np.bincount(centre[bonds])
    start = np.cumsum(counts) - counts
    partners = counts[centre[bonds]]
    left = np.repeat(np.arange(len(bonds)), partners)
    offset = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
    right = start[centre[bonds[left]]] + offset
    different = left != right
    return bonds[left[different]], bonds[right[different]]


def joined_graph(graphs: Sequence[BondGraph], n_atoms: Sequence[int]) -> BondGraph:
    """Return one graph of several crystals, between which there are no bonds.

    Parameters
    ----------
    graphs
        The graphs of the crystals.
    n_atoms
        Their numbers of atoms; the atoms of the joined graph are those of the crystals in order.
    """
    if len(graphs) == 1:
        return graphs[0]
    atoms = _starts(n_atoms)
    directed = _starts([len(graph.centre) for graph in graphs])
    n_short = [graph.n_short for graph in graphs]
    n_long = [len(graph.first) - graph.n_short for graph in graphs]
    short, long = _starts(n_short), _starts(n_long) + sum(n_short)  # the short bonds of all crystals come first

    def shifted(name: str, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([getattr(graph, name) + start for graph, start in zip(graphs, starts, strict=True)])

    def short_first(name: str, starts: NDArray[np.int64]) -> NDArray[Any]:
        parts = [getattr(graph, name) for graph in graphs]
        if parts[0].ndim == 1:
            parts = [part + start for part, start in zip(parts, starts, strict=True)]
        heads = [part[:count] for part, count in zip(parts, n_short, strict=True)]
        tails = [part[count:] for part, count in zip(parts, n_short, strict=True)]
        return np.concatenate(heads + tails)

    undirected = np.concatenate(
        [
            np.where(graph.undirected < count, graph.undirected + first, graph.undirected - count + rest)
            for graph, count, first, rest in zip(graphs, n_short, short, long, strict=True)
        ]
    )
    return BondGraph(
        centre=shifted("centre", atoms),
        neighbour=shifted("neighbour", atoms),
        undirected=undirected,
        first=short_first("first", directed),
        vectors=short_first("vectors", directed),
        n_short=sum(n_short),
        left=shifted("left", directed),
        right=shifted("right", directed),
    )


def _starts(counts: Sequence[int]) -> NDArray[np.int64]:
    """Return where each of several parts of these lengths begins when they are joined."""
    ends: NDArray[np.int64] = np.cumsum(counts, dtype=np.int64)
    return ends - np.asarray(counts, dtype=np.int64)
