"""One composition in the archive of a search of a chemical system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hybridcsp.archive.archive import NO_DESCRIPTORS, Archive
from hybridcsp.archive.events import Event, ModelUpdated, RunStopped, SessionOpened, SourceCalled
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Rejected
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate
from hybridcsp.similarity import Descriptors


class ArchivePart(Archive):
    """One composition in the archive of a search of a chemical system: its candidates, minima and history.

    It reads what belongs to the composition, and records in the archive of the whole search. Numbers of relaxations and
    force calls, and ids of candidates and minima, are those of the whole search.

    Parameters
    ----------
    whole
        Archive of the whole search.
    formula
        The composition.

    Attributes
    ----------
    whole
        Archive of the whole search.
    """

    def __init__(self, whole: Archive, formula: str) -> None:
        # Not that of the base class, which would open and read the log once more.
        assert isinstance(whole.state, SystemState)
        self.whole, self._formula = whole, formula
        self.directory = whole.directory / formula  # of files that sources keep
        self._log = whole._log  # a part of the same archive
        self._minima, self._last_ends = {}, {}

    @property
    def state(self) -> SearchState:  # type: ignore[override]  # it begins with the first call of a source
        """State of the composition."""
        assert isinstance(self.whole.state, SystemState)
        return self.whole.state.part(self.formula)

    @property
    def formula(self) -> str:
        """The composition."""
        return self._formula

    @property
    def problem(self) -> Problem:
        """Problem of the composition."""
        system = self.whole.system
        assert system is not None
        is_searched = self.formula in system.compositions
        return system.problem(self.formula) if is_searched else system.problem_of_known_phases(self.formula)

    @property
    def candidates(self) -> int:
        """Number of candidates of the whole search; their ids run from 1 to this number."""
        return self.whole.candidates

    def close(self) -> None:
        """Do nothing: the archive of the whole search is closed by itself."""

    def record_call(self, called: SourceCall, rejected: Sequence[Rejected] = ()) -> list[Outcome]:
        """Record a call of a source for this composition; see :meth:`Archive.record_call`."""
        return self.whole.record_call(replace(called, formula=self.formula), rejected)

    def record_outcomes(
        self,
        outcomes: Sequence[Outcome],
        descriptors: Mapping[int, Descriptors] = NO_DESCRIPTORS,
        *,
        find_symmetry: bool = True,
    ) -> list[Outcome]:
        """Record outcomes of candidates of this composition; see :meth:`Archive.record_outcomes`."""
        return self.whole.record_outcomes(outcomes, descriptors, find_symmetry=find_symmetry)

    def record_model_update(self, update: ModelUpdate) -> ModelUpdate:
        """Record a change of the model of a source of this composition; see :meth:`Archive.record_model_update`."""
        return self.whole.record_model_update(replace(update, formula=self.formula))

    def record_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> list[FollowUpOutcome]:
        """Record follow-up relaxations of minima of this composition; see :meth:`Archive.record_follow_ups`."""
        return self.whole.record_follow_ups(outcomes)

    def _events(self) -> Iterator[Event]:
        return (event for event in self._log.read() if self._belongs(event))

    def _belongs(self, event: Event) -> bool:
        match event:
            case SourceCalled() | ModelUpdated():
                return event.formula == self.formula
            case SessionOpened() | RunStopped():
                return True
        return event.candidate in self.state.candidates

    def _candidate(self, id_: int) -> Candidate:
        return self.whole.candidate(id_)  # parents may be of other compositions
