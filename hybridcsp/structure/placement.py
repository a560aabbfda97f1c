"""Random cells and random points on Wyckoff positions that respect a problem's volumes and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.structure.geometry import lattice_vectors
from hybridcsp.structure.wyckoff import SpaceGroup, WyckoffPosition

#: The volume per atom is drawn uniformly between these multiples of the expected one, within the problem's bounds.
VOLUME_RANGE = (0.85, 1.3)

#: Minimum distances in successive attempts in one space group, as fractions of summed covalent radii. The problem's own
#: minimum distances always hold.
SEPARATIONS = (0.85, 0.85, 0.85, 0.8, 0.8, 0.75, 0.7, 0.0)

#: Largest fraction of the volume filled by spheres of half the separation: random points do not pack more densely.
PACKING = 0.45

#: Random points tried for one Wyckoff position in one attempt.
POINTS_PER_POSITION = 24


def random_cell(
    problem: Problem, group: SpaceGroup, n_atoms: int, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Draw a cell of a space group's lattice type for a number of atoms.

    Returns
    -------
    ndarray or None
        Lattice vectors as rows in Å, shape ``(3, 3)``, of the cell that the group's positions fill; ``None`` if PyXtal
        fails to draw one.
    """
    from pyxtal.lattice import Lattice
    from pyxtal.msg import VolumeError

    expected = problem.expected_volume_per_atom
    low, high = problem.volume_bounds
    inner = max(low, VOLUME_RANGE[0] * expected), min(high, VOLUME_RANGE[1] * expected)
    volume = n_atoms * rng.uniform(*(inner if inner[0] < inner[1] else (low, high)))
    seed = int(rng.integers(2**32))
    try:
        # The shape is drawn at one large volume because PyXtal refuses vectors below 1.2 Å.
        shape = Lattice(group.lattice_type, volume=1000.0, random_state=seed).matrix
    except (VolumeError, ValueError):
        return None
    cell = group.vectors @ shape
    return np.asarray(cell * (volume / abs(np.linalg.det(cell))) ** (1 / 3), dtype=float)


def separations(
    problem: Problem, numbers: NDArray[np.int_], counts: Sequence[int], volume: float, fraction: float
) -> NDArray[np.float64]:
    """Return the minimum distances between atoms in Å, at least those of the problem.

    Parameters
    ----------
    problem
        Problem with its own minimum distances.
    numbers, counts
        Atomic numbers of the elements and the number of atoms of each.
    volume
        Volume of the cell in Å³.
    fraction
        Distances as a fraction of summed covalent radii; reduced where the cell is too small for them.

    Returns
    -------
    ndarray
        Distances by atomic numbers, shape ``(119, 119)``.
    """
    radii = covalent_radii[numbers]
    fullest = (PACKING * volume / (4 / 3 * math.pi * float(np.dot(counts, radii**3)))) ** (1 / 3)
    table = problem.distance_table.copy()
    wanted = min(fraction, fullest) * (radii[:, None] + radii[None, :])
    block = np.ix_(numbers, numbers)
    table[block] = np.maximum(table[block], wanted)
    return table


def place(
    sites: Sequence[tuple[int, WyckoffPosition]],
    cell: NDArray[np.float64],
    distances: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int_], NDArray[np.float64]] | None:
    """Draw points on Wyckoff positions at which all pairs of atoms keep their minimum distances.

    Parameters
    ----------
    sites
        Atomic number and Wyckoff position of each orbit.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``.
    distances
        Minimum distances in Å by atomic numbers, shape ``(119, 119)``.
    rng
        Random generator.


    Returns
    -------
    tuple or None
        Atomic numbers, shape ``(n_atoms,)``, and fractional positions, shape ``(n_atoms, 3)``; ``None`` if no
        point of a position was far enough from the other atoms.
    """
    numbers = np.empty(0, dtype=int)
    placed = np.empty((0, 3))
    images = lattice_vectors(cell, float(distances.max()))
    # Positions without free coordinates come first because the others can avoid them.
    for number, position in sorted(sites, key=lambda site: site[1].freedom):
        points = rng.random((POINTS_PER_POSITION if position.freedom else 1, 3))
        orbits = np.einsum("mij,kj->kmi", position.rotations, points) + position.translations
        # By symmetry all atoms of an orbit have the same neighbours: the first one is checked.
        others = np.concatenate([orbits, np.broadcast_to(placed, (len(points), *placed.shape))], axis=1)
        vectors = others - orbits[:, :1]
        vectors = (vectors - np.rint(vectors)) @ cell
        squares = ((vectors[:, :, None] + images) ** 2).sum(axis=-1)
        squares[:, 0, 0] = np.inf  # itself
        seen = np.concatenate([np.full(position.multiplicity, number), numbers])
        free = (squares.min(axis=-1) >= distances[number, seen] ** 2).all(axis=1)
        if not free.any():
            return None
        placed = others[int(free.argmax())]
        numbers = seen
    return numbers, placed % 1.0
