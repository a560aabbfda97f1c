"""The basins of a search, and their order by enthalpy."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
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
    def objectives(self) -> Mapping[str, float]:
        """Values of the objectives for the best relaxation, by name."""
        return self.best.objectives

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
    """The minima of one calculator in the order of their enthalpies, which is kept as minima are added."""

    def __init__(self) -> None:
        self._basins: dict[int, _R] = {}
        self._places: dict[int, tuple[float, int]] = {}  # enthalpy and id of each basin, as they are in the order
        self._order: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._basins)

    def __iter__(self) -> Iterator[_R]:
        """Yield the basins, lowest enthalpy per atom first; of equal ones the older comes first."""
        return (self._basins[id_] for _, id_ in self._order)

    def put(self, basin: _R) -> None:
        """Add a basin, or note that its enthalpy has changed."""
        self._leave_place(basin)
        self._basins[basin.id] = basin
        self._places[basin.id] = basin.enthalpy_per_atom, basin.id
        insort(self._order, self._places[basin.id])

    def remove(self, basin: _R) -> None:
        """Remove a basin."""
        self._leave_place(basin)
        del self._basins[basin.id]

    def _leave_place(self, basin: _R) -> None:
        place = self._places.pop(basin.id, None)
        if place is not None:
            del self._order[bisect_left(self._order, place)]

    def in_order_of_discovery(self) -> list[_R]:
        """Return the basins in the order in which they were added."""
        return list(self._basins.values())

    def newest_first(self) -> Iterator[_R]:
        """Yield the basins, the one that was added last first."""
        return reversed(self._basins.values())

    def best(self) -> _R | None:
        """Return the basin of lowest enthalpy per atom, or ``None`` if there is no basin."""
        return self._basins[self._order[0][1]] if self._order else None

    def sorted(self, n: int | None = None) -> list[_R]:
        """Return the ``n`` lowest basins, or all, by enthalpy per atom; of equal ones the older comes first."""
        return list(islice(self, n))
