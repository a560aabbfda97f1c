"""Random cells and random points on Wyckoff positions that respect a problem's volumes and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.structure.geometry import lattice_vectors, neighbours
from hybridcsp.structure.wyckoff import SpaceGroup, WyckoffPosition

#: The volume per atom is drawn uniformly between these multiples of the expected one, within the problem's bounds.
VOLUME_RANGE = (0.85, 1.3)

#: Minimum distances in successive space groups, as fractions of the usual ones. The problem's own always hold.
SEPARATIONS = (1.0,) * 12 + (0.95,) * 8 + (0.9,) * 8 + (0.8,) * 8 + (0.6,) * 3 + (0.0,)

#: Share of random crystals in which atoms of one element may be as close as if they were bound. In 1.5 % of known
#: crystals a distance is shorter than usual by more than a tenth, mostly that of two equal anions.
BONDS = 0.1

#: Largest fraction of the volume filled by spheres with the distances as diameters: random points do not pack more
#: densely.
PACKING = 0.45

#: Largest number of times that atoms which are too close are pushed apart.
PUSHES = 40

#: Smallest fraction of the minimum distance from which atoms are pushed apart.
PUSHED_FROM = 0.4

# After every few pushes, the shortest distance must have grown by this fraction of the required one.
PATIENCE, PROGRESS = 5, 0.02

# Atoms are pushed to this multiple of the minimum distance.
_MARGIN = 1.03

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
    problem: Problem, usual: NDArray[np.float64], fraction: float, volume_per_atom: float
) -> NDArray[np.float64]:
    """Return the minimum distances between atoms in Å, at least those of the problem.

    Parameters
    ----------
    problem
        Problem with its own minimum distances.
    usual
        Distances by atomic numbers in Å, shape ``(119, 119)``
        (:func:`~hybridcsp.structure.separations.usual_distances`).
    fraction
        Fraction of the usual distances; smaller where the volume is too small for them.
    volume_per_atom
        Volume in Å³.

    Returns
    -------
    ndarray
        Distances by atomic numbers, shape ``(119, 119)``.
    """
    numbers = [atomic_numbers[symbol] for symbol in problem.composition]
    shares = np.array(list(problem.composition.values())) / problem.atoms_per_unit
    # Spheres of all pairs of elements, in proportion to their numbers: distances are not sums of radii.
    spheres = math.pi / 6 * float(shares @ usual[np.ix_(numbers, numbers)] ** 3 @ shares)
    fullest = (PACKING * volume_per_atom / spheres) ** (1 / 3)
    wanted: NDArray[np.float64] = min(fraction, fullest) * usual
    return np.maximum(problem.distance_table, wanted)


def place(
    sites: Sequence[tuple[int, WyckoffPosition]],
    cell: NDArray[np.float64],
    distances: NDArray[np.float64],
    rng: np.random.Generator,
    occupied: tuple[NDArray[np.int_], NDArray[np.float64]] | None = None,
) -> tuple[NDArray[np.int_], NDArray[np.float64]] | None:
    """Draw points on Wyckoff positions and push atoms apart that are closer than their minimum distances.

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
    occupied
        Atomic numbers and fractional positions of atoms that are there already, and that come last in the result. If
        there are any, no atoms are pushed.

    Returns
    -------
    tuple or None
        Atomic numbers, shape ``(n_atoms,)``, and fractional positions, shape ``(n_atoms, 3)``; ``None`` if atoms could
        not be kept apart.
    """
    numbers, placed = (np.empty(0, dtype=int), np.empty((0, 3))) if occupied is None else occupied
    images = lattice_vectors(cell, float(distances.max()))
    own_images = (images[1:] ** 2).sum(axis=1).min(initial=np.inf)
    if own_images < max(distances[number, number] for number, _ in sites) ** 2:
        return None
    # Positions without free coordinates come first because the others can avoid them.
    ordered = sorted(sites, key=lambda site: site[1].freedom)
    crowded = False
    for number, position in ordered:
        points = rng.random((POINTS_PER_POSITION if position.freedom else 1, 3))
        orbits = np.einsum("mij,kj->kmi", position.rotations, points) + position.translations
        # By symmetry all atoms of an orbit have the same neighbours: the first one is checked.
        others = np.concatenate([orbits, np.broadcast_to(placed, (len(points), *placed.shape))], axis=1)
        vectors = others - orbits[:, :1]
        vectors = (vectors - np.rint(vectors)) @ cell
        squares = ((vectors[:, :, None] + images) ** 2).sum(axis=-1)
        squares[:, 0, 0] = np.inf  # itself
        seen = np.concatenate([np.full(position.multiplicity, number), numbers])
        required = np.maximum(distances[number, seen], 1e-9) ** 2
        ratios = (squares.min(axis=-1) / required).min(axis=1)
        free = ratios >= 1
        best = int(free.argmax()) if free.any() else int(ratios.argmax())
        if ratios[best] < (PUSHED_FROM if position.freedom and occupied is None else 1) ** 2:
            return None
        crowded |= not free.any()
        placed = others[best]
        numbers = seen
    if crowded:
        found = push_apart(placed, numbers, [position for _, position in reversed(ordered)], cell, distances)
        if found is None:
            return None
        placed = found
    return numbers, placed % 1.0


def push_apart(
    scaled: NDArray[np.float64],
    numbers: NDArray[np.int_],
    positions: Sequence[WyckoffPosition],
    cell: NDArray[np.float64],
    distances: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Push atoms apart that are closer than their minimum distances; Wyckoff positions are kept.

    AIRSS does the same with the atoms of a random structure (doi:10.1088/0953-8984/23/5/053201).

    Parameters
    ----------
    scaled
        Fractional coordinates, shape ``(n_atoms, 3)``.
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    positions
        Wyckoff position of each orbit, in the order of the atoms.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``.
    distances
        Minimum distances in Å by atomic numbers, shape ``(119, 119)``.

    Returns
    -------
    ndarray or None
        Fractional coordinates; ``None`` if some atoms remain too close.
    """
    atoms = Atoms(numbers, scaled_positions=scaled, cell=cell, pbc=True)
    reach = _MARGIN * float(distances[np.ix_(numbers, numbers)].max())
    inverse = np.linalg.inv(cell)
    ends = np.cumsum([0] + [position.multiplicity for position in positions])
    before = -math.inf
    for push in range(PUSHES):
        first, second, vectors, lengths = neighbours(atoms, reach)
        required = np.maximum(distances[numbers[first], numbers[second]], 1e-9)
        shortest = (lengths / required).min(initial=np.inf)
        if shortest >= 1:
            return np.asarray(atoms.positions @ inverse)
        if push % PATIENCE == 0:
            if shortest < before + PROGRESS:
                return None
            before = shortest
        excess = np.maximum(_MARGIN * required / np.maximum(lengths, 1e-3) - 1, 0)
        moves = np.zeros_like(atoms.positions)
        np.add.at(moves, first, -0.5 * excess[:, None] * vectors)
        moves = moves @ inverse
        for (start, end), position in zip(pairwise(ends), positions, strict=True):
            kept = (position.projector @ moves[start:end].ravel()).reshape(-1, 3)
            atoms.positions[start:end] += kept @ cell
    return None
