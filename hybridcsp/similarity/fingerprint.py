"""Fingerprints of crystals: sorted interatomic distances, invariant under the choice of the description."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.structure.geometry import niggli_cell
from hybridcsp.structure.validity import is_finite_crystal

Floats = NDArray[np.floating[Any]]

#: Numbers of neighbours that bound the shells whose mean distances make up the fingerprint. The coordination shells of
#: the close packings end at 12, 18, 42, 54, 78 and 86, and polytypes differ only in the outer ones.
SHELLS = (0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)

_MAX_ATOMS_TO_PAIR = 500
_MAX_DISTANCES = 20_000_000  # takes some seconds
_DISTANCES_AT_ONCE = 1_000_000
_MAX_CACHED_REACH = 8
_MIN_CELL_HEIGHT = 0.01  # smallest distance between opposite faces, in cube roots of the volume per atom


@dataclass(frozen=True, eq=False, slots=True)
class Crystal:
    """Compact crystal structure.

    Attributes
    ----------
    numbers
        Atomic numbers in ascending order, shape ``(n_atoms,)``.
    cell
        Reduced cell with lattice vectors as rows in Å, shape ``(3, 3)``.
    positions
        Fractional coordinates, shape ``(n_atoms, 3)``.
    volume
        Volume per atom in Å³.
    """

    numbers: NDArray[np.uint8]
    cell: Floats
    positions: Floats
    volume: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "volume", float(abs(np.linalg.det(self.cell))) / len(self.numbers))

    @property
    def composition(self) -> tuple[tuple[int, int], ...]:
        """Atomic numbers and amounts of the reduced formula."""
        return _composition(self.numbers.tobytes())


@dataclass(frozen=True, eq=False, slots=True)
class Descriptors:
    """Structure with its atomic environments and fingerprint; see :func:`compute_descriptors`.

    Attributes
    ----------
    crystal
        The structure.
    environments
        Sorted distances from each atom to its nearest neighbours of each element, shape ``(n_atoms, n_neighbours)``.
    fingerprint
        Fingerprint as :func:`fingerprint` returns it.
    """

    crystal: Crystal
    environments: Floats
    fingerprint: Floats


@lru_cache(maxsize=256)
def _composition(numbers: bytes) -> tuple[tuple[int, int], ...]:
    counts = Counter(numbers)
    unit = math.gcd(*counts.values())
    return tuple((number, count // unit) for number, count in sorted(counts.items()))


def compute_descriptors(atoms: Atoms) -> Descriptors:
    """Return the descriptors by which :class:`StructureIndex` compares a structure.

    Raises
    ------
    InputError
        If the structure is not a three-dimensional crystal with finite positions and a cell that spans a volume.
    """
    if not (atoms.pbc.all() and is_finite_crystal(atoms)):
        raise InputError(
            "structure",
            atoms,
            "a crystal with atoms, finite positions and a cell with a volume, periodic in three dimensions",
        )
    return _described(
        *(array.tobytes() for array in (atoms.numbers.astype(np.uint8), atoms.positions, atoms.cell.array))
    )


# A search needs the descriptors of each minimum several times: in recording, screening and evolution.
@lru_cache(maxsize=512)
def _described(*buffers: bytes) -> Descriptors:
    numbers = np.frombuffer(buffers[0], dtype=np.uint8)
    given_positions, given_cell = (np.frombuffer(buffer).reshape(-1, 3) for buffer in buffers[1:])
    order = np.argsort(numbers, kind="stable")
    cell = niggli_cell(given_cell)
    positions = np.linalg.solve(cell.T, given_positions[order].T).T % 1.0
    crystal = Crystal(numbers[order], cell, positions)
    if _heights(cell).min() < _MIN_CELL_HEIGHT * crystal.volume ** (1 / 3):
        raise InputError("cell", given_cell.tolist(), reason="it is too thin for the volume of its atoms")
    environments = _environments(crystal)
    return Descriptors(crystal, environments, _fingerprint(crystal, environments))


def fingerprint(atoms: Atoms) -> Floats:
    """Return the average minimum distances of a structure, resolved by elements.

    At unit volume per atom, and for each ordered pair of elements (A, B), the fingerprint has the mean distance from an
    A atom to the B atoms in each of its shells, averaged over the A atoms, and then its standard deviation over the A
    atoms. A shell has the same fraction of the atoms of each element (see :data:`SHELLS`), so that all pairs have the
    same range. The last component is the logarithm of the volume per atom in Å³.

    The fingerprint is invariant under rotation, reflection, translation, order of the atoms, choice of the cell and
    supercells, and changes at most by twice the largest displacement of an atom.

    Returns
    -------
    ndarray
        Fingerprint, shape ``(22 * n_elements**2 + 1,)``, which is equal for all structures of the same elements.

    Raises
    ------
    InputError
        If the structure is not a three-dimensional crystal with finite numbers.

    References
    ----------
    Average minimum distances: Widdowson, Mosca, Pulido, Kurlin, Cooper, MATCH 87, 529 (2022),
    doi:10.46793/match.87-3.529W. The distances of each atom, before averaging, are the pointwise distance
    distribution of Widdowson and Kurlin, NeurIPS 35, 24625 (2022), which distinguishes all
    periodic crystals except for a set of measure zero.
    """
    return compute_descriptors(atoms).fingerprint.copy()


def can_be_paired(a: Crystal, b: Crystal) -> bool:
    """Return whether two crystals, repeated to the same number of atoms, have few enough to be paired."""
    return math.lcm(len(a.numbers), len(b.numbers)) <= _MAX_ATOMS_TO_PAIR


def least_environment_distances(
    wanted: Floats, others: Floats, composition: tuple[tuple[int, int], ...]
) -> NDArray[np.float64]:
    """Return lower bounds of the mean difference of atomic environments from those of other crystals.

    The mean distance from the atoms of an element to their neighbours in a shell differs by no more than their
    environments do on average, however the atoms are paired.

    Parameters
    ----------
    wanted
        Fingerprint of a crystal, shape ``(n_components,)``.
    others
        Fingerprints of others of the same composition, shape ``(n, n_components)``.
    composition
        Atomic numbers and amounts of the reduced formula.
    """
    n_elements, n_shells = len(composition), len(SHELLS) - 1
    means = slice(0, n_elements**2 * n_shells)
    differences = np.abs(others[:, means] - wanted[means]).reshape(-1, n_elements, n_elements * n_shells)
    amounts = np.array([amount for _, amount in composition])
    bounds: NDArray[np.float64] = differences.max(axis=2) @ (amounts / amounts.sum())
    return bounds - 1e-4  # what rounding to single precision may add


def environment_distance(query: Descriptors, other: Crystal) -> tuple[float, float]:
    """Return the mean and the largest difference of atomic environments under the best pairing of the atoms.

    Cells of different size are repeated to the same number of atoms. If these are too many to pair, the structures stay
    undecided: the mean is 0 and the largest difference infinite.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    common = math.lcm(len(query.crystal.numbers), len(other.numbers))
    if not can_be_paired(query.crystal, other):
        return 0.0, math.inf
    rows, other_rows = query.environments, _cached_environments(other)
    costs = cdist(rows, other_rows, "chebyshev")
    costs[query.crystal.numbers[:, None] != other.numbers] = 1e6
    costs = np.repeat(np.repeat(costs, common // len(rows), axis=0), common // len(other_rows), axis=1)
    differences = costs[linear_sum_assignment(costs)]
    return float(differences.mean()), float(differences.max())


@lru_cache(maxsize=256)
def _cached_environments(crystal: Crystal) -> Floats:
    return _environments(crystal)


def _environments(crystal: Crystal) -> Floats:
    """Return sorted distances from each atom to its neighbours, element after element, at unit volume per atom."""
    numbers, scale = crystal.numbers, crystal.volume ** (-1 / 3)
    cell = crystal.cell * scale
    slices, counts = _neighbour_counts(crystal.composition, len(numbers))
    # This radius is sufficient for crystals of uniform density; others are repeated with the distances found.
    radius = 1.2 * (3 * SHELLS[-1] / (4 * math.pi)) ** (1 / 3)
    while True:
        images = _images(cell, radius)
        n_distances = len(numbers) ** 2 * len(images)
        if n_distances > _MAX_DISTANCES:
            raise InputError(
                "cell", crystal.cell.tolist(), reason="it has too many atoms near each other for its volume"
            )
        # Atoms are handled in batches to bound the memory; up to some tens of atoms are one batch.
        step = max(1, len(numbers) * _DISTANCES_AT_ONCE // n_distances)
        parts = []
        for start in range(0, len(numbers), step):
            rows = np.arange(start, min(start + step, len(numbers)))
            separations = crystal.positions[None] - crystal.positions[rows, None]
            separations = ((separations - np.round(separations)) @ cell).reshape(-1, 3)
            squares = _squared_distances(separations, images).reshape(len(rows), len(numbers), -1)
            squares[range(len(rows)), rows, squares.shape[2] // 2] = math.inf  # the atom itself
            blocks = [squares[:, where].reshape(len(rows), -1) for where in slices]
            if not all(block.shape[1] > count for block, count in zip(blocks, counts, strict=True)):
                break
            found = [np.sort(np.partition(b, c - 1)[:, :c]) for b, c in zip(blocks, counts, strict=True)]
            parts.append(np.concatenate(found, axis=1))
        else:
            distances: Floats = np.sqrt(np.maximum(np.concatenate(parts), 0.0))
            if distances.max() <= radius:
                return distances
            radius = max(float(distances.max()), radius) * (1 + 1e-9)
            continue
        radius *= 1.3


def _images(cell: Floats, radius: float) -> Floats:
    """Return the lattice vectors needed for all distances up to a radius, the zero vector in the middle.

    Fractional coordinates may differ by up to 1/2 along each axis.
    """
    reach = np.floor(radius / _heights(cell) + 0.5)
    if (2 * reach + 1).prod() > _MAX_DISTANCES:
        raise InputError("cell", cell.tolist(), reason="it is too thin for the volume of its atoms")
    reaches = reach.astype(int).tolist()
    # Only small sets are cached: thin cells have millions of images.
    steps = _cached_steps(*reaches) if max(reaches) <= _MAX_CACHED_REACH else _steps(*reaches)
    images: Floats = steps @ cell
    return images


def _steps(*reaches: int) -> Floats:
    """Return all triples of integers up to three limits, shape ``(n, 3)``."""
    steps = np.meshgrid(*(np.arange(-n, n + 1) for n in reaches), indexing="ij")
    return np.stack(steps, axis=-1).reshape(-1, 3).astype(float)


_cached_steps = lru_cache(maxsize=512)(_steps)


def _squared_distances(separations: Floats, images: Floats) -> Floats:
    """Return the squared lengths of all sums of a separation and a lattice vector."""
    squares: Floats = separations @ (2 * images.T)
    squares += np.einsum("ij,ij->i", separations, separations)[:, None]
    squares += np.einsum("ij,ij->i", images, images)
    return squares


def _heights(cell: Floats) -> Floats:
    heights: Floats = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    return heights


@lru_cache(maxsize=256)
def _neighbour_counts(composition: tuple[tuple[int, int], ...], n_atoms: int) -> tuple[list[slice], list[int]]:
    """Return the slice of the atoms of each element, and the numbers of neighbours of each element."""
    n_units = n_atoms // sum(amount for _, amount in composition)
    ends = np.cumsum([0] + [amount * n_units for _, amount in composition])
    return [slice(a, b) for a, b in pairwise(ends.tolist())], [len(shells) for shells in _shells(composition)]


@lru_cache(maxsize=256)
def _shells(composition: tuple[tuple[int, int], ...]) -> tuple[Floats, ...]:
    """Return the weights of each element's neighbours in each shell, shape ``(n_neighbours, n_shells)``.

    An element with a fraction x of the atoms has x times as many atoms in each shell, which need not be an integer.
    """
    total = sum(amount for _, amount in composition)
    weights = []
    for _, amount in composition:
        edges = np.array(SHELLS) * amount / total
        neighbour = np.arange(math.ceil(edges[-1] - 1e-9))[:, None]
        inside = np.minimum(neighbour + 1, edges[1:]) - np.maximum(neighbour, edges[:-1])
        weights.append(np.maximum(inside, 0) / np.diff(edges))
    return tuple(weights)


def _fingerprint(crystal: Crystal, environments: Floats) -> Floats:
    slices, counts = _neighbour_counts(crystal.composition, len(crystal.numbers))
    columns = np.split(environments, np.cumsum(counts)[:-1], axis=1)
    shells = np.hstack([block @ weights for block, weights in zip(columns, _shells(crystal.composition), strict=True)])
    means = [shells[where].mean(axis=0) for where in slices]
    spreads = [shells[where].std(axis=0) for where in slices]
    return np.concatenate([*means, *spreads, [math.log(crystal.volume)]])
