"""The minima of a search in the orders in which they are needed, without structures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from hybridcsp.archive.basins import Basin, Ranking
from hybridcsp.archive.events import CandidateRelaxed
from hybridcsp.archive.follow_ups import FollowUps
from hybridcsp.archive.history import Improvement
from hybridcsp.objectives.goals import BestValue, Goals


class MinimaState:
    """The minima of a search: ranked, in the order of discovery, with heights, and as parents and lessons.

    Attributes
    ----------
    calculator
        Label of the calculator in use, which is the one used last: only its minima are compared.
    unconverged
        Events of relaxations that did not converge and are in no basin, by candidate.
    refined
        Ids of candidates on which a refinement was tried.
    basins
        Basins by id.
    follow_ups
        Follow-up relaxations with other calculators, which change nothing of the above.
    goals
        Objectives and conditions of the last session; none in an ordinary search.
    """

    def __init__(self) -> None:
        self.calculator: str | None = None
        self.unconverged: dict[int, CandidateRelaxed] = {}
        self.refined: set[int] = set()
        self.basins: dict[int, Basin] = {}
        self.follow_ups = FollowUps()
        self.goals = Goals()
        self._rankings: defaultdict[str, Ranking[Basin]] = defaultdict(Ranking)
        self._improvements: defaultdict[str, list[Improvement]] = defaultdict(list)
        self._suspects: defaultdict[str, set[int]] = defaultdict(set)  # by calculator
        self._ending: dict[int, int] = {}  # basins by the candidates of their best relaxations
        self._preferred: list[tuple[Basin, float]] | None = None  # ``None`` after a change
        self._best_values: tuple[BestValue, ...] | None = None  # as above

    def ranked(self, n: int | None = None) -> list[Basin]:
        """Return the ``n`` lowest basins of the calculator in use, or all, by ascending enthalpy per atom."""
        return self._comparable.sorted(n)

    def lowest_first(self) -> Iterator[Basin]:
        """Yield the basins that :meth:`ranked` returns; cheaper if only the lowest are needed."""
        return iter(self._comparable)

    def comparable(self) -> list[Basin]:
        """Return the basins of the calculator in use in the order of discovery; cheaper than :meth:`ranked`."""
        return self._comparable.in_order_of_discovery()

    def newest_first(self) -> Iterator[Basin]:
        """Yield the basins of the calculator in use, the one that was discovered last first."""
        return self._comparable.newest_first()

    def best(self) -> Basin | None:
        """Return the basin of lowest enthalpy per atom, or ``None`` if there is no minimum."""
        return self._comparable.best()

    def lowest(self) -> float | None:
        """Return the lowest enthalpy in eV/atom, or ``None`` if there is no minimum."""
        best = self.best()
        return None if best is None else best.enthalpy_per_atom

    @property
    def improvements(self) -> list[Improvement]:
        """Relaxations that lowered the lowest enthalpy of the calculator in use, oldest first."""
        return self._improvements[self.calculator or ""]

    @property
    def number_of_minima(self) -> int:
        """Number of basins of the calculator in use."""
        return len(self._comparable)

    @property
    def suspects(self) -> tuple[int, ...]:
        """Ids of the minima of the calculator in use that are probably holes of the potential, ascending."""
        return tuple(sorted(self._suspects[self.calculator or ""]))

    @property
    def number_of_niches(self) -> int:
        """Number of niches of the minima of the calculator in use."""
        return len({basin.niche for basin in self.comparable()})

    @property
    def _comparable(self) -> Ranking[Basin]:
        return self._rankings[self.calculator or ""]

    def preferred(self, n: int | None = None) -> list[tuple[Basin, float]]:
        """Return the ``n`` best basins, or all, that may become parents and lessons, with their heights (eV/atom).

        In a search with objectives or conditions, the basins that meet these, in the order and with the heights of
        :meth:`Goals.preferred <hybridcsp.objectives.goals.Goals.preferred>`; otherwise those of :meth:`heights`.
        """
        if not self.goals and n is not None:
            return self.heights(n)
        if self._preferred is None:  # sources need all of them several times for each proposal
            self._preferred = self.goals.preferred(self.heights()) if self.goals else self.heights()
        return self._preferred[:n]

    def best_values(self) -> tuple[BestValue, ...]:
        """Return the best value of each optimised objective among the basins that meet the condition."""
        if self._best_values is None:
            self._best_values = self.goals.best_values(self.heights()) if self.goals.optimised else ()
        return self._best_values

    def heights(self, n: int | None = None) -> list[tuple[Basin, float]]:
        """Return the ``n`` lowest basins of the calculator in use, or all, with their heights in eV/atom, no suspects.

        The height of a basin is that above the lowest minimum of the last follow-up calculator with a result for it, or
        above the lowest of the search if there is none. Heights of different calculators are compared, energies never.
        """
        real = (basin for basin in self.lowest_first() if not basin.suspect)
        if not self.follow_ups:
            ranked = list(islice(real, n))
            return [(basin, basin.enthalpy_per_atom - ranked[0].enthalpy_per_atom) for basin in ranked]
        ranked = list(real)
        heights = [(basin, self._height(basin, ranked[0])) for basin in ranked]
        return sorted(heights, key=lambda one: (one[1], one[0].enthalpy_per_atom, one[0].id))[:n]

    def _height(self, basin: Basin, lowest: Basin) -> float:
        if (last := self.follow_ups.last_result(basin.id)) is not None:
            level, result = last
            reference = level.lowest()
            assert reference is not None  # there is a result
            return float(result.enthalpy_per_atom - reference)
        return basin.enthalpy_per_atom - lowest.enthalpy_per_atom

    def basin_ending(self, candidate: int) -> Basin | None:
        """Return the basin whose best relaxation is that of a candidate, or ``None`` if there is none."""
        id_ = self._ending.get(candidate)
        return None if id_ is None else self.basins[id_]

    def to_refine(self, n: int, window: float) -> list[CandidateRelaxed]:
        """Return the relaxations that a final refinement still has to improve, best first.

        They are those of the ``n`` best minima and unconverged relaxations that lie within ``window`` (eV/atom) of the
        best minimum that is not suspect and on which no refinement was tried.
        """
        ranked = self.ranked() if n else []
        if not ranked:
            return []
        ends = [basin.best for basin in ranked]
        ends += [event for event in self.unconverged.values() if event.calculator == self.calculator]
        ends.sort(key=lambda event: event.enthalpy_per_atom)
        best = next((basin for basin in ranked if not basin.suspect), ranked[0])
        highest = best.enthalpy_per_atom + window
        return [
            event for event in ends[:n] if event.enthalpy_per_atom <= highest and event.candidate not in self.refined
        ]
