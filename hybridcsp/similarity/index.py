"""An index of structures that finds duplicates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.similarity.comparison import MINIMA, Tolerances, matches
from hybridcsp.similarity.fingerprint import (
    Crystal,
    Descriptors,
    Floats,
    can_be_paired,
    compute_descriptors,
    environment_distance,
    least_environment_distances,
)
from hybridcsp.similarity.sorted_rows import SortedRows

# Largest number of components that are compared at once.
_PORTION = 64


class StructureIndex:
    """Index of structures that finds one equal to a given structure.

    Candidates are selected by an energy window and an invariant fingerprint, and the few that remain are compared
    exactly. Equality within tolerances is not transitive: of several equal structures the nearest one is found.

    Parameters
    ----------
    energy_window
        Largest difference of the energies per atom of equal structures in eV; ``None`` ignores energies. Structures
        without an energy are compared regardless of it. :data:`ENERGY_WINDOW` is made for relaxed minima.
    tolerances
        :data:`MINIMA`, :data:`STARTS` or other tolerances.

    Attributes
    ----------
    statistics
        Counts of ``queries``; ``neighbours`` that were compared; of these ``certain`` and ``different``, which were
        decided by the environments of their atoms, and ``exact``, which were decided by ``StructureMatcher``; and
        ``capped`` queries, which found nothing among the largest number of neighbours that may be compared.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from hybridcsp.similarity import ENERGY_WINDOW, StructureIndex
    >>> index = StructureIndex(energy_window=ENERGY_WINDOW)
    >>> index.add(1, bulk("Cu"), -3.5)
    >>> index.find(bulk("Cu", cubic=True), -3.501)
    1
    """

    def __init__(self, *, energy_window: float | None, tolerances: Tolerances = MINIMA) -> None:
        if energy_window is not None and not energy_window > 0:
            raise InputError("energy_window", energy_window, "a positive energy in eV/atom, or None")
        self.energy_window = energy_window
        self.tolerances = tolerances
        self.statistics: Counter[str] = Counter()
        self._groups: dict[tuple[tuple[int, int], ...], _CompositionGroup] = {}
        self._group_of: dict[int, _CompositionGroup] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, key: int) -> bool:
        return key in self._group_of

    def find(self, structure: Atoms | Descriptors, energy_per_atom: float | None = None) -> int | None:
        """Return the key of an equal structure, the nearest by fingerprint if there are several, or ``None``.

        Parameters
        ----------
        structure
            Structure to find; its descriptors if it may be added afterwards.
        energy_per_atom
            Energy in eV/atom by the calculator of the added energies.
        """
        query = _descriptors(structure)
        energy = _energy(energy_per_atom)
        self.statistics["queries"] += 1
        group = self._groups.get(query.crystal.composition)
        if group is None:
            return None
        rows = group.neighbours(query.fingerprint, energy)
        exact_comparisons, capped = 0, len(rows) > self.tolerances.neighbours
        rows = rows[: self.tolerances.neighbours]
        least = least_environment_distances(query.fingerprint, group.fingerprints[rows], query.crystal.composition)
        for row, bound in zip(rows, least.tolist(), strict=True):
            self.statistics["neighbours"] += 1
            crystal = group.crystals[row]
            verdict = self._compare_environments(query, crystal, bound)
            if verdict is None and exact_comparisons < self.tolerances.exact_comparisons:
                exact_comparisons += 1
                self.statistics["exact"] += 1
                verdict = matches(query.crystal, crystal, self.tolerances)
            if verdict:
                return int(group.keys[row])
            capped |= verdict is None
        self.statistics["capped"] += capped
        return None

    def add(self, key: int, structure: Atoms | Descriptors, energy_per_atom: float | None = None) -> None:
        """Add a structure under a new key, even if an equal one is in the index.

        Raises
        ------
        InputError
            If the key is in use.
        """
        if key in self:
            raise InputError("key", key, "a new key; replace() changes the structure of one that is in the index")
        self._put(key, _descriptors(structure), _energy(energy_per_atom))

    def replace(self, key: int, structure: Atoms | Descriptors, energy_per_atom: float | None = None) -> None:
        """Replace the structure of a key.

        Raises
        ------
        InputError
            If the key is not in the index.
        """
        descriptors, energy = _descriptors(structure), _energy(energy_per_atom)
        self.remove(key)
        self._put(key, descriptors, energy)

    def remove(self, key: int) -> None:
        """Remove the structure of a key.

        Raises
        ------
        InputError
            If the key is not in the index.
        """
        if key not in self:
            raise InputError("key", key, "a key that is in the index")
        self._group_of.pop(key).remove(key)

    def _put(self, key: int, descriptors: Descriptors, energy: float) -> None:
        composition = descriptors.crystal.composition
        group = self._groups.get(composition)
        if group is None:
            n_components = len(descriptors.fingerprint)
            group = self._groups[composition] = _CompositionGroup(n_components, self.energy_window, self.tolerances)
        group.append(key, descriptors, energy)
        self._group_of[key] = group

    def _compare_environments(self, query: Descriptors, other: Crystal, least: float) -> bool | None:
        """Return whether the environments of the atoms decide that structures are equal; ``None`` if undecided.

        ``least`` is a lower bound of their mean difference.
        """
        if least > self.tolerances.environments and can_be_paired(query.crystal, other):
            self.statistics["different"] += 1
            return False
        mean, largest = environment_distance(query, other)
        if mean > self.tolerances.environments:
            self.statistics["different"] += 1
            return False
        if largest <= self.tolerances.certain:
            self.statistics["certain"] += 1
            return True
        return None


class _CompositionGroup:
    """Structures of one reduced composition, in arrays that grow by doubling.

    Parameters
    ----------
    n_components
        Number of components of a fingerprint.
    window
        Energy window as in :class:`StructureIndex`.
    tolerances
        Tolerances of the comparison.
    """

    def __init__(self, n_components: int, window: float | None, tolerances: Tolerances) -> None:
        self.crystals: list[Crystal] = []
        self.keys = np.empty(16, dtype=np.int64)
        self.energies = np.empty(16)
        self.fingerprints = np.empty((16, n_components), dtype=np.float32)
        self._window = window
        self._most = tolerances.fingerprint
        limits = np.full(n_components, tolerances.component)
        limits[-1] = math.inf if tolerances.volume is None else tolerances.volume
        self._limits = limits
        self._portions = list(_portions(n_components - 1))
        self._row_of: dict[int, int] = {}
        self._sorted = SortedRows()  # by energy, or by the first component where energies are ignored

    def append(self, key: int, descriptors: Descriptors, energy: float) -> None:
        row = len(self.crystals)
        if row == len(self.keys):
            self.keys = np.concatenate([self.keys, np.empty_like(self.keys)])
            self.energies = np.concatenate([self.energies, np.empty_like(self.energies)])
            self.fingerprints = np.concatenate([self.fingerprints, np.empty_like(self.fingerprints)])
        self.crystals.append(descriptors.crystal)
        self.keys[row], self.energies[row], self.fingerprints[row] = key, energy, descriptors.fingerprint
        self._row_of[key] = row
        self._sorted.add(row, self._sorting_value(row))

    def remove(self, key: int) -> None:
        row = self._row_of.pop(key)
        self._sorted.remove(row, self._sorting_value(row))
        crystal = self.crystals.pop()
        last = len(self.crystals)
        if row != last:
            self._sorted.renumber(last, self._sorting_value(last), row)
            self.crystals[row] = crystal
            for values in (self.keys, self.energies, self.fingerprints):
                values[row] = values[last]
            self._row_of[int(self.keys[row])] = row

    def neighbours(self, wanted: Floats, energy: float) -> list[int]:
        """Return the rows of similar structures, nearest first."""
        wanted = wanted.astype(np.float32)
        if self._window is None:
            rows = self._sorted.between(*_bounds(float(wanted[0]), float(self._limits[0])))
        else:
            rows = self._sorted.between(*_bounds(energy, self._window))
            rows = rows[~(np.abs(self.energies[rows] - energy) > self._window)]
        # Some components are compared after the others, the volume first, each time on the rows that remain.
        for some in self._portions:
            rows = rows[(np.abs(self.fingerprints[rows, some] - wanted[some]) <= self._limits[some]).all(axis=1)]
            if len(rows) == 0:
                return []
        distances = np.sqrt(np.mean((self.fingerprints[rows, :-1] - wanted[:-1]) ** 2, axis=1))
        order = np.lexsort(
            (self.keys[rows], distances)
        )  # ties in the order of their keys, regardless of the order of insertion
        ordered: list[int] = rows[order[distances[order] <= self._most]].tolist()
        return ordered

    def _sorting_value(self, row: int) -> float:
        return float(self.fingerprints[row, 0] if self._window is None else self.energies[row])


def _portions(n: int) -> Iterator[slice]:
    """Yield the last component, which is the volume, and then the first ``n`` in portions that grow."""
    yield slice(-1, None)
    first, length = 0, 1
    while first < n:
        yield slice(first, min(first + length, n))
        first, length = first + length, min(4 * length, _PORTION)


def _bounds(value: float, limit: float) -> tuple[float, float]:
    """Return bounds a little wider than a limit, so that rounding excludes nothing that is compared exactly later."""
    margin = limit + 1e-6 * (limit + abs(value))
    return value - margin, value + margin


def _descriptors(structure: Atoms | Descriptors) -> Descriptors:
    return structure if isinstance(structure, Descriptors) else compute_descriptors(structure)


def _energy(energy_per_atom: float | None) -> float:
    if energy_per_atom is None:
        return math.nan
    if not math.isfinite(energy_per_atom):
        raise InputError("energy_per_atom", energy_per_atom, "a finite energy in eV, or None")
    return float(energy_per_atom)
