"""The state of a search, which follows from its events: candidates, minima, tallies and costs, without structures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from hybridcsp.archive.basins import Basin
from hybridcsp.archive.events import (
    FORMAT,
    CandidateFailed,
    CandidateProposed,
    CandidateRejected,
    CandidateRelaxed,
    Event,
    ModelUpdated,
    OutcomeEvent,
    RunStopped,
    SessionOpened,
    SourceCalled,
)
from hybridcsp.archive.follow_up_events import FollowUpFailed, FollowUpRelaxed
from hybridcsp.archive.history import Improvement
from hybridcsp.archive.minima_state import MinimaState
from hybridcsp.archive.tallies import Tallies, Tally, WorkerResults
from hybridcsp.core.records import REFINE, WORKERS, Cost
from hybridcsp.errors import ArchiveError
from hybridcsp.objectives.goals import Goals

#: Reason for which a run ends in which every relaxation failed.
ALL_FAILED = "every relaxation failed"

#: Reason for which a run ends that the user interrupts.
INTERRUPTED = "interrupted"


class SearchState(MinimaState):
    """The state of a search, which the same code derives from events as they happen and as they are read back.

    :class:`~hybridcsp.archive.minima_state.MinimaState` has the minima; this class has all else, and the events.

    Attributes
    ----------
    settings
        Settings of every session, oldest first.
    stops
        Reasons for which the runs ended, oldest first.
    tallies
        Results by source and operator.
    calls
        Number of calls by source.
    errors
        Number of calls that raised an error, by source.
    last_errors
        Last error by source.
    explanations
        Explanation of the first relaxation that failed, by reason of failure.
    worker_results
        Successes and failures of the workers since the calculator was last changed. Relaxations that a person reports
        or imports do not count, because they do not involve the calculator of the workers.
    model_updates
        Changes of the model by source, oldest first.
    cost, proposing
        Cost of everything, and of proposing alone.
    relaxations
        Number of relaxations that have ended, failures included.
    calculator_since
        Number of relaxations that had ended when the calculator in use came into use.
    candidates
        Events of the candidates, by id.
    terminal
        By candidate, the kind of the event that ended it: ``"relaxed"``, ``"failed"`` or ``"rejected"``.
    last_minimum
        Highest id that any basin ever had.
    objective_failures
        Number of values that could not be computed, by objective and reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[Mapping[str, Any]] = []
        self.stops: list[str] = []
        self.tallies = Tallies()
        self.calls: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.last_errors: dict[str, str] = {}
        self.explanations: dict[str, str] = {}
        self.worker_results = WorkerResults()
        self.model_updates: dict[str, list[ModelUpdated]] = {}
        self.cost = Cost()
        self.proposing = Cost()
        self.relaxations = 0
        self.calculator_since = 0
        self.candidates: dict[int, CandidateProposed] = {}
        self.terminal: dict[int, str] = {}
        self.last_minimum = 0
        self.objective_failures: Counter[tuple[str, str]] = Counter()

    # Candidates

    def pending(self, owner: str) -> list[int]:
        """Return the ids of the candidates of an owner that have not ended, oldest first."""
        return [id_ for id_, event in self.candidates.items() if id_ not in self.terminal and event.owner == owner]

    def candidates_of(self, source: str) -> Iterator[CandidateProposed]:
        """Yield the events of the candidates of a source, oldest first."""
        return (event for event in self.candidates.values() if event.source == source)

    def status(self, candidate: int) -> str:
        """Return ``"pending"``, ``"relaxed"``, ``"failed"`` or ``"rejected"``."""
        return self.terminal.get(candidate, "pending")

    # Events

    def apply(self, event: Event) -> None:
        """Update the state by one event.

        Raises
        ------
        ArchiveError
            If the event is of a format that this version of hybridcsp does not know.
        LookupError, TypeError, ValueError
            If the event does not fit the events before it, in a damaged log.
        """
        if isinstance(event, CandidateRelaxed | FollowUpRelaxed | FollowUpFailed | SessionOpened):
            self._preferred = self._best_values = None
        match event:
            case CandidateProposed():
                self.candidates[event.candidate] = event
                self._tally(event).proposed += 1
            case CandidateRelaxed():
                self._use(event.calculator)
                self._apply_end(event)
                self._apply_relaxed(event)
            case CandidateFailed():
                self._apply_end(event)
                if event.level != REFINE:
                    self._tally(event).failed[event.reason] += 1
                    self.explanations.setdefault(event.reason, event.detail)
                    if self._is_of_workers(event):
                        self.worker_results.add_failure(event.reason, event.detail)
            case CandidateRejected():
                self.terminal[event.candidate] = event.kind
                self._tally(event).rejected[event.reason] += 1
            case SourceCalled():
                self.calls[event.source] = event.call + 1
                self.errors[event.source] += bool(event.error)
                if event.error:
                    self.last_errors[event.source] = event.error
                self.cost += event.cost
                self.proposing += event.cost
            case ModelUpdated():
                self.model_updates.setdefault(event.source, []).append(event)
                self.cost += event.cost
            case FollowUpRelaxed() | FollowUpFailed():
                self.follow_ups.apply(event)
            case SessionOpened():
                self._apply_opened(event)
            case RunStopped():
                self.stops.append(event.reason)
                if event.reason != INTERRUPTED:
                    self.follow_ups.note_stop()
                if event.reason == ALL_FAILED:  # a run that follows is one in which something was mended
                    self.worker_results.failures = None
            case _:
                assert_never(event)

    def _apply_opened(self, event: SessionOpened) -> None:
        if event.format != FORMAT:
            raise ArchiveError(
                f"search.db has events of format {event.format}, and this version of hybridcsp reads those of format "
                f"{FORMAT}: use the version that wrote it"
            )
        self.settings.append(event.settings)
        self.goals = Goals.of_settings(event.settings)
        if event.settings.get("calculator_label"):
            self._use(event.settings["calculator_label"])
        if then := event.settings.get("then"):
            self.follow_ups.open_session(then["calculators"], then.get("labels", ()))

    def _apply_end(self, event: CandidateRelaxed | CandidateFailed) -> None:
        self.cost += event.cost
        self._tally(event).cost += event.cost
        if event.relaxation is not None:
            self.relaxations = event.relaxation
        if event.level == REFINE:
            self.refined.add(event.candidate)
        else:
            self.terminal[event.candidate] = event.kind

    def _use(self, calculator: str) -> None:
        """Make a calculator the one in use; energies of the one before are kept, but not compared with any others."""
        if calculator == self.calculator:
            return
        if self.calculator is not None:
            self.tallies.change_calculator(self.calculator, calculator)
            self.worker_results = WorkerResults()
            self.calculator_since = self.relaxations
        self.calculator = calculator
        self._preferred = self._best_values = None

    def _is_of_workers(self, event: CandidateRelaxed | CandidateFailed) -> bool:
        return self.candidates[event.candidate].owner == WORKERS

    def _apply_relaxed(self, event: CandidateRelaxed) -> None:
        self.objective_failures.update(event.objective_failures.items())
        is_refinement = event.level == REFINE
        if not is_refinement and self._is_of_workers(event):
            self.worker_results.add_success()
        tally = self._tally(event)
        tally.relaxed += not is_refinement
        tally.unconverged += not is_refinement and not event.converged
        if event.minimum is None:
            if not is_refinement:
                self.unconverged[event.candidate] = event
            return
        before = self.lowest()
        unconverged = self.unconverged.pop(event.candidate, None)
        first = event if unconverged is None else unconverged
        if event.is_new_minimum:
            basin = self.basins[event.minimum] = Basin(
                id=event.minimum,
                found_by=event.candidate,
                first_relaxation=first.relaxation or self.relaxations,
                first_force_calls=first.force_calls,
                best=event,
            )
            self._best_changed(basin)
            self.last_minimum = max(self.last_minimum, basin.id)
            tally.first_reached += 1
        else:
            basin = self.basins[event.minimum]
            own = is_refinement and basin.best.candidate == event.candidate
            basin.multiplicity += unconverged is not None or not is_refinement
            if own or (event.captured_by is None and event.enthalpy_per_atom < basin.enthalpy_per_atom):
                self._ending.pop(basin.best.candidate, None)
                basin.best = event
                self._best_changed(basin)
        if event.absorbed is not None:
            self._absorb(self.basins.pop(event.absorbed), basin)
        if event.suspects is not None:
            self._mark_suspects(set(event.suspects))
        # A relaxation that was ended early may lie a little below the minimum that it would have ended in.
        reached = basin.enthalpy_per_atom if event.captured_by is not None else event.enthalpy_per_atom
        if tally.best is None or reached < tally.best:
            tally.best = reached
        after = self.lowest()
        if after is not None and (before is None or after < before):
            made_by = (event.source, event.operator)
            self.improvements.append(Improvement(self.relaxations, self.cost.force_calls, after, *made_by))

    def _mark_suspects(self, suspects: set[int]) -> None:
        known = self._suspects[self.calculator or ""]
        for id_ in known ^ suspects:
            if id_ in self.basins:
                self.basins[id_].suspect = id_ in suspects
        self._suspects[self.calculator or ""] = suspects

    def _absorb(self, other: Basin, basin: Basin) -> None:
        """Add the history of another basin, which turned out to be the same, to a basin."""
        self.follow_ups.redirect(other.id, basin.id)
        self._rankings[other.calculator].remove(other)
        if self._ending.get(other.best.candidate) == other.id:
            del self._ending[other.best.candidate]
        basin.multiplicity += other.multiplicity
        if other.first_relaxation < basin.first_relaxation:
            basin.found_by, basin.first_relaxation = other.found_by, other.first_relaxation
            basin.first_force_calls = other.first_force_calls

    def _best_changed(self, basin: Basin) -> None:
        self._rankings[basin.calculator].put(basin)
        self._ending[basin.best.candidate] = basin.id

    def _tally(self, event: CandidateProposed | OutcomeEvent) -> Tally:
        return self.tallies.entry(event.source, event.operator)
