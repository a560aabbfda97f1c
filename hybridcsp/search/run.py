"""The loop of a search: keep the workers busy until a criterion is met, then refine and follow up the best minima."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import ALL_FAILED, INTERRUPTED
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import FOLLOW_UP, REFINE, RELAX, WORKERS, Candidate, Job, Limits
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.search.failures import all_failed
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.follow_up_jobs import FollowUpJobs
from hybridcsp.search.lowest_minima import LowestMinima
from hybridcsp.search.progress import Progress, Summary, progress_of
from hybridcsp.search.proposer import MOST_DUPLICATES, POLL_INTERVAL, Proposer
from hybridcsp.search.resumption import check_same_calculator
from hybridcsp.search.stopping import TIME_USED_UP, StoppingCheck, StoppingCriteria
from hybridcsp.search.system_proposer import SystemProposer
from hybridcsp.utils.activity import announcements
from hybridcsp.utils.interrupts import noted_interrupts

log = logging.getLogger(__name__)

#: Minima within this energy of the best (eV/atom) are refined at the end.
REFINE_WINDOW = 0.05

#: Reasons to end a search whose sources propose nothing that can be relaxed.
EXHAUSTED, NO_PROPOSALS = "sources exhausted", "no acceptable proposals"
ONLY_DUPLICATES = (
    f"nothing new can be found, because the last {MOST_DUPLICATES} proposals of each source were known structures"
)

#: Seconds to wait for outcomes before progress is reported again.
PATIENCE = 0.5

#: Ratio of the force calls and seconds that a refinement and a relaxation may take; its criterion is five times
#: tighter.
REFINE_LIMIT = 2


class Run:
    """Run the loop of one search: sources propose, the backend relaxes, the archive records.

    Parameters
    ----------
    proposer
        Sources and allocation, which provide candidates and learn from outcomes.
    backend
        Workers that relax the candidates.
    criteria
        Stopping criteria, and the number of minima to refine at the end.
    limits
        Limits of one relaxation.
    listeners
        Functions that are called with the progress after every outcome, twice a second in between, and before anything
        that may take long. An exception that one raises ends the run.
    calculator_known
        Whether the backend is known to use the calculator that the energies in the archive come from. Otherwise
        energies are compared from the first result on.
    rebuild_proposer
        Returns a proposer without the energies of any other calculator than the one in use; called when the backend
        turns out to use another one than before. ``None``: such a change is an error.
    follow_up
        Settings of the follow-up relaxations.

    Raises
    ------
    InputError
        If the target of the stopping criteria cannot be used.
    """

    def __init__(
        self,
        proposer: Proposer | SystemProposer,
        backend: Backend,
        criteria: StoppingCriteria,
        limits: Limits,
        listeners: Sequence[Callable[[Progress], None]] = (),
        *,
        calculator_known: bool = True,
        rebuild_proposer: Callable[[], Proposer | SystemProposer] | None = None,
        follow_up: FollowUp | None = None,
    ) -> None:
        self._proposer = proposer
        self._archive: Archive = proposer.archive
        self._backend = backend
        self._criteria = criteria
        self._limits = limits
        self._listeners = listeners
        self._calculator_known = calculator_known
        self._rebuild_proposer = rebuild_proposer
        self._stopped = ""  # the reason why the search ends, once there is one
        self._ready: deque[Candidate] = deque()
        self._capacity = 0  # of the backend when the workers were filled last
        self._running: set[int] = set()  # candidates that are relaxed or refined
        self._follow_ups = FollowUpJobs(
            self._archive, backend, follow_up or FollowUp(), limits, criteria.stop_after_failures
        )
        counts = follow_up is not None and follow_up.counts and follow_up.calculators
        left = self._follow_ups.are_left if counts else None
        self._stopping = StoppingCheck(criteria, proposer.problem, self._archive, left)
        self._known = LowestMinima(self._archive)
        self._level = RELAX
        self._start_force_calls = self._archive.state.cost.force_calls
        self._start_relaxations = self._archive.state.relaxations
        self._activity = ""
        self._raised: BaseException | None = None  # by a listener, while something else was going on

    def execute(self) -> Summary:
        """Search until a stopping criterion is met, refine and follow up the best minima, and record why it ended.

        Raises
        ------
        RelaxationsFailedError
            If every relaxation failed.
        """
        stopped = "error"
        try:
            with announcements(self._show_activity):
                stopped = self._search()
            if stopped == ALL_FAILED:
                raise all_failed(self._archive.state, self._archive.directory)
            for name in self._proposer.preparing:
                log.warning(
                    "source %s was still preparing structures when the search ended; more relaxations would use them",
                    name,
                )
            self._refine()
            self._follow_up()
        except KeyboardInterrupt:
            stopped = INTERRUPTED
            raise
        finally:
            self._archive.record_stop(stopped)
        return Summary(progress=self.progress(), stopped=stopped)

    def _search(self) -> str:
        """Relax candidates until the search should stop, and return the reason.

        With one worker the order of events is always the same, because candidates are proposed after events and never
        after a time.
        """
        self._ready.extend(self._archive.pending(WORKERS))
        self.check_criteria()
        self.fill_workers()
        while not self.should_stop():
            trained = self.train_if_due()  # now, because the workers are busy
            collected = self.collect()
            self.check_criteria()
            if collected or trained or self._proposer.prepared or self._backend.capacity > self._capacity:
                self.fill_workers()
        return self._stopped

    def check_criteria(self) -> None:
        """Note the first stopping criterion that is met.

        The criterion that every relaxation failed is checked again, because one that was still running may succeed.
        """
        if self._stopped in ("", ALL_FAILED):
            self._stopped = self._stopping.criterion_met(compare_energies=self._calculator_known)

    def should_stop(self) -> bool:
        """Return whether the search ends now, and note the reason.

        Running relaxations have been paid for and are finished first, except when the time is used up: a resumed search
        repeats them.
        """
        if self._stopping.is_time_used_up:
            self._stopped = self._stopped or TIME_USED_UP
            return True
        if self._busy:
            return False
        if not self._stopped and self._proposer.exhausted:
            self._stopped = EXHAUSTED
        elif not self._stopped and not (self._proposer.preparing or self._proposer.is_training):
            self._stopped = ONLY_DUPLICATES if self._proposer.only_duplicates else NO_PROPOSALS
        return bool(self._stopped)

    def fill_workers(self) -> None:
        """Submit jobs until every worker is busy, and propose one ahead for the worker that is free next.

        Follow-up relaxations that are due come before new candidates.
        """
        self._capacity = self._backend.capacity
        if not self._stopped:
            self._submit_follow_ups(self._follow_ups.due)
        with self._archive.grouped():
            self._submit_candidates()

    def _submit_candidates(self) -> None:
        while not self._stopped and self._stopping.allows_another(len(self._running)):
            if not self._ready:
                self._ready.extend(self._proposer.propose(WORKERS))
                self._end_activity()
            if not self._ready or self._busy >= self._backend.capacity:
                return
            candidate = self._ready.popleft()
            self._submit(candidate, candidate.atoms, candidate.proposal.level, self._limits)

    def train_if_due(self) -> bool:
        """Let the generators learn, unless the search is ending; return whether anything changed."""
        learned = not self._stopped and self._proposer.learn()
        self._end_activity()
        return learned

    def collect(self) -> bool:
        """Record the outcomes that have arrived, after a short wait if there are none; return whether there were any.

        Raises
        ------
        ArchiveError
            If a result is of another calculator than those in the archive, and such a change was not allowed.
        """
        if not self._busy:
            self._proposer.wait(PATIENCE)
            if self._proposer.is_training:
                time.sleep(POLL_INTERVAL)
        outcomes = self._backend.completed(timeout=PATIENCE)
        if own := [outcome for outcome in outcomes if outcome.level != FOLLOW_UP]:
            self._record(own)
        if followed := self._follow_ups.ended([outcome for outcome in outcomes if outcome.level == FOLLOW_UP]):
            self._proposer.record_follow_ups(followed)
            self._follow_ups.warn_of_failures(at_end=False)
        self._report()
        return bool(outcomes)

    def _record(self, outcomes: Sequence[Relaxed | Failed]) -> None:
        if self._rebuild_proposer is None:
            for outcome in outcomes:
                if isinstance(outcome, Relaxed):
                    check_same_calculator(outcome.evaluation.calculator, self._archive)
        before = self._archive.state.calculator
        self._proposer.record(outcomes)
        if self._rebuild_proposer and before not in (None, self._archive.state.calculator):
            self._proposer = self._rebuild_proposer()
        self._calculator_known |= any(isinstance(outcome, Relaxed) for outcome in outcomes)
        self._running.difference_update(outcome.candidate.id for outcome in outcomes)

    def _refine(self) -> None:
        """Relax the best minima further, as far as the time allows."""
        self._level = REFINE
        limits = Limits(
            force_calls=REFINE_LIMIT * self._limits.force_calls,
            seconds=REFINE_LIMIT * self._limits.seconds,
            memory=self._limits.memory,
        )
        while not self._stopping.is_time_used_up:
            best = self._archive.to_refine(self._criteria.refine, REFINE_WINDOW)
            if not best:
                return
            for relaxed in best:
                self._submit(relaxed.candidate, relaxed.atoms, REFINE, limits)
            while self._running:
                self.collect()
                if self._stopping.is_time_used_up:
                    return

    def _follow_up(self) -> None:
        """Relax the best minima with the follow-up calculators, as far as the time allows."""
        self._level = FOLLOW_UP
        self._submit_follow_ups(self._follow_ups.next)
        while self._busy and not self._stopping.is_time_used_up:
            self.collect()
            self._submit_follow_ups(self._follow_ups.next)
        self._follow_ups.warn_of_failures(at_end=not self._busy)

    def _submit_follow_ups(self, next_job: Callable[[], Job | None]) -> None:
        while self._busy < self._backend.capacity and (job := next_job()) is not None:
            self._backend.submit(job)

    @property
    def _busy(self) -> int:
        """Number of jobs that the workers have."""
        return len(self._running) + self._follow_ups.running

    def _submit(self, candidate: Candidate, atoms: Atoms, level: str, limits: Limits) -> None:
        self._running.add(candidate.id)
        known = self._known.lowest(candidate.id) if self._calculator_known and level != REFINE else ()
        self._backend.submit(Job(candidate=candidate, atoms=atoms, level=level, limits=limits, known=known))

    def progress(self) -> Progress:
        """Return the progress of the search."""
        state = self._archive.state
        return progress_of(
            state,
            self._follow_ups,
            running=self._busy,
            run_relaxations=state.relaxations - self._start_relaxations,
            run_force_calls=state.cost.force_calls - self._start_force_calls,
            run_seconds=self._stopping.seconds,
            level=self._level,
            jobs=tuple(self._backend.running()),
            activity=self._activity or self._loading(),
            training=tuple(self._proposer.training),
        )

    def _report(self) -> None:
        """Report the progress to the listeners."""
        if self._listeners:
            progress = self.progress()
            for listener in self._listeners:
                listener(progress)

    def _loading(self) -> str:
        """Describe workers that are still loading their calculator, or are not there yet; empty if there are none."""
        starting = self._backend.starting
        if not starting:
            return f"waiting for {waiting}" if (waiting := self._backend.waiting_for) else ""
        calculator = self._archive.state.settings[-1].get("calculator")
        name = calculator if isinstance(calculator, str) else "the calculator"
        return f"loading {name} in {starting} worker{'s' * (starting > 1)}"

    def _show_activity(self, activity: str) -> None:
        """Report an activity that begins now.

        An exception of a listener is raised when the activity is over, so that it does not interrupt it halfway.
        """
        self._activity = activity
        if self._listeners and self._raised is None:
            with noted_interrupts() as interrupts:
                try:
                    self._report()
                except BaseException as error:
                    if interrupts:
                        raise
                    self._raised = error

    def _end_activity(self) -> None:
        self._activity = ""
        if self._raised is not None:
            raise self._raised
