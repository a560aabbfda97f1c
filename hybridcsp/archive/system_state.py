"""The state of a search in a chemical system: one state for each composition, and their convex hull."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from hybridcsp.archive.basins import Basin
from hybridcsp.archive.events import (
    CandidateFailed,
    CandidateProposed,
    CandidateRejected,
    CandidateRelaxed,
    Event,
    ModelUpdated,
    RunStopped,
    SessionOpened,
    SourceCalled,
)
from hybridcsp.archive.follow_up_events import FollowUpFailed, FollowUpRelaxed
from hybridcsp.archive.history import Improvement
from hybridcsp.archive.state import SearchState
from hybridcsp.core.hull import Hull
from hybridcsp.core.records import REFERENCE, REFINE
from hybridcsp.core.system import System
from hybridcsp.errors import ArchiveError

#: Decimals to which heights above the hull are rounded, in eV/atom: differences of energies are not more precise.
DECIMALS = 8


class SystemState(SearchState):
    """The state of a search in a chemical system.

    Every event is applied to this state, which counts everything, and to that of its composition, which is the state of
    an ordinary search. Minima are ranked by their heights above the convex hull of the minima of all compositions. The
    hull consists of minima of the calculator in use without suspects. Until each element has a minimum there is no
    hull, and heights are those above the lowest minimum of the same composition.

    Parameters
    ----------
    system
        The system.

    Attributes
    ----------
    system
        The system.
    parts
        States by composition, of those that have been searched or have a known phase.
    hull
        Convex hull of the enthalpies of the calculator in use.
    decreases
        By how much each relaxation lowered the best of its composition in eV/atom, times the number of relaxations that
        had ended there with it; without the first minimum of each.
    references
        Ids of the minima of known phases, which the user supplied.
    """

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system
        self.parts: dict[str, SearchState] = {}
        self.hull = Hull(system.elements)
        self.references: set[int] = set()
        self.decreases: list[float] = []
        self._formulas: dict[int, str] = {}  # of candidates
        self._lowest: dict[str, float] = {}  # enthalpies per atom (eV) in the hull, by composition
        self._formula: str | None = None  # composition of the event that is being applied

    # Compositions

    def formula_of(self, candidate: int) -> str:
        """Return the composition of a candidate."""
        return self._formulas[candidate]

    def part(self, formula: str) -> SearchState:
        """Return the state of a composition; an empty one if nothing has been done about it.

        Raises
        ------
        ArchiveError
            If the composition does not belong to the search.
        """
        if formula not in self.system.compositions and formula not in self.parts:
            listed = ", ".join(self.system.compositions)
            raise ArchiveError(f"{formula} is not a composition of this search, which has {listed}")
        return self.parts.get(formula) or self._new_part()

    def _new_part(self) -> SearchState:
        part = SearchState()
        part.settings, part.calculator = list(self.settings), self.calculator
        part.calculator_since, part.goals = self.calculator_since, self.goals
        return part

    # Minima

    def height(self, basin: Basin) -> float:
        """Return the height of a basin of the calculator in use above the convex hull in eV/atom."""
        formula = self._formulas[basin.found_by]
        return round(basin.enthalpy_per_atom - self._reference(formula), DECIMALS) + 0.0  # without a negative zero

    def _reference(self, formula: str) -> float:
        """Return the enthalpy per atom (eV) from which heights at a composition count."""
        energy = self.hull.energy(formula)
        if energy is not None:
            return energy
        return next(basin.enthalpy_per_atom for basin in self.parts[formula].ranked() if not basin.suspect)

    def ranked(self, n: int | None = None) -> list[Basin]:
        """Return the ``n`` lowest basins of the calculator in use, or all, by ascending height above the hull."""
        return list(islice(self._by_height(n), n))

    def lowest_first(self) -> Iterator[Basin]:
        """Yield the basins that :meth:`ranked` returns."""
        return self._by_height()

    def _by_height(self, n: int | None = None) -> Iterator[Basin]:
        """Yield the basins by height; suspect ones last. At most ``n`` of each composition."""
        lists, suspects = [], []
        for formula, part in self.parts.items():
            found = part.ranked(None if n is None else n + len(part.suspects))
            certain = [basin for basin in found if not basin.suspect]
            suspects += [basin for basin in found if basin.suspect]
            if certain:
                reference = self._reference(formula)
                lists.append([(basin.enthalpy_per_atom - reference, basin.id, basin) for basin in certain])
        yield from (basin for _, _, basin in heapq.merge(*lists, key=lambda one: one[:2]))
        yield from suspects

    def best(self) -> Basin | None:
        """Return the basin of lowest height above the hull, or ``None`` if there is no minimum."""
        return next(iter(self.ranked(1)), None)

    def lowest(self) -> float | None:
        """Return ``None``: enthalpies of different compositions are not compared."""
        return None

    def heights(self, n: int | None = None) -> list[tuple[Basin, float]]:
        """Return the ``n`` lowest basins, or all, with their heights above the hull, lowest first, without suspects."""
        return [(basin, self.height(basin)) for basin in self.ranked(n) if not basin.suspect]

    @property
    def number_of_niches(self) -> int:
        """Number of niches of the minima of the calculator in use."""
        return sum(part.number_of_niches for part in self.parts.values())

    @property
    def suspects(self) -> tuple[int, ...]:
        """Ids of the minima of the calculator in use that are probably holes of the potential, ascending."""
        return tuple(sorted(id_ for part in self.parts.values() for id_ in part.suspects))

    def to_refine(self, n: int, window: float) -> list[CandidateRelaxed]:
        """Return the relaxations that a final refinement still has to improve, by ascending height above the hull."""
        ends = [basin.best for basin in self.ranked(n) if not basin.suspect and self.height(basin) <= window]
        return [event for event in ends if event.candidate not in self.refined]

    # Events

    def apply(self, event: Event) -> None:
        """Update the state, and that of the composition that the event belongs to, by one event.

        Raises
        ------
        ArchiveError, LookupError, TypeError, ValueError
            As for :meth:`SearchState.apply`.
        """
        if isinstance(event, SourceCalled):
            formula = event.formula
            if formula is None:
                raise ValueError("a source was called without a composition")
            self._formulas |= dict.fromkeys(event.candidates, formula)
            if formula not in self.parts:
                self.parts[formula] = self._new_part()
        self._formula = formula = self._composition_of(event)
        super().apply(event)
        for part in self.parts.values() if formula is None else (self.parts[formula],):
            part.apply(event)
        if isinstance(event, CandidateRelaxed) and event.minimum is not None:
            self._note_reference(event)
            self._update_hull(event)

    def _composition_of(self, event: Event) -> str | None:
        """Return the composition of an event; ``None`` if it belongs to all."""
        match event:
            case SourceCalled() | ModelUpdated():
                return event.formula
            case CandidateProposed() | CandidateRelaxed() | CandidateFailed() | CandidateRejected():
                return self._formulas[event.candidate]
            case FollowUpRelaxed() | FollowUpFailed():
                return self._formulas[event.candidate]
            case SessionOpened() | RunStopped():
                return None

    def _use(self, calculator: str) -> None:
        if calculator != self.calculator:
            self.hull, self._lowest, self.decreases = Hull(self.system.elements), {}, []
            for part in self.parts.values():
                part._use(calculator)  # states of the same search
        super()._use(calculator)

    def _mark_suspects(self, suspects: set[int]) -> None:
        """Note the suspects of the composition of the present event; those of the others stay."""
        for basin in self.basins.values():
            if self._formulas[basin.found_by] == self._formula:
                basin.suspect = basin.id in suspects

    def _note_reference(self, event: CandidateRelaxed) -> None:
        """Note a minimum of a known phase, also if it turned out to be one that was found before."""
        assert event.minimum is not None
        if event.absorbed in self.references:
            self.references.remove(event.absorbed)
            self.references.add(event.minimum)
        if event.source == REFERENCE:
            self.references.add(event.minimum)

    def _update_hull(self, event: CandidateRelaxed) -> None:
        """Give the hull the lowest minimum of the composition of a relaxation, and note whether that lowered it."""
        formula = self._formulas[event.candidate]
        part = self.parts[formula]
        few: Sequence[Basin] = part.ranked(1 + len(part.suspects))
        lowest = next((basin.enthalpy_per_atom for basin in few if not basin.suspect), None)
        if lowest == self._lowest.get(formula):
            return
        if lowest is None:
            del self._lowest[formula]
            self.hull.remove(formula)
        else:
            before = self._lowest.get(formula)
            if before is not None and lowest < before and event.level != REFINE and event.source != REFERENCE:
                ended = sum(tally.relaxed + tally.failed.total() for tally in part.tallies.values())
                self.decreases.append(ended * (before - lowest))
            self._lowest[formula] = lowest
            self.hull.put(formula, lowest)
        if not self.hull.is_complete:
            return
        known = self.improvements
        total = sum(self._reference(composition) for composition in self.system.compositions)
        if not known or total < known[-1].enthalpy_per_atom:
            made_by = (event.source, event.operator)
            known.append(Improvement(self.relaxations, self.cost.force_calls, total, *made_by))


def new_state(problem: Mapping[str, Any] | System | None) -> SearchState:
    """Return the state of a search in which nothing has happened.

    Parameters
    ----------
    problem
        The system that is searched, or the description of the problem in the settings of the search.
    """
    if isinstance(problem, Mapping) and "elements" in problem:
        problem = System(**problem)
    return SystemState(problem) if isinstance(problem, System) else SearchState()
