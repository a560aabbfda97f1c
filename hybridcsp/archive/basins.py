"""The basins of a search, and their order by enthalpy."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hybridcsp.archive.events import CandidateRelaxed


@dataclass(kw_only=True)
class Basin:
    """A minimum, with the event of its best relaxation in place of a structure.

    Attributes
    ----------
    id
        Number of the minimum from 1, in the order of discovery.
    found_by
        Id of the candidate that reached it first.
    first_relaxation
        Number of the relaxation that reached it first.
    first_force_calls
        Force calls of the whole search up to and including that relaxation.
    best
        Event of its relaxation of lowest enthalpy per atom.
    multiplicity
        Number of relaxations that ended in it.
    suspect
        Whether it is probably a hole of the potential and not a crystal; see :mod:`hybridcsp.archive.holes`.
    """

    id: int
    found_by: int
    first_relaxation: int
    first_force_calls: int
    best: CandidateRelaxed
    multiplicity: int = 1
    suspect: bool = False

    @property
    def niche(self) -> int:
        """Id of the first minimum of its niche; its own id if no niche was recorded."""
        return self.id if self.best.niche is None else self.best.niche

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy of the best relaxation in eV/atom."""
        return float(self.best.enthalpy_per_atom)

    @property
    def calculator(self) -> str:
        """Label of the calculator."""
        return str(self.best.calculator)

    @property
    def spacegroup(self) -> int | None:
        """Space group number of the best relaxation at 0.01 Å; ``None`` if it was not determined."""
        return self.best.spacegroup


class Ranked(Protocol):
    """A minimum with its number and its enthalpy."""

    @property
    def id(self) -> int:
        """Number of the minimum."""

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy in eV/atom."""


_R = TypeVar("_R", bound=Ranked)


class Ranking(Generic[_R]):
    """The minima of one calculator in the order of their enthalpies.

    The lowest is known at any time. The whole order is determined only when it is needed, so that reading the events of
    a long search takes time in proportion to their number.
    """

    def __init__(self) -> None:
        self._basins: dict[int, _R] = {}
        self._heap: list[tuple[float, int]] = []  # entries of basins that have changed or gone are left in it
        self._sorted: list[_R] = []
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._basins)

    def put(self, basin: _R) -> None:
        """Add a basin, or note that its enthalpy has changed."""
        self._basins[basin.id] = basin
        heapq.heappush(self._heap, (basin.enthalpy_per_atom, basin.id))
        self._is_sorted = False

    def remove(self, basin: _R) -> None:
        """Remove a basin."""
        del self._basins[basin.id]
        self._is_sorted = False

    def in_order_of_discovery(self) -> list[_R]:
        """Return the basins in the order in which they were added."""
        return list(self._basins.values())

    def best(self) -> _R | None:
        """Return the basin of lowest enthalpy per atom, or ``None`` if there is no basin."""
        while self._heap:
            enthalpy, id_ = self._heap[0]
            basin = self._basins.get(id_)
            if basin is not None and basin.enthalpy_per_atom == enthalpy:
                return basin
            heapq.heappop(self._heap)
        return None

    def sorted(self) -> list[_R]:
        """Return the basins by ascending enthalpy per atom; of equal ones the older comes first."""
        if not self._is_sorted:
            known = [basin for basin in self._sorted if self._basins.get(basin.id) is basin]
            have = {basin.id for basin in known}
            known += [basin for basin in self._basins.values() if basin.id not in have]
            self._sorted = sorted(known, key=lambda basin: (basin.enthalpy_per_atom, basin.id))
            self._is_sorted = True
        return list(self._sorted)
