"""Mean geometries of prototypes that occur in crystals of several formulas.

A network of a few million weights knows thousands of prototypes, but not the coordinates of each of them to a tenth of
an Ångström. For each prototype, groups of crystals with similar free coordinates and cells are therefore formed, and
their means are kept; no geometry of a single crystal is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
    from hybridcsp.generators.wyckoff.tables import WyckoffTables
    from hybridcsp.generators.wyckoff.tokens import CrystalTokens

# Largest differences within a group: root mean square of fractional coordinates, and any scaled parameter of the cell.
_COORDINATES, _CELL = 0.05, 0.4

# Smallest number of formulas in a group: the mean of a single crystal would be that crystal.
_FORMULAS = 2


@dataclass(frozen=True, eq=False)
class MeanGeometry:
    """Mean free parameters of a group of crystals of one prototype.

    Attributes
    ----------
    formulas
        Number of formulas in the group.
    cell
        Scaled parameters of the cell as in :class:`~hybridcsp.generators.wyckoff.tokens.CrystalTokens`, shape ``(6,)``.
    coordinates
        Free fractional coordinates, zero where they are not free, shape ``(n_sites, 3)``.
    """

    formulas: int
    cell: NDArray[np.float64]
    coordinates: NDArray[np.float64]


class GeometryStatistics:
    """Mean geometries by the numbers of their prototypes in a store (:meth:`PrototypeStore.number_of`)."""

    def __init__(self, geometries: Mapping[int, Sequence[MeanGeometry]] | None = None) -> None:
        self._geometries = {number: tuple(group) for number, group in (geometries or {}).items()}

    @classmethod
    def of(
        cls, crystals: Iterable[CrystalTokens], store: PrototypeStore, positions: WyckoffTables
    ) -> GeometryStatistics:
        """Return the mean geometries of crystals whose prototypes are in a store.

        Crystals of which the prototype is not in the store are left out.
        """
        members: dict[int, list[CrystalTokens]] = defaultdict(list)
        for crystal in crystals:
            number = store.number_of(crystal.prototype)
            if number and _has_shape(crystal, positions):
                members[number].append(crystal)
        grouped = {number: _groups(own, positions) for number, own in sorted(members.items())}
        return cls({number: groups for number, groups in grouped.items() if groups})

    def __len__(self) -> int:
        """Return the number of prototypes with a mean geometry."""
        return len(self._geometries)

    def of_prototype(self, number: int) -> tuple[MeanGeometry, ...]:
        """Return the mean geometries of a prototype, those of most formulas first."""
        return self._geometries.get(number, ())

    def joined(self, other: GeometryStatistics) -> GeometryStatistics:
        """Return the geometries of both, those of this one first; of similar ones only the first is kept."""
        found = {number: list(own) for number, own in self._geometries.items()}
        for number, group in other._geometries.items():
            own = found.setdefault(number, [])
            own += [one for one in group if not any(_alike(one, earlier) for earlier in own)]
        return GeometryStatistics(found)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all geometries as concatenated arrays."""
        found = [(number, one) for number, own in self._geometries.items() for one in own]
        coordinates = np.concatenate([np.zeros((0, 3)), *(one.coordinates for _, one in found)])
        return {
            "prototypes": np.array([number for number, _ in found], dtype=np.int32),
            "formulas": np.array([one.formulas for _, one in found], dtype=np.int32),
            "n_sites": np.array([len(one.coordinates) for _, one in found], dtype=np.int32),
            "cells": np.array([one.cell for _, one in found], dtype=np.float32).reshape(-1, 6),
            "coordinates": coordinates.astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Build the statistics from the arrays that :meth:`arrays` returned.

        Raises
        ------
        ValueError
            If their lengths do not fit together.
        """
        sites = np.cumsum([0, *arrays["n_sites"].astype(np.int64).tolist()])
        if sites[-1] != len(arrays["coordinates"]) or len(arrays["cells"]) != len(arrays["prototypes"]):
            raise ValueError("the arrays of the mean geometries have inconsistent lengths")
        found: dict[int, list[MeanGeometry]] = defaultdict(list)
        cells, coordinates = arrays["cells"].astype(float), arrays["coordinates"].astype(float)
        for row, (number, formulas) in enumerate(
            zip(arrays["prototypes"].tolist(), arrays["formulas"].tolist(), strict=True)
        ):
            own = coordinates[sites[row] : sites[row + 1]]
            found[number].append(MeanGeometry(formulas, cells[row], own))
        return cls(found)


def _has_shape(crystal: CrystalTokens, positions: WyckoffTables) -> bool:
    """Return whether a crystal has free parameters beside its volume."""
    free_cell = positions.free_cell[crystal.spacegroup, 1:]
    return bool(positions.free[crystal.spacegroup, crystal.letters].any() or free_cell.any())


def _groups(crystals: Sequence[CrystalTokens], positions: WyckoffTables) -> list[MeanGeometry]:
    """Form groups of similar geometries, the largest first; crystals without a similar one of another formula are left.

    The centre of a group is the crystal with most similar ones among those that are left.
    """
    formulas = [(crystal.elements, crystal.counts) for crystal in crystals]
    similar = _similar(crystals, positions)
    left = np.ones(len(crystals), dtype=bool)
    found: list[MeanGeometry] = []
    while True:
        sizes = [
            len({formulas[j] for j in np.flatnonzero(similar[i] & left).tolist()}) if left[i] else 0
            for i in range(len(crystals))
        ]
        centre = int(np.argmax(sizes))
        if sizes[centre] < _FORMULAS:
            return found
        own = np.flatnonzero(similar[centre] & left).tolist()
        found.append(_mean([crystals[j] for j in own], crystals[centre], sizes[centre]))
        left[own] = False


def _similar(crystals: Sequence[CrystalTokens], positions: WyckoffTables) -> NDArray[np.bool_]:
    """Return which pairs of crystals of one prototype have similar geometries, shape ``(n, n)``."""
    first = crystals[0]
    free = positions.free[first.spacegroup, first.letters] > 0
    points = np.array([crystal.coordinates[free] for crystal in crystals])
    cells = np.array([crystal.cell[1:] for crystal in crystals])
    close = np.zeros((len(crystals), len(crystals)), dtype=bool)
    for row in range(len(crystals)):  # all at once would need gigabytes for perovskites
        apart = points - points[row]
        apart -= np.rint(apart)
        near = np.sqrt((apart**2).mean(axis=1)) <= _COORDINATES if free.any() else True
        close[row] = near & (np.abs(cells - cells[row]).max(axis=1) <= _CELL)
    return close


def _alike(first: MeanGeometry, second: MeanGeometry) -> bool:
    apart = first.coordinates - second.coordinates
    apart -= np.rint(apart)
    free = (first.coordinates != 0) | (second.coordinates != 0)
    near = not free.any() or float(np.sqrt((apart[free] ** 2).mean())) <= _COORDINATES
    return near and float(np.abs(first.cell - second.cell)[1:].max()) <= _CELL


def _mean(members: Sequence[CrystalTokens], centre: CrystalTokens, formulas: int) -> MeanGeometry:
    apart = np.array([crystal.coordinates - centre.coordinates for crystal in members])
    apart -= np.rint(apart)
    coordinates = (centre.coordinates + apart.mean(axis=0)) % 1.0
    return MeanGeometry(formulas, np.mean([crystal.cell for crystal in members], axis=0), coordinates)
