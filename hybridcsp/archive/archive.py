"""The archive of a search: its events in order, and the minima that follow from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.archive import conversion, follow_up_conversion
from hybridcsp.archive.database import DATABASE
from hybridcsp.archive.event_log import EventLog, Transaction
from hybridcsp.archive.events import (
    FORMAT,
    Event,
    FollowUpEvent,
    OutcomeEvent,
    RunStopped,
    SessionOpened,
)
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.archive.holes import HoleTest, suspects_with
from hybridcsp.archive.placement import FollowUpMatcher, MinimaMatcher
from hybridcsp.archive.reader import ArchiveReader
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.outcomes import Failed, FollowUpOutcome, Outcome, Rejected, Relaxed
from hybridcsp.core.records import ADDED, REFINE
from hybridcsp.core.system import System
from hybridcsp.errors import ArchiveError, message_of
from hybridcsp.similarity import Descriptors
from hybridcsp.similarity.families import is_similar
from hybridcsp.structure.symmetry import spacegroups
from hybridcsp.utils.interrupts import uninterrupted

if TYPE_CHECKING:
    from hybridcsp.archive.part import ArchivePart

#: Descriptors that were computed in advance, where there are none.
NO_DESCRIPTORS: Mapping[int, Descriptors] = {}


class Archive(ArchiveReader):
    """The record of one search, in its run directory.

    Parameters
    ----------
    directory
        Run directory; ``search.db`` in it is an ASE database.
    write
        Whether to create the archive or append to it. Only one process at a time can.
    system
        The chemical system, if a search of one is to begin in an empty archive.

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

    def __init__(self, directory: Path | str, *, write: bool = False, system: System | None = None) -> None:
        super().__init__(EventLog(Path(directory), write=write), system)
        self._placing: dict[str | None, _Placing] = {}  # by composition; ``None`` in a search of one formula
        self._parts: dict[str, ArchivePart] = {}
        self._follow_up_matcher = FollowUpMatcher(
            self.state.follow_ups, lambda minimum: self.structure_of(minimum.best)
        )
        self._unrecorded: ArchiveError | None = None  # after a transaction that failed
        if write:
            try:
                with self.reading():
                    self._log.mark_best(basin.best.row for basin in self.state.basins.values())
            except BaseException:
                self._log.close()
                raise

    # Every event is applied to the state and written to the log, or nothing can be written any more

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

    def grouped(self) -> AbstractContextManager[None]:
        """Return a block whose events are kept together, at its end or after a second.

        Nothing may be recorded in it that cannot be repeated: calls of sources can, because a resumed search draws the
        same numbers for each, and outcomes cannot.
        """
        return self._log.grouped()

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
        descriptors: Mapping[int, Descriptors] = NO_DESCRIPTORS,
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
        for placing in self._placing.values():
            placing.holes.begin_transaction()
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
        placing = self._placing_of(outcome.candidate.id)
        placement = placing.matcher.place(outcome, descriptors)
        groups = spacegroups(outcome.atoms) if find_symmetry else None
        number, force_calls = self._number(outcome), self._force_calls(outcome)
        event = conversion.relaxed_event(outcome, number, force_calls, groups, placement)
        if event.minimum is not None:
            suspects = suspects_with(placing.holes, placing.state, event, outcome.atoms)
            changed = suspects if suspects != placing.state.suspects else None
            event = replace(event, suspect=event.minimum in suspects, suspects=changed)
        event = transaction.add(event, conversion.relaxed_row(outcome, event))
        placing.holes.note(event, outcome.atoms)
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
            suspects=event.suspects,
            captured_by=event.captured_by,
        )

    def _placing_of(self, candidate: int) -> _Placing:
        """Return the minima among which a relaxation of a candidate is placed: those of its composition."""
        formula, state = None, self.state
        if isinstance(state, SystemState):
            formula = state.formula_of(candidate)
            state = state.parts[formula]
        placing = self._placing.get(formula)
        if placing is None:
            matcher = MinimaMatcher(state, self.structure, lambda: self.state.last_minimum + 1)
            placing = self._placing[formula] = _Placing(state, matcher, HoleTest(self.structure))
        return placing

    # Compositions of a chemical system

    def part(self, formula: str) -> ArchivePart:
        """Return the archive of one composition of a chemical system.

        Raises
        ------
        ArchiveError
            If this is no search of a chemical system, or the composition does not belong to it.
        """
        if not isinstance(self.state, SystemState):
            raise ArchiveError(f"{self.directory} holds a search of one formula, which has no compositions")
        from hybridcsp.archive.part import ArchivePart  # a subclass of this class

        known = self._parts.get(formula)
        if known is None:
            known = self._parts[formula] = ArchivePart(self, formula)
        return known

    def of_candidate(self, id_: int) -> Archive:
        """Return the archive of the composition of a candidate; this archive in a search of one formula."""
        return self.part(self.state.formula_of(id_)) if isinstance(self.state, SystemState) else self

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


@dataclass(frozen=True, eq=False)
class _Placing:
    """The minima of one composition, and how relaxations are assigned to them and tested for holes."""

    state: SearchState
    matcher: MinimaMatcher
    holes: HoleTest


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
