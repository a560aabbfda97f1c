"""Fingerprints, and "are these the same structure?".

Two structures are the same here when they have the same shape: equal up to rotation, reflection (enantiomorphs have
equal energies, so one minimum), translation, order of the atoms, choice of cell and uniform scale. How much their
volumes may differ is a tolerance of its own. Initial magnetic moments, charges and everything else that
:class:`ase.Atoms` carries beside elements, positions and cell are ignored.

:class:`StructureIndex` answers the question for one structure against many without ever comparing all with all:
energy and volume, then a fingerprint that cannot tell apart what is the same, then the surroundings of every atom, and
only where these leave a doubt pymatgen's ``StructureMatcher``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.structure import is_finite_crystal, to_pymatgen

Floats = NDArray[np.floating[Any]]

#: How many atoms around an atom bound each shell whose mean distance enters the fingerprint. The coordination shells
#: of the close packings end at 12, 18, 42, 54, 78 and 86, and polytypes differ only in the farther ones.
SHELLS = (0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerances:
    """How alike two structures must be to count as the same.

    Lengths without a unit are in units of the cube root of the volume per atom, 2 to 3 Å in most crystals.

    Attributes
    ----------
    volume
        Largest \\|ln(V₁/V₂)\\| of the volumes per atom; ``None`` ignores them.
    displacement
        Largest displacement of any atom, ``stol`` of ``StructureMatcher``.
    lattice, angle
        Largest relative difference of lattice vectors and difference of their angles in degrees, ``ltol`` and
        ``angle_tol`` of ``StructureMatcher``, after scaling to the same volume.
    fingerprint
        Structures any component of whose fingerprints differs by more are different.
    surroundings
        Structures whose atoms' surroundings differ by more (mean over the atoms) are different.
    certain
        Structures none of whose atoms' surroundings differ by more are the same without asking ``StructureMatcher``.
    certain_energy
        The same, but only where the energies differ by no more than this (eV/atom) or are not known.
    exact_comparisons
        How many neighbours, nearest first, ``StructureMatcher`` is asked about for one query.
    """

    volume: float | None
    displacement: float
    lattice: float
    angle: float
    fingerprint: float
    surroundings: float
    certain: float
    certain_energy: float
    exact_comparisons: int


#: For minima that were relaxed by different routes.
MINIMA = Tolerances(
    volume=0.06,
    displacement=0.08,
    lattice=0.04,
    angle=3.0,
    fingerprint=0.1,
    surroundings=0.1,
    certain=0.03,
    certain_energy=0.003,
    exact_comparisons=6,
)

#: For starts that have not been relaxed: whatever differs visibly may lead to another minimum, but scale does not.
STARTS = Tolerances(
    volume=None,
    displacement=0.02,
    lattice=0.01,
    angle=1.0,
    fingerprint=0.03,
    surroundings=0.03,
    certain=0.003,
    certain_energy=0.0,
    exact_comparisons=6,
)


@dataclass(frozen=True, eq=False, slots=True)
class Crystal:
    """The little that is kept of a structure: elements in ascending order, a reduced cell, scaled positions."""

    numbers: NDArray[np.uint8]
    cell: Floats
    positions: Floats

    @property
    def volume(self) -> float:
        """Volume per atom in Å³."""
        return float(abs(np.linalg.det(self.cell))) / len(self.numbers)

    @property
    def composition(self) -> tuple[tuple[int, int], ...]:
        """Atomic numbers and smallest whole amounts, as in a reduced formula."""
        elements, counts = np.unique(self.numbers, return_counts=True)
        return tuple(zip(elements.tolist(), (counts // np.gcd.reduce(counts)).tolist(), strict=True))


@dataclass(frozen=True, eq=False, slots=True)
class Described:
    """A structure with its fingerprint, so that both are worked out once; see :func:`describe`.

    Attributes
    ----------
    crystal
        The structure.
    surroundings
        Sorted distances from each atom to its nearest neighbours of each element, shape ``(n_atoms, n_neighbours)``.
    fingerprint
        See :func:`fingerprint`.
    """

    crystal: Crystal
    surroundings: Floats
    fingerprint: Floats


def describe(atoms: Atoms) -> Described:
    """Work out everything that :class:`StructureIndex` needs to know of a structure.

    Raises
    ------
    InputError
        If the structure is not a three-dimensional crystal with finite positions and a cell that spans a volume.
    """
    import spglib

    if not (atoms.pbc.all() and is_finite_crystal(atoms)):
        raise InputError("structure", atoms, "must be periodic in three dimensions, with atoms, finite numbers, a volume")
    order = np.argsort(atoms.numbers, kind="stable")
    reduced = spglib.niggli_reduce(atoms.cell.array)
    cell = atoms.cell.array if reduced is None else reduced  # reduction saves time, nothing depends on it
    positions = np.linalg.solve(cell.T, atoms.positions[order].T).T % 1.0
    crystal = Crystal(atoms.numbers[order].astype(np.uint8), cell, positions)
    surroundings = _surroundings(crystal)
    return Described(crystal, surroundings, _fingerprint(crystal, surroundings))


def fingerprint(atoms: Atoms) -> Floats:
    """Average minimum distances of a structure, resolved by elements.

    At unit volume per atom, and for each ordered pair of elements (A, B): the mean distance from an A atom to the B
    atoms of each of its shells, averaged over the A atoms; then its standard deviation over the A atoms. A shell holds
    the same share of the atoms of each element (see :data:`SHELLS`), so that all pairs see equally far. Last comes the
    logarithm of the volume per atom in Å³.

    It depends on the crystal alone (rotation, reflection, translation, order of the atoms, cell and supercell make no
    difference), and changes at most by twice the largest displacement of an atom.

    Returns
    -------
    ndarray
        Shape ``(22 * n_elements**2 + 1,)``: the same for all structures of the same elements.

    Raises
    ------
    InputError
        If the structure is not a three-dimensional crystal with finite numbers.

    References
    ----------
    Average minimum distances: Widdowson, Mosca, Pulido, Kurlin, Cooper, MATCH 87, 529 (2022),
    doi:10.46793/match.87-3.529W. The distances of each atom, before averaging, are the pointwise distance
    distribution of Widdowson and Kurlin, NeurIPS 35, 24625 (2022), which tells all periodic crystals apart but for
    exceptional ones of measure zero.
    """
    return describe(atoms).fingerprint


def same_structure(a: Atoms, b: Atoms, tolerances: Tolerances = MINIMA) -> bool:
    """Compare two structures exactly, with pymatgen's ``StructureMatcher`` on their primitive cells.

    Raises
    ------
    InputError
        If either is not a three-dimensional crystal with finite numbers.
    """
    first, second = describe(a).crystal, describe(b).crystal
    return (
        first.composition == second.composition
        and (tolerances.volume is None or abs(math.log(first.volume / second.volume)) <= tolerances.volume)
        and _matches(first, second, tolerances)
    )


class StructureIndex:
    """Answers "have we this structure already?" for one structure against many.

    Parameters
    ----------
    energy_window
        Structures whose energies per atom differ by more (eV) are different; ``None`` ignores energies. It does not
        hold between structures one of which has no energy.
    tolerances
        :data:`MINIMA` or :data:`STARTS`, or some of your own.

    Attributes
    ----------
    statistics
        How often what happened: ``queries``, ``neighbours`` (that the fingerprint left), ``certain`` and ``different``
        (decided by the surroundings), ``exact`` (decided by ``StructureMatcher``), ``capped`` (queries that ended with
        neighbours not asked about).

    Examples
    --------
    >>> from ase.build import bulk
    >>> index = StructureIndex(energy_window=0.01)
    >>> index.add(1, bulk("Cu"), -3.5)
    >>> index.find(bulk("Cu", cubic=True), -3.501)
    1
    """

    def __init__(self, *, energy_window: float | None, tolerances: Tolerances = MINIMA) -> None:
        if energy_window is not None and not energy_window > 0:
            raise InputError("energy_window", energy_window, "must be a positive energy in eV/atom, or None")
        self.energy_window = energy_window
        self.tolerances = tolerances
        self.statistics: Counter[str] = Counter()
        self._shelves: dict[tuple[tuple[int, int], ...], _Shelf] = {}
        self._shelf_of: dict[int, _Shelf] = {}

    def __len__(self) -> int:
        return len(self._shelf_of)

    def __contains__(self, key: int) -> bool:
        return key in self._shelf_of

    def find(self, structure: Atoms | Described, energy_per_atom: float | None = None) -> int | None:
        """Return the key of the same structure, the nearest by fingerprint where there are several, or ``None``.

        Parameters
        ----------
        structure
            What to look for; :func:`describe` it first if it is to be added afterwards.
        energy_per_atom
            In eV, at the same level as the energies of what was added.
        """
        query = _described(structure)
        energy = _energy(energy_per_atom)
        self.statistics["queries"] += 1
        shelf = self._shelves.get(query.crystal.composition)
        if shelf is None:
            return None
        left = self.tolerances.exact_comparisons
        for row in shelf.neighbours(query.fingerprint, energy, self.energy_window, self.tolerances):
            self.statistics["neighbours"] += 1
            verdict = self._by_surroundings(query, shelf.crystals[row], abs(shelf.energies[row] - energy))
            if verdict is None:
                if left == 0:
                    self.statistics["capped"] += 1
                    return None
                left -= 1
                self.statistics["exact"] += 1
                verdict = _matches(query.crystal, shelf.crystals[row], self.tolerances)
            if verdict:
                return int(shelf.keys[row])
        return None

    def add(self, key: int, structure: Atoms | Described, energy_per_atom: float | None = None) -> None:
        """Take in a structure under a new key, whether or not the same one is there already.

        Raises
        ------
        InputError
            If the key is taken.
        """
        if key in self:
            raise InputError("key", key, "is in the index already; use replace")
        described = _described(structure)
        energy = _energy(energy_per_atom)
        shelf = self._shelves.setdefault(described.crystal.composition, _Shelf(len(described.fingerprint)))
        shelf.append(key, described, energy)
        self._shelf_of[key] = shelf

    def replace(self, key: int, structure: Atoms | Described, energy_per_atom: float | None = None) -> None:
        """Put another structure in the place of the one that is known by this key."""
        described = _described(structure)
        self.remove(key)
        self.add(key, described, energy_per_atom)

    def remove(self, key: int) -> None:
        """Forget the structure that is known by this key.

        Raises
        ------
        InputError
            If there is none.
        """
        if key not in self:
            raise InputError("key", key, "is not in the index")
        self._shelf_of.pop(key).remove(key)

    def _by_surroundings(self, query: Described, other: Crystal, energy_difference: float) -> bool | None:
        """Decide the clear cases; ``None`` is a doubt."""
        mean, largest = _surroundings_distance(query, other)
        if mean > self.tolerances.surroundings:
            self.statistics["different"] += 1
            return False
        # the difference is NaN where an energy is not known
        if largest <= self.tolerances.certain and not energy_difference > self.tolerances.certain_energy:
            self.statistics["certain"] += 1
            return True
        return None


class _Shelf:
    """The structures of one reduced composition, in arrays that grow by doubling."""

    def __init__(self, n_components: int) -> None:
        self.crystals: list[Crystal] = []
        self.keys = np.empty(16, dtype=np.int64)
        self.energies = np.empty(16)
        self.fingerprints = np.empty((n_components, 16), dtype=np.float32)
        self._row_of: dict[int, int] = {}

    def append(self, key: int, described: Described, energy: float) -> None:
        row = len(self.crystals)
        if row == len(self.keys):
            self.keys = np.concatenate([self.keys, np.empty_like(self.keys)])
            self.energies = np.concatenate([self.energies, np.empty_like(self.energies)])
            self.fingerprints = np.concatenate([self.fingerprints, np.empty_like(self.fingerprints)], axis=1)
        self.crystals.append(described.crystal)
        self.keys[row], self.energies[row], self.fingerprints[:, row] = key, energy, described.fingerprint
        self._row_of[key] = row

    def remove(self, key: int) -> None:
        row = self._row_of.pop(key)
        crystal = self.crystals.pop()
        last = len(self.crystals)
        if row != last:
            self.crystals[row] = crystal
            for values in (self.keys, self.energies, self.fingerprints):
                values[..., row] = values[..., last]
            self._row_of[int(self.keys[row])] = row

    def neighbours(
        self, wanted: Floats, energy: float, window: float | None, tolerances: Tolerances
    ) -> Iterator[int]:
        """Yield the rows that may be the same structure, nearest first."""
        n = len(self.crystals)
        wanted = wanted.astype(np.float32)
        rows = np.arange(n)
        if window is not None:
            rows = np.flatnonzero(~(np.abs(self.energies[:n] - energy) > window))
        limits = np.full(len(wanted), tolerances.fingerprint)
        limits[-1] = math.inf if tolerances.volume is None else tolerances.volume
        # component after component, from the volume on: each leaves fewer rows for the next, so that a query costs
        # little more than reading one column
        for component in range(-1, len(wanted) - 1):
            rows = rows[np.abs(self.fingerprints[component, rows] - wanted[component]) <= limits[component]]
            if len(rows) == 0:
                return
        distances = np.linalg.norm(self.fingerprints[:-1, rows] - wanted[:-1, None], axis=0)
        yield from rows[np.argsort(distances, kind="stable")].tolist()


def _described(structure: Atoms | Described) -> Described:
    return structure if isinstance(structure, Described) else describe(structure)


def _energy(energy_per_atom: float | None) -> float:
    if energy_per_atom is None:
        return math.nan
    if not math.isfinite(energy_per_atom):
        raise InputError("energy_per_atom", energy_per_atom, "must be a finite energy in eV, or None")
    return float(energy_per_atom)


def _surroundings(crystal: Crystal) -> Floats:
    """Sorted distances from each atom to its nearest atoms, element after element, at unit volume per atom."""
    numbers, scale = crystal.numbers, crystal.volume ** (-1 / 3)
    cell = crystal.cell * scale
    slices, counts = _neighbour_counts(crystal.composition, len(numbers))
    separations = crystal.positions[None] - crystal.positions[:, None]
    separations = ((separations - np.round(separations)) @ cell).reshape(-1, 3)
    # at this radius a crystal of even density is complete; others are done again with the distances found
    radius = 1.2 * (3 * SHELLS[-1] / (4 * math.pi)) ** (1 / 3)
    while True:
        squares = _squared_distances(cell, separations, radius).reshape(len(numbers), len(numbers), -1)
        squares[range(len(numbers)), range(len(numbers)), squares.shape[2] // 2] = math.inf  # an atom itself
        blocks = [squares[:, where].reshape(len(numbers), -1) for where in slices]
        if all(block.shape[1] > count for block, count in zip(blocks, counts, strict=True)):
            found = [np.sort(np.partition(b, c - 1)[:, :c]) for b, c in zip(blocks, counts, strict=True)]
            distances = np.sqrt(np.maximum(np.concatenate(found, axis=1), 0.0))
            if distances.max() <= radius:
                return distances
            radius = max(float(distances.max()), radius) * (1 + 1e-9)
        else:
            radius *= 1.3


def _squared_distances(cell: Floats, separations: Floats, radius: float) -> Floats:
    """Squares of the lengths of separations plus lattice vectors: all up to the radius, and some longer ones.

    The separations are of scaled length up to a half along each axis; the image in the cell itself comes in the middle.
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.floor(radius / heights + 0.5).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    squares: Floats = separations @ (2 * images.T)
    squares += np.einsum("ij,ij->i", separations, separations)[:, None]
    squares += np.einsum("ij,ij->i", images, images)
    return squares


def _neighbour_counts(composition: tuple[tuple[int, int], ...], n_atoms: int) -> tuple[list[slice], list[int]]:
    """Where the atoms of each element are, and how many of them count as neighbours."""
    n_units = n_atoms // sum(amount for _, amount in composition)
    ends = np.cumsum([0] + [amount * n_units for _, amount in composition])
    return [slice(a, b) for a, b in pairwise(ends.tolist())], [len(shells) for shells in _shells(composition)]


@lru_cache(maxsize=256)
def _shells(composition: tuple[tuple[int, int], ...]) -> tuple[Floats, ...]:
    """For each element, how much its 1st, 2nd, … nearest neighbour counts in each shell, shape (n_neighbours, n_shells).

    An element that is a fraction x of the atoms has x times as many atoms in each shell, whole or not.
    """
    total = sum(amount for _, amount in composition)
    weights = []
    for _, amount in composition:
        edges = np.array(SHELLS) * amount / total
        neighbour = np.arange(math.ceil(edges[-1] - 1e-9))[:, None]
        inside = np.minimum(neighbour + 1, edges[1:]) - np.maximum(neighbour, edges[:-1])
        weights.append(np.maximum(inside, 0) / np.diff(edges))
    return tuple(weights)


def _fingerprint(crystal: Crystal, surroundings: Floats) -> Floats:
    slices, counts = _neighbour_counts(crystal.composition, len(crystal.numbers))
    columns = np.split(surroundings, np.cumsum(counts)[:-1], axis=1)
    shells = np.hstack([block @ weights for block, weights in zip(columns, _shells(crystal.composition), strict=True)])
    means = [shells[where].mean(axis=0) for where in slices]
    spreads = [shells[where].std(axis=0) for where in slices]
    return np.concatenate([*means, *spreads, [math.log(crystal.volume)]])


def _surroundings_distance(query: Described, other: Crystal) -> tuple[float, float]:
    """Pair the atoms of two structures so that their surroundings agree best; mean and largest difference that is left.

    Cells of different size are repeated to the same number of atoms.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    common = math.lcm(len(query.crystal.numbers), len(other.numbers))
    rows, other_rows = query.surroundings, _surroundings(other)
    costs = cdist(rows, other_rows, "chebyshev")
    costs[query.crystal.numbers[:, None] != other.numbers] = 1e6
    costs = np.repeat(np.repeat(costs, common // len(rows), axis=0), common // len(other_rows), axis=1)
    differences = costs[linear_sum_assignment(costs)]
    return float(differences.mean()), float(differences.max())


def _matches(a: Crystal, b: Crystal, tolerances: Tolerances) -> bool:
    first, second = (_primitive(crystal, tolerances.displacement) for crystal in (a, b))
    # noise may keep a cell from being reduced as far as the other
    matcher = _matcher(tolerances, supercells=len(first) != len(second))
    return bool(matcher.fit(to_pymatgen(first), to_pymatgen(second), skip_structure_reduction=True))


@lru_cache(maxsize=16)
def _matcher(tolerances: Tolerances, *, supercells: bool) -> Any:
    from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher

    return StructureMatcher(
        ltol=tolerances.lattice,
        stol=tolerances.displacement,
        angle_tol=tolerances.angle,
        primitive_cell=False,
        scale=True,
        attempt_supercell=supercells,
        comparator=ElementComparator(),
    )


def _primitive(crystal: Crystal, displacement: float) -> Atoms:
    """Return the primitive cell by translations alone: positions and cell are not idealised to a symmetry."""
    import spglib

    cell, positions, numbers = crystal.cell, crystal.positions, crystal.numbers
    if math.gcd(*np.unique(numbers, return_counts=True)[1].tolist()) > 1:
        dataset = spglib.get_symmetry_dataset((cell, positions, numbers), displacement * crystal.volume ** (1 / 3))
        if dataset is not None:
            keep = np.unique(dataset.mapping_to_primitive, return_index=True)[1]
            cartesian = positions[keep] @ cell
            reduced = spglib.niggli_reduce(dataset.primitive_lattice)
            cell = dataset.primitive_lattice if reduced is None else reduced
            return Atoms(numbers[keep], positions=cartesian, cell=cell, pbc=True)
    return Atoms(numbers, scaled_positions=positions, cell=cell, pbc=True)
