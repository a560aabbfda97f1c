"""Reading of the archive of a search: its candidates, minima and history, with their structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from typing import Self

from ase import Atoms

from hybridcsp.archive import conversion, follow_up_conversion
from hybridcsp.archive.basins import Basin
from hybridcsp.archive.database import DATABASE
from hybridcsp.archive.event_log import EventLog
from hybridcsp.archive.events import (
    CandidateFailed,
    CandidateProposed,
    CandidateRejected,
    CandidateRelaxed,
    Event,
    FollowUpEvent,
    ModelUpdated,
    OutcomeEvent,
    SessionOpened,
    SourceCalled,
)
from hybridcsp.archive.final_ranking import FinalRanking
from hybridcsp.archive.follow_up_events import FollowUpFailed, FollowUpRelaxed
from hybridcsp.archive.history import ModelUpdate, RelaxationEnd, SourceCall
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState, new_state
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate
from hybridcsp.core.system import System
from hybridcsp.errors import ArchiveError
from hybridcsp.utils.resources import garbage_collection_paused


class ArchiveReader:
    """Read what the archive of one search holds.

    Parameters
    ----------
    log
        The event log of the run directory.
    system
        The chemical system of a new search; ``None`` for a search of one formula. The log determines it otherwise.

    Attributes
    ----------
    directory
        Absolute path of the run directory.
    state
        State of the search: minima, tallies and costs, without structures.

    Raises
    ------
    ArchiveError
        If the log cannot be read.
    """

    def __init__(self, log: EventLog, system: System | None = None) -> None:
        self._log = log
        self.directory = log.directory
        self.state = new_state(system)
        self._minima: dict[int, Minimum] = {}  # a cache
        self._last_ends: dict[int, Relaxed] = {}  # a cache: by minimum, its last follow-up relaxation
        try:
            with self.reading(), garbage_collection_paused():
                for event in self._log.read():
                    if event.sequence == 1 and isinstance(event, SessionOpened):
                        self.state = new_state(event.settings.get("problem"))
                    self.state.apply(event)
                self._log.check_structures()
        except BaseException:  # an interrupted opening must not keep the lock
            self._log.close()
            raise

    def reading(self) -> AbstractContextManager[None]:
        """Return a block in which errors that a damaged archive causes become an ``ArchiveError``."""
        return self._log.reading()

    @property
    def problem(self) -> Problem:
        """Problem of the last session, which is that of one formula.

        Raises
        ------
        ArchiveError
            If no session was opened, its settings are damaged, or the search is one of a chemical system.
        """
        if self.system is not None:
            raise ArchiveError(
                f"{self.directory} holds a search of the chemical system {self.system.formula}, and this needs one of "
                f"a single formula"
            )
        with self.reading():
            if not self.state.settings:
                raise ArchiveError(f"{self.directory} holds no search that was started: its {DATABASE} has no events")
            return Problem(**self.state.settings[-1]["problem"])

    @property
    def formula(self) -> str:
        """Formula of the search, or its chemical system such as ``"V-O"``.

        Raises
        ------
        ArchiveError
            If no session was opened, or its settings are damaged.
        """
        return self.problem.formula if self.system is None else self.system.formula

    @property
    def system(self) -> System | None:
        """Chemical system of the search; ``None`` for a search of one formula."""
        return self.state.system if isinstance(self.state, SystemState) else None

    def of_candidate(self, id_: int) -> ArchiveReader:
        """Return the archive of the composition of a candidate; this archive in a search of one formula."""
        return self

    def close(self) -> None:
        """Release the run directory."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    @property
    def candidates(self) -> int:
        """Number of candidates; their ids run from 1 to this number."""
        return len(self.state.candidates)

    def minima(self, n: int | None = None) -> list[Minimum]:
        """Return the ``n`` (default: all) minima of lowest enthalpy per atom by the search's calculator, best first.

        Only minima of the calculator used last are compared. Follow-up relaxations are left out.
        """
        with self.reading():
            return [self._in_system(self._minimum(basin), basin) for basin in self.state.ranked(n)]

    def stream_minima(self, n: int | None = None) -> Iterator[Minimum]:
        """Yield the minima that :meth:`minima` returns, without holding them all in memory."""
        with self.reading():
            for basin in self.state.ranked(n):
                yield self._in_system(self._read_minimum(basin), basin)

    def minima_of(self, ids: Iterable[int]) -> list[Minimum]:
        """Return the minima with the given numbers, in their order, as the search's calculator sees them.

        Raises
        ------
        ArchiveError
            If there is no minimum of a number.
        """
        wanted = list(ids)
        for number in wanted:
            if number not in self.state.basins:
                raise ArchiveError(f"{self.directory} has no minimum {number!r}; its minima have other numbers")
        with self.reading():
            basins = [self.state.basins[number] for number in wanted]
            return [self._in_system(self._read_minimum(basin), basin) for basin in basins]

    def preferred_minima(self, n: int | None = None) -> list[PreferredMinimum]:
        """Return the ``n`` (default: all) minima that the search prefers as parents and lessons, best first.

        Their order is that of :meth:`SearchState.preferred <hybridcsp.archive.state.SearchState.preferred>`: by height,
        as the last follow-up calculator sees it if it has relaxed a minimum. Without follow-ups it is that of
        :meth:`minima`.
        """
        with self.reading():
            return [
                PreferredMinimum(minimum=self._minimum(basin), height=height, end=self._last_end(basin))
                for basin, height in self.state.preferred(n)
            ]

    def final_minima(self, n: int | None = None) -> list[Minimum]:
        """Return the ``n`` (default: all) best minima by the ranking that counts, best first.

        Minima with a result of the last follow-up calculator come first, by its enthalpies; then those that only the
        follow-up calculator before it has relaxed, and so on; then the others by the search's own calculator. Without
        follow-ups it is the ranking of :meth:`minima`.
        """
        return list(self.stream_final_minima(n))

    def stream_final_minima(self, n: int | None = None) -> Iterator[Minimum]:
        """Yield the minima that :meth:`final_minima` returns, without holding them all in memory."""
        if not self.state.follow_ups:
            yield from self.stream_minima(n)
            return
        with self.reading():
            yield from islice(FinalRanking(self.state, self._read_minimum, self._relaxed), n)

    @property
    def number_of_minima(self) -> int:
        """Number of distinct minima of the calculator used last."""
        return self.state.number_of_minima

    @property
    def best_enthalpy_per_atom(self) -> float | None:
        """Enthalpy of the best minimum in eV/atom; ``None`` if there is no minimum."""
        return self.state.lowest()

    def state_until(self, relaxations: int) -> SearchState:
        """Return the state of the search after the given number of relaxations had ended."""
        state = new_state(self.system)
        for event in self._log.read():
            state.apply(event)
            if state.relaxations >= relaxations:
                break
        return state

    def pending(self, owner: str) -> list[Candidate]:
        """Return the candidates of an owner that have not ended, oldest first."""
        with self.reading():
            return [self._candidate(id_) for id_ in self.state.pending(owner)]

    def candidate(self, id_: int) -> Candidate:
        """Return one candidate.

        Raises
        ------
        ArchiveError
            If there is no candidate of that id.
        """
        self._check_candidate(id_)
        return self._candidate(id_)

    def status(self, id_: int) -> str:
        """Return ``"pending"``, ``"relaxed"``, ``"failed"`` or ``"rejected"``."""
        return self.state.status(id_)

    def owner(self, id_: int) -> str:
        """Return who relaxes a candidate; see :data:`~hybridcsp.core.records.WORKERS`.

        Raises
        ------
        ArchiveError
            If there is no candidate of that id.
        """
        self._check_candidate(id_)
        return self.state.candidates[id_].owner

    def ends(self) -> list[RelaxationEnd]:
        """Return the ends of all relaxations by the calculator used last, in the order of completion."""
        return [
            RelaxationEnd(
                relaxation=event.relaxation,
                source=event.source,
                enthalpy_per_atom=event.enthalpy_per_atom,
                converged=event.converged,
            )
            for event in self._log.read(CandidateRelaxed)
            if isinstance(event, CandidateRelaxed)
            and event.relaxation is not None
            and event.calculator == self.state.calculator
        ]

    def details(self) -> dict[int, str]:
        """Return the explanations of how candidates ended, by candidate, without empty ones."""
        return {
            event.candidate: event.detail
            for event in self._log.read(CandidateRelaxed, CandidateFailed, CandidateRejected)
            if isinstance(event, CandidateRelaxed | CandidateFailed | CandidateRejected) and event.detail
        }

    def structure(self, basin: Basin) -> Atoms:
        """Return the structure of the best relaxation of a basin."""
        return self.structure_of(basin.best)

    def structure_of(self, event: CandidateProposed | OutcomeEvent | FollowUpEvent) -> Atoms:
        """Return the structure of an event."""
        with self.reading():
            if event.row is None:
                raise LookupError(f"event {event.sequence} has no structure")
            return self._log.atoms(event.row)

    def history(self) -> Iterator[SourceCall | Outcome | FollowUpOutcome | ModelUpdate]:
        """Yield all calls of sources, outcomes, follow-ups and changes of models in order, with structures."""
        with self.reading():
            for event in self._events():
                match event:
                    case SourceCalled():
                        yield conversion.source_call(event, tuple(self._candidate(id_) for id_ in event.candidates))
                    case CandidateRelaxed() | CandidateFailed() | CandidateRejected():
                        yield conversion.outcome(event, self._candidate(event.candidate), self.structure_of(event))
                    case FollowUpRelaxed() | FollowUpFailed():
                        candidate, atoms = self._candidate(event.candidate), self.structure_of(event)
                        yield follow_up_conversion.outcome(event, candidate, atoms)
                    case ModelUpdated():
                        yield conversion.model_update(event)

    def _events(self) -> Iterator[Event]:
        """Yield the events of this search, or of this part of it."""
        return self._log.read()

    def to_refine(self, n: int, window: float) -> list[Relaxed]:
        """Return the relaxations that a final refinement still has to improve; see :meth:`SearchState.to_refine`."""
        with self.reading():
            return [self._relaxed(event) for event in self.state.to_refine(n, window)]

    # From events to records

    def _minimum(self, basin: Basin) -> Minimum:
        cached = self._minima.get(basin.id)
        if (
            cached is None
            or cached.best.sequence != basin.best.sequence
            or cached.multiplicity != basin.multiplicity
            or cached.found_by.id != basin.found_by
            or cached.suspect != basin.suspect
        ):
            cached = self._minima[basin.id] = self._read_minimum(basin)
        return cached

    def _in_system(self, minimum: Minimum, basin: Basin) -> Minimum:
        """Return a minimum with its present place in the chemical system; as it is in a search of one formula."""
        state = self.state
        if not isinstance(state, SystemState):
            return minimum
        return replace(
            minimum,
            composition=state.formula_of(basin.found_by),
            above_hull=state.height(basin) if state.hull.is_complete else None,
            is_known_phase=basin.id in state.references,
        )

    def _last_end(self, basin: Basin) -> Relaxed:
        """Return the last follow-up relaxation of a basin, or its best relaxation by the search if there is none."""
        last = self.state.follow_ups.last_result(basin.id)
        if last is None:
            return self._minimum(basin).best
        known = self._last_ends.get(basin.id)
        if known is None or known.sequence != last[1].sequence:
            known = self._last_ends[basin.id] = self._relaxed(last[1])
        return known

    def _read_minimum(self, basin: Basin) -> Minimum:
        strict, loose = basin.best.spacegroup, basin.best.spacegroup_loose
        best = self._relaxed(basin.best)
        return Minimum(
            id=basin.id,
            best=best,
            found_by=best.candidate if best.candidate.id == basin.found_by else self._candidate(basin.found_by),
            spacegroups=None if strict is None or loose is None else (strict, loose),
            multiplicity=basin.multiplicity,
            first_relaxation=basin.first_relaxation,
            first_force_calls=basin.first_force_calls,
            suspect=basin.suspect,
        )

    def _check_candidate(self, id_: int) -> None:
        if id_ not in self.state.candidates:
            raise ArchiveError(f"there is no candidate {id_}: candidates run from 1 to {self.candidates}")

    def _candidate(self, id_: int) -> Candidate:
        with self.reading():
            event = self.state.candidates[id_]
            return conversion.candidate(event, self.structure_of(event))

    def _relaxed(self, event: CandidateRelaxed | FollowUpRelaxed) -> Relaxed:
        return conversion.relaxed(event, self._candidate(event.candidate), self.structure_of(event))
