"""Tables of the Wyckoff positions, and the positions that can follow so that all atoms are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hybridcsp.structure.wyckoff import LETTERS, can_place, free_axes, is_sum, polar_axes, space_group

#: Number of Wyckoff letters.
N_LETTERS = len(LETTERS)

#: Length of tables by space group; row 0 is empty.
N_GROUPS = 231

#: Number of features of a position.
N_FEATURES = 25

#: Number of weights of a retrieved crystal (:mod:`hybridcsp.generators.wyckoff.retrieval`): the similarity of its
#: elements, its cube (dominated by the nearest crystals), the mean of the similarities slot by slot (tolerant of one
#: dissimilar element), and 1 (popularity).
N_CHANNELS = 4

#: Free parameters among volume, b/a, c/a, alpha, beta, gamma by crystal family.
FREE_CELL = {
    "triclinic": (1, 1, 1, 1, 1, 1),
    "monoclinic": (1, 1, 1, 0, 1, 0),
    "orthorhombic": (1, 1, 1, 0, 0, 0),
    "tetragonal": (1, 0, 1, 0, 0, 0),
    "hexagonal": (1, 0, 1, 0, 0, 0),
    "cubic": (1, 0, 0, 0, 0, 0),
}


@dataclass(frozen=True, eq=False)
class WyckoffTables:
    """Tables of all Wyckoff positions by space group and index of the letter.

    Attributes
    ----------
    multiplicity
        Number of atoms in the primitive cell, 0 where there is no such letter; shape ``(231, 27)``.
    free
        Mask of the free coordinates, shape ``(231, 27, 3)``.
    features
        Features for the networks, shape ``(231, 27, 25)``.
    polar
        Mask of the axes along which the origin is arbitrary, shape ``(231, 3)``.
    free_cell
        Mask of the free parameters of the cell, shape ``(231, 6)``.
    hexagonal
        Whether the third angle is 120°, shape ``(231,)``.
    """

    multiplicity: NDArray[np.int16]
    free: NDArray[np.uint8]
    features: NDArray[np.float32]
    polar: NDArray[np.uint8]
    free_cell: NDArray[np.uint8]
    hexagonal: NDArray[np.uint8]

    @classmethod
    @cache
    def tabulate(cls) -> WyckoffTables:
        """Return the tables computed from PyXtal's, which takes seconds at first."""
        found = cls(
            np.zeros((N_GROUPS, N_LETTERS), dtype=np.int16),
            np.zeros((N_GROUPS, N_LETTERS, 3), dtype=np.uint8),
            np.zeros((N_GROUPS, N_LETTERS, N_FEATURES), dtype=np.float32),
            np.zeros((N_GROUPS, 3), dtype=np.uint8),
            np.zeros((N_GROUPS, 6), dtype=np.uint8),
            np.zeros(N_GROUPS, dtype=np.uint8),
        )
        for number in range(1, N_GROUPS):
            group, cell = space_group(number), space_group(number, conventional=True)
            found.polar[number, list(polar_axes(number))] = 1
            found.free_cell[number] = FREE_CELL[group.lattice_type]
            found.hexagonal[number] = group.lattice_type == "hexagonal"
            for primitive, position in zip(group.positions, cell.positions, strict=True):
                index = LETTERS.index(position.letter)
                axes = list(free_axes(number, position.letter))
                found.multiplicity[number, index] = primitive.multiplicity
                found.free[number, index, axes] = 1
                turn = 2 * np.pi * position.translations[0]
                found.features[number, index] = np.concatenate(
                    [
                        [1.0, np.log2(primitive.multiplicity) / 4, np.log2(position.multiplicity) / 4],
                        np.eye(4)[position.freedom],
                        position.rotations[0].ravel(),
                        np.cos(turn),
                        np.sin(turn),
                        found.polar[number],
                    ]
                )
        return found

    @classmethod
    def from_arrays(cls, **arrays: NDArray[np.generic]) -> WyckoffTables:
        """Build tables from the arrays that :meth:`arrays` returned."""
        return cls(**arrays)  # type: ignore[arg-type]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all tables by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def groups(self, counts: Sequence[int]) -> NDArray[np.bool_]:
        """Return the mask of the space groups that hold these numbers of atoms, shape ``(231,)``."""
        known: dict[tuple[int, ...], NDArray[np.bool_]] = self.__dict__.setdefault("_groups", {})
        asked = tuple(sorted(counts))
        if asked not in known:
            known[asked] = np.array([False, *(_holds(self._kinds(number), asked) for number in range(1, N_GROUPS))])
        return known[asked]

    def next_letters(
        self, number: int, counts: Sequence[int], lowest: int = 0, taken: frozenset[int] = frozenset()
    ) -> NDArray[np.bool_]:
        """Return the positions that the first element can occupy next so that all atoms can be placed.

        Parameters
        ----------
        number
            Space group.
        counts
            Remaining numbers of atoms of the elements; that of the first is positive.
        lowest
            Smallest index of a letter: that of the element's previous site, because its letters are in ascending order.
        taken
            Indices of the occupied positions without free coordinates.

        Returns
        -------
        ndarray of bool
            Mask by index of the letter, shape ``(27,)``.
        """
        allowed = _next(self._kinds(number), tuple(counts), lowest, taken)
        mask = np.zeros(N_LETTERS, dtype=bool)
        mask[list(allowed)] = True
        return mask

    def is_fixed(self, number: int, letter: int) -> bool:
        """Return whether a position has no free coordinates, so that it can be occupied once."""
        return not self.free[number, letter].any()

    def _kinds(self, number: int) -> tuple[tuple[int, bool], ...]:
        """Return the multiplicity of each position of a group and whether it has free coordinates."""
        known: dict[int, tuple[tuple[int, bool], ...]] = self.__dict__.setdefault("_known", {})
        if number not in known:
            known[number] = tuple(
                (int(m), not self.is_fixed(number, letter))
                for letter, m in enumerate(self.multiplicity[number].tolist())
                if m
            )
        return known[number]


def _holds(kinds: tuple[tuple[int, bool], ...], counts: tuple[int, ...]) -> bool:
    fixed, free = _multiplicities(kinds)
    return can_place(counts, fixed, free)


@cache
def _multiplicities(kinds: tuple[tuple[int, bool], ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the multiplicities of the fixed positions, and the distinct ones of the free positions."""
    return tuple(sorted(m for m, free in kinds if not free)), tuple(sorted({m for m, free in kinds if free}))


@lru_cache(maxsize=1 << 17)
def _next(
    kinds: tuple[tuple[int, bool], ...], counts: tuple[int, ...], lowest: int, taken: frozenset[int]
) -> tuple[int, ...]:
    allowed = []
    for letter in range(lowest, len(kinds)):
        multiplicity, free = kinds[letter]
        if multiplicity > counts[0] or letter in taken:
            continue
        after = taken if free else taken | {letter}
        if _completes(kinds, (counts[0] - multiplicity, *counts[1:]), letter, after):
            allowed.append(letter)
    return tuple(allowed)


@lru_cache(maxsize=1 << 18)
def _completes(
    kinds: tuple[tuple[int, bool], ...], counts: tuple[int, ...], lowest: int, taken: frozenset[int]
) -> bool:
    """Return whether the first element can be completed with letters from ``lowest`` on, and the others with any."""
    fixed = [m for letter, (m, free) in enumerate(kinds) if not free and letter not in taken]
    own = [m for letter, (m, free) in enumerate(kinds) if not free and letter not in taken and letter >= lowest]
    later = tuple(sorted({m for letter, (m, free) in enumerate(kinds) if free and letter >= lowest}))
    every = tuple(sorted({m for m, free in kinds if free}))
    others = tuple(sorted(filter(None, counts[1:])))
    available = {m: own.count(m) for m in own}
    for usage in product(*(range(min(n, counts[0] // m) + 1) for m, n in available.items())):
        rest = counts[0] - sum(u * m for u, m in zip(usage, available, strict=True))
        if rest < 0 or not is_sum(rest, later):
            continue
        remaining = fixed.copy()
        for times, multiplicity in zip(usage, available, strict=True):
            for _ in range(times):
                remaining.remove(multiplicity)
        if can_place(others, tuple(sorted(remaining)), every):
            return True
    return False
