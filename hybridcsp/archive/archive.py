"""The archive of a search: its events in order, and the minima that follow from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from ase import Atoms

from hybridcsp.archive import conversion, follow_up_conversion
from hybridcsp.archive.basins import Basin
from hybridcsp.archive.database import DATABASE
from hybridcsp.archive.event_log import EventLog, Transaction
from hybridcsp.archive.events import (
    FORMAT,
    CandidateFailed,
    CandidateProposed,
    CandidateRejected,
    CandidateRelaxed,
    Event,
    FollowUpEvent,
    FollowUpFailed,
    FollowUpRelaxed,
    ModelUpdated,
    OutcomeEvent,
    RunStopped,
    SessionOpened,
    SourceCalled,
)
from hybridcsp.archive.final_ranking import FinalRanking
from hybridcsp.archive.history import ModelUpdate, RelaxationEnd, SourceCall
from hybridcsp.archive.holes import HoleTest, suspects_with
from hybridcsp.archive.placement import FollowUpMatcher, MinimaMatcher
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.archive.state import SearchState
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import ADDED, REFINE, Candidate, Failed, FollowUpOutcome, Outcome, Rejected, Relaxed
from hybridcsp.errors import ArchiveError, message_of
from hybridcsp.similarity import Descriptors
from hybridcsp.similarity.families import is_similar
from hybridcsp.structure.symmetry import spacegroups
from hybridcsp.utils.interrupts import uninterrupted
from hybridcsp.utils.resources import garbage_collection_paused

_NO_DESCRIPTORS: Mapping[int, Descriptors] = {}


class Archive:
    """The record of one search, in its run directory.

    Parameters
    ----------
    directory
        Run directory; ``search.db`` in it is an ASE database.
    write
        Whether to create the archive or append to it. Only one process at a time can.

    Attributes
    ----------
    directory
        Absolute path of the run directory.
    state
        State of the search: minima, tallies and costs, without structures.

    Raises
    ------
    ArchiveError, LockedError
        If the directory cannot be used; see :class:`~hybridcsp.archive.database.Database`.
    """

    def __init__(self, directory: Path | str, *, write: bool = False) -> None:
        self._log = EventLog(Path(directory), write=write)
        self.directory = self._log.directory
        self.state = SearchState()
        self._matcher = MinimaMatcher(self.state, self.structure)
        self._follow_up_matcher = FollowUpMatcher(
            self.state.follow_ups, lambda minimum: self.structure_of(minimum.best)
        )
        self._holes = HoleTest(self.structure)
        self._minima: dict[int, Minimum] = {}  # a cache
        self._last_ends: dict[int, Relaxed] = {}  # a cache: by minimum, its last follow-up relaxation
        self._unrecorded: ArchiveError | None = None  # after a transaction that failed
        try:
            with self.reading(), garbage_collection_paused():
                for event in self._log.read():
                    self.state.apply(event)
                self._log.check_structures()
                if write:
                    self._log.mark_best(basin.best.row for basin in self.state.basins.values())
        except BaseException:  # an interrupted opening must not keep the lock
            self._log.close()
            raise

    def reading(self) -> AbstractContextManager[None]:
        """Return a block in which errors that a damaged archive causes become an ``ArchiveError``."""
        return self._log.reading()

    @property
    def problem(self) -> Problem:
        """Problem of the last session.

        Raises
        ------
        ArchiveError
            If no session was opened, or its settings are damaged.
        """
        with self.reading():
            if not self.state.settings:
                raise ArchiveError(f"{self.directory} holds no search that was started: its {DATABASE} has no events")
            return Problem(**self.state.settings[-1]["problem"])

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
            return [self._minimum(basin) for basin in self.state.ranked()[:n]]

    def stream_minima(self, n: int | None = None) -> Iterator[Minimum]:
        """Yield the minima that :meth:`minima` returns, without holding them all in memory."""
        with self.reading():
            for basin in self.state.ranked()[:n]:
                yield self._read_minimum(basin)

    def preferred_minima(self, n: int | None = None) -> list[PreferredMinimum]:
        """Return the ``n`` (default: all) minima that the search prefers as parents and lessons, best first.

        Their order is that of :meth:`SearchState.preferred <hybridcsp.archive.state.SearchState.preferred>`: by height,
        as the last follow-up calculator sees it if it has relaxed a minimum. Without follow-ups it is that of
        :meth:`minima`.
        """
        with self.reading():
            return [
                PreferredMinimum(minimum=self._minimum(basin), height=height, end=self._last_end(basin))
                for basin, height in self.state.preferred()[:n]
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
        state = SearchState()
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
            for event in self._log.read():
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

    def to_refine(self, n: int, window: float) -> list[Relaxed]:
        """Return the relaxations that a final refinement still has to improve; see :meth:`SearchState.to_refine`."""
        with self.reading():
            return [self._relaxed(event) for event in self.state.to_refine(n, window)]

    # Writing: every event is applied to the state and written to the log, or nothing can be written any more

    def open_session(self, settings: Mapping[str, Any]) -> None:
        """Record the settings that the events which follow are made with."""
        self._record(SessionOpened(format=FORMAT, settings=settings))

    def record_follow_up_labels(self, labels: Sequence[str]) -> None:
        """Record that the follow-up calculators of the session have these labels, and not those of earlier results."""
        last = self.state.settings[-1]
        self.open_session({**last, "then": {**last["then"], "labels": list(labels)}})

    def record_stop(self, reason: str) -> None:
        """Record the reason for which a run ended."""
        self._record(RunStopped(reason=reason))

    def record_model_update(self, update: ModelUpdate) -> ModelUpdate:
        """Record that a source samples from other versions of its model; return the update with its number."""
        return replace(update, sequence=self._record(conversion.update_event(update)).sequence)

    @uninterrupted()
    def record_call(self, called: SourceCall, rejected: Sequence[Rejected] = ()) -> list[Outcome]:
        """Record a call of a source, its candidates, and those of them that were rejected at once.

        Returns
        -------
        list of Outcome
            The rejections with the numbers of their events.
        """
        with self._transaction() as transaction:
            self.state.apply(transaction.add(conversion.call_event(called)))
            for candidate in called.candidates:
                event = conversion.candidate_event(candidate, called.owner)
                self.state.apply(transaction.add(event, conversion.candidate_row(candidate)))
            return [self._record_outcome(transaction, outcome) for outcome in rejected]

    @uninterrupted()
    def record_outcomes(
        self,
        outcomes: Sequence[Outcome],
        descriptors: Mapping[int, Descriptors] = _NO_DESCRIPTORS,
        *,
        find_symmetry: bool = True,
    ) -> list[Outcome]:
        """Record outcomes that arrived together; return them with the numbers of their events.

        Parameters
        ----------
        outcomes
            Outcomes in the order of their arrival.
        descriptors
            Descriptors that were computed in advance, by candidate.
        find_symmetry
            Whether to determine and record space groups, which takes milliseconds for each structure. Otherwise those
            of a minimum are determined when they are first needed.
        """
        if not outcomes:
            return []
        self._holes.begin_transaction()
        # One after the other, because two that arrive together may be the same new minimum; then one transaction.
        with self._transaction() as transaction:
            return [
                self._record_outcome(
                    transaction, outcome, descriptors.get(outcome.candidate.id), find_symmetry=find_symmetry
                )
                for outcome in outcomes
            ]

    @uninterrupted()
    def record_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> list[FollowUpOutcome]:
        """Record follow-up relaxations that ended; return them with the numbers of their events and their minima."""
        if not outcomes:
            return []
        with self._transaction() as transaction:
            return [self._record_follow_up(transaction, one) for one in outcomes]

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """Write events that the block applies to the state.

        If that fails, the state is ahead of the log, and nothing can be written until the directory is opened again.
        """
        if self._unrecorded is not None:
            raise self._unrecorded
        entered = False
        try:
            with self._log.transaction() as transaction:
                entered = True
                yield transaction
        except BaseException as error:
            if entered:
                self._unrecorded = error if isinstance(error, ArchiveError) else self._not_recorded(error)
            raise

    def _not_recorded(self, error: BaseException) -> ArchiveError:
        return ArchiveError(
            f"events of {self.directory} could not be recorded ({message_of(error)}); nothing else is written, because "
            f"later events would build on them: open the directory again to continue"
        )

    @uninterrupted()
    def _record(self, event: Event) -> Event:
        with self._transaction() as transaction:
            event = transaction.add(event)
            self.state.apply(event)
        return event

    def _record_outcome(
        self,
        transaction: Transaction,
        outcome: Outcome,
        descriptors: Descriptors | None = None,
        *,
        find_symmetry: bool = True,
    ) -> Outcome:
        event: OutcomeEvent
        match outcome:
            case Relaxed():
                return self._record_relaxed(transaction, outcome, descriptors, find_symmetry=find_symmetry)
            case Failed():
                event = conversion.failed_event(outcome, self._number(outcome), self._force_calls(outcome))
                event = transaction.add(event, conversion.failed_row(outcome))
            case Rejected():
                event = transaction.add(conversion.rejected_event(outcome), conversion.rejected_row(outcome))
        self.state.apply(event)
        return replace(outcome, sequence=event.sequence)

    def _record_relaxed(
        self, transaction: Transaction, outcome: Relaxed, descriptors: Descriptors | None, *, find_symmetry: bool
    ) -> Relaxed:
        placement = self._matcher.place(outcome, descriptors)
        groups = spacegroups(outcome.atoms) if find_symmetry else None
        number, force_calls = self._number(outcome), self._force_calls(outcome)
        event = conversion.relaxed_event(outcome, number, force_calls, groups, placement)
        if event.minimum is not None:
            suspects = suspects_with(self._holes, self.state, event, outcome.atoms)
            changed = suspects if suspects != self.state.suspects else None
            event = replace(event, suspect=event.minimum in suspects, suspects=changed)
        event = transaction.add(event, conversion.relaxed_row(outcome, event))
        self._holes.note(event, outcome.atoms)
        basins = self.state.basins
        touched = [basins[id_] for id_ in (event.minimum, event.absorbed) if id_ in basins]
        before = [basin.best for basin in touched]
        self.state.apply(event)
        if event.minimum is not None:
            best = basins[event.minimum].best
            for other in before:
                if other is not best and other.row is not None:
                    transaction.unmark_best(other.row)
            if best is event and event.row is not None:
                transaction.mark_best(event.row)
        return replace(
            outcome,
            sequence=event.sequence,
            minimum=event.minimum,
            is_new_minimum=event.is_new_minimum,
            niche=event.niche,
            suspect=event.suspect,
            captured_by=event.captured_by,
        )

    def _record_follow_up(self, transaction: Transaction, one: FollowUpOutcome) -> FollowUpOutcome:
        event: FollowUpEvent
        ended, relaxations = one.outcome, self.state.relaxations
        if isinstance(ended, Failed):
            failed = follow_up_conversion.failed_event(one, ended, relaxations)
            event = transaction.add(failed, follow_up_conversion.row_of_failure(failed, ended))
            self.state.apply(event)
            return replace(one, outcome=replace(ended, sequence=event.sequence))
        basin = self.state.basins[self.state.follow_ups.present(one.of)]
        placement = self._follow_up_matcher.place(one.spec, ended)
        relaxed = follow_up_conversion.relaxed_event(
            one,
            ended,
            relaxations,
            spacegroups(ended.atoms),
            placement,
            same_structure=is_similar(self.structure(basin), ended.atoms),
        )
        event = transaction.add(relaxed, follow_up_conversion.relaxed_row(relaxed, ended))
        self.state.apply(event)
        placed = replace(ended, sequence=event.sequence, minimum=event.minimum, is_new_minimum=event.is_new_minimum)
        return replace(one, calculator=event.calculator, outcome=placed)

    def _number(self, outcome: Relaxed | Failed) -> int | None:
        counted = outcome.level != REFINE and outcome.candidate.source != ADDED
        return self.state.relaxations + 1 if counted else None

    def _force_calls(self, outcome: Relaxed | Failed) -> int:
        return self.state.cost.force_calls + outcome.cost.force_calls

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


def is_begun(directory: Path | str) -> bool:
    """Return whether a directory holds a search or an import that has begun, and not only an empty database.

    Raises
    ------
    ArchiveError
        If there is a database that cannot be read.
    """
    if not os.path.lexists(Path(directory) / DATABASE):
        return False
    with Archive(directory) as archive:
        return bool(archive.state.settings)
