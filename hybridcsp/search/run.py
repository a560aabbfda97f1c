"""One run of a search: keep the workers busy until a budget is used up, then refine the best minima."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import ALL_FAILED
from hybridcsp.core.records import REFINE, RELAX, WORKERS, Candidate, Job, Limits, Relaxed
from hybridcsp.relaxation.backends.base import Backend, RunningJob
from hybridcsp.search.failures import all_failed
from hybridcsp.search.proposer import Proposer
from hybridcsp.search.resumption import check_same_calculator
from hybridcsp.search.stopping import StoppingCriteria, Target, unchanged_since
from hybridcsp.utils.activity import announcements
from hybridcsp.utils.interrupts import noted_interrupts

log = logging.getLogger(__name__)

#: Minima within this of the best (eV/atom) are refined at the end.
REFINE_WINDOW = 0.05

#: Seconds to wait for outcomes before progress is told.
PATIENCE = 0.5

#: A refinement may take this many times the force calls of a relaxation: its criterion is five times tighter.
REFINE_LIMIT = 2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search is.

    Attributes
    ----------
    relaxations, failed, rejected
        In the whole search; relaxations include failures.
    running
        Jobs the workers are busy with.
    minima
        Distinct minima.
    best, spacegroup
        Lowest enthalpy per atom in eV, and the number of that minimum's space group at 0.01 Å.
    force_calls
        In the whole search.
    run_relaxations, run_force_calls, run_seconds
        In this run.
    level
        "relax", or "refine" in the final refinement.
    jobs
        What the workers are busy with, and how far each job is, where the backend can tell.
    activity
        What the search itself does at this moment, or waits for, in words: ``"loading chgnet in 2 workers"``,
        ``"drawing 48 structures from wyckoff"``, ``"training flow: epoch 3 of 20"``; empty while it waits for jobs.
    training
        What each generator that learns from the search does, or what it waits for, in words.
    """

    relaxations: int
    failed: int
    rejected: int
    running: int
    minima: int
    best: float | None
    force_calls: int
    run_relaxations: int
    run_force_calls: int
    run_seconds: float
    level: str
    jobs: tuple[RunningJob, ...] = ()
    activity: str = ""
    training: tuple[str, ...] = ()
    spacegroup: int | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Summary:
    """What a run came to; ``stopped`` says why it ended."""

    progress: Progress
    stopped: str

    def __repr__(self) -> str:
        from hybridcsp.analysis.reprs import text_of_summary

        return text_of_summary(self)

    def _repr_html_(self) -> str:
        from hybridcsp.analysis.reprs import html_of_summary

        return html_of_summary(self)


class Run:
    """The loop itself.

    Parameters
    ----------
    proposer, backend
        Where jobs come from, and where they go.
    budget
        When to end.
    limits
        Of one relaxation.
    on_progress
        Called after every outcome, twice a second while nothing ends, and when something begins that may take long.
        What it raises ends the run.
    """

    def __init__(
        self,
        proposer: Proposer,
        backend: Backend,
        budget: StoppingCriteria,
        limits: Limits,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._proposer = proposer
        self._archive: Archive = proposer.archive
        self._backend = backend
        self._budget = budget
        self._limits = limits
        self._on_progress = on_progress
        self._target = Target(budget.stop_at, proposer.problem)
        self._start = time.monotonic()
        self._start_force_calls = self._archive.state.cost.force_calls
        self._start_relaxations = self._archive.state.relaxations
        self._running: set[int] = set()
        self._level = RELAX
        #: Whether energies of another calculator than the archive's may be recorded; they are ranked by themselves.
        self.may_change_calculator = True
        #: Makes what proposes anew when the backend turns out to use another calculator, where that may happen.
        self.begin_again: Callable[[], Proposer] | None = None
        #: Whether the archive's energies are known to be of the calculator that the backend uses.
        self.calculator_known = True
        self._activity = ""
        self._raised: BaseException | None = None  # by on_progress, in the middle of something

    def execute(self) -> Summary:
        """Search, refine, and say why it ended; the reason is recorded also when an exception passes through.

        Raises
        ------
        RelaxationsFailedError
            If it ended because nothing but failures happened.
        """
        stopped = "error"
        try:
            with announcements(self._announced):
                stopped = self._search()
            if stopped == ALL_FAILED:
                raise all_failed(self._archive.state, self._archive.directory)
            for name in self._proposer.preparing:
                log.warning(
                    "source %s was still making structures when the search ended; more relaxations would use them", name
                )
            self._refine()
        except KeyboardInterrupt:
            stopped = "interrupted"
            raise
        finally:
            self._archive.record_stop(stopped)
        return Summary(progress=self.progress(), stopped=stopped)

    def progress(self) -> Progress:
        """Return where things stand."""
        state = self._archive.state
        best = state.best()
        return Progress(
            relaxations=state.relaxations,
            failed=sum(tally.failed.total() for tally in state.tallies.values()),
            rejected=sum(tally.rejected.total() for tally in state.tallies.values()),
            running=len(self._running),
            minima=state.number_of_minima,
            best=None if best is None else best.enthalpy_per_atom,
            spacegroup=None if best is None else best.best.data["spacegroup"],
            force_calls=state.cost.force_calls,
            run_relaxations=state.relaxations - self._start_relaxations,
            run_force_calls=state.cost.force_calls - self._start_force_calls,
            run_seconds=time.monotonic() - self._start,
            level=self._level,
            jobs=tuple(self._backend.running()),
            activity=self._activity or self._starting(),
            training=tuple(self._proposer.training),
        )

    def _starting(self) -> str:
        starting = self._backend.starting
        if not starting:
            return ""
        calculator = self._archive.state.settings[-1].get("calculator")
        name = calculator if isinstance(calculator, str) else "the calculator"
        return f"loading {name} in {starting} worker{'s' * (starting > 1)}"

    def _announced(self, what: str) -> None:
        """Show what begins now; an exception must not come between what is done there, so that it waits."""
        self._activity = what
        if self._on_progress and self._raised is None:
            with noted_interrupts() as interrupts:
                try:
                    self._on_progress(self.progress())
                except BaseException as error:
                    if interrupts:
                        raise
                    self._raised = error

    def _announced_is_over(self) -> None:
        self._activity = ""
        if self._raised is not None:
            raise self._raised

    def _search(self) -> str:
        ready = deque(self._archive.pending(WORKERS))
        stopped = self._stop_reason()
        news = True
        while True:
            # One candidate is made ahead, so that a worker that comes free need not wait for a source. This happens
            # after every outcome and never on the clock: with one worker the order of events is always the same.
            nothing_offered = not news
            while not stopped and not nothing_offered and (ready or self._may_start(len(ready))):
                if ready and len(self._running) < self._backend.capacity and self._may_start(0):
                    self._submit(ready.popleft())
                elif not ready:
                    ready.extend(self._proposer.propose(WORKERS))
                    self._announced_is_over()
                    nothing_offered = not ready
                else:
                    break
            if not self._running and (stopped or not self._proposer.preparing):
                return stopped or ("sources exhausted" if self._proposer.exhausted else "no acceptable proposals")
            learned = not stopped and self._proposer.learn()  # here, because the workers have enough to do
            self._announced_is_over()
            news = self._wait() or learned or self._proposer.prepared
            if stopped in ("", ALL_FAILED):  # what was still running may have succeeded
                stopped = self._stop_reason()
            # What is running was paid for and is waited for, unless the time is over: a resumed search does it again.
            if self._out_of_time():
                return stopped or "time used up"  # the time may have run out since the reason was looked for

    def _may_start(self, waiting: int) -> bool:
        started = self._archive.state.relaxations + len(self._running) + waiting
        return self._budget.relaxations is None or started < self._budget.relaxations

    def _stop_reason(self) -> str:
        budget, state = self._budget, self._archive.state
        if self.calculator_known and self._target.reached(state, self._archive.structure):
            return "target reached"
        if state.failures is not None and 0 < budget.stop_after_failures <= state.failures.count:
            return ALL_FAILED
        if budget.relaxations is not None and state.relaxations >= budget.relaxations:
            return "relaxations used up"
        if budget.force_calls is not None and state.cost.force_calls >= budget.force_calls:
            return "force calls used up"
        unchanged = unchanged_since(state) if self.calculator_known else 0
        if budget.stop_after_unchanged is not None and unchanged >= budget.stop_after_unchanged:
            return "best unchanged"
        if self._out_of_time():
            return "time used up"
        return ""

    def _out_of_time(self) -> bool:
        return self._budget.hours is not None and time.monotonic() - self._start >= 3600 * self._budget.hours

    def _refine(self) -> None:
        self._level = REFINE
        limits = Limits(
            force_calls=REFINE_LIMIT * self._limits.force_calls,
            seconds=REFINE_LIMIT * self._limits.seconds,
            memory=self._limits.memory,
        )
        while not self._out_of_time() and (todo := self._archive.to_refine(self._budget.refine, REFINE_WINDOW)):
            for relaxed in todo:
                job = Job(candidate=relaxed.candidate, atoms=relaxed.atoms, level=REFINE, limits=limits)
                self._running.add(relaxed.candidate.id)
                self._backend.submit(job)
            while self._running:
                self._wait()
                if self._out_of_time():
                    return

    def _submit(self, candidate: Candidate) -> None:
        self._running.add(candidate.id)
        level = candidate.proposal.level
        self._backend.submit(Job(candidate=candidate, atoms=candidate.atoms, level=level, limits=self._limits))

    def _wait(self) -> bool:
        """Wait for outcomes, not long; return whether there were any."""
        if not self._running:
            self._proposer.wait(PATIENCE)
        outcomes = self._backend.completed(timeout=PATIENCE)
        if outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Relaxed) and not self.may_change_calculator:
                    check_same_calculator(outcome.evaluation.calculator, self._archive)
            before = self._archive.state.calculator
            self._proposer.record(outcomes)
            if self.begin_again and before not in (None, self._archive.state.calculator):
                self._proposer = self.begin_again()
            self.calculator_known |= any(isinstance(outcome, Relaxed) for outcome in outcomes)
            self._running.difference_update(outcome.candidate.id for outcome in outcomes)
        if self._on_progress:
            self._on_progress(self.progress())
        return bool(outcomes)
