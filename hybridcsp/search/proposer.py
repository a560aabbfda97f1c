"""Provide the part of a search that calls sources, screens and records proposals, and passes outcomes on."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from zlib import crc32

import numpy as np
from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Rejected, RejectionReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Candidate, Cost, Proposal
from hybridcsp.errors import message_of
from hybridcsp.retraining import Finished, RetrainingScheduler
from hybridcsp.search.allocation import Allocation
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.screening import Screen
from hybridcsp.similarity import compute_descriptors
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.utils.interrupts import exits_contained

log = logging.getLogger(__name__)

#: Number of calls in a row without an acceptable proposal after which a search waits for outcomes or ends.
PATIENCE = 1000

#: Part of a call that counts if it gave only known structures that a user has given, of which there may be many.
GIVEN = 0.01

#: Number of proposals of known structures by a source, without an acceptable one of its own or an outcome in between,
#: after which it is not called again before there is an outcome.
MOST_DUPLICATES = 200

#: Interval in seconds at which the status of busy sources is read.
POLL_INTERVAL = 0.1


def wait_until(is_over: Callable[[], bool], seconds: float) -> None:
    """Wait until a function returns true, and no longer than some seconds."""
    until = time.monotonic() + seconds
    while not is_over() and time.monotonic() < until:
        time.sleep(POLL_INTERVAL)


class Proposer:
    """Call sources, screen and record their proposals, and pass outcomes to sources, allocation and generators.

    On construction the archive is replayed, so that sources and allocation are in the state that they had at its end.

    Parameters
    ----------
    problem, archive, sources, allocation
        Problem, archive, sources by name in the order given, and allocation of the search.
    seed
        Seed of the search; the k-th call of a source draws from ``default_rng([seed, crc32(name), k])``.
    scheduler
        Scheduler of the training of generators that learn from the search.
    calculator
        Label of the calculator in use, if it is not the archive's. Sources, allocation and generators receive energies
        of this calculator only; relaxations by another are passed on as rejections.
    follow_up
        Settings of the follow-up relaxations. Sources are told of those with these calculators; allocation and
        generators only if they count, because credit is the only thing that they change there.
    """

    def __init__(
        self,
        problem: Problem,
        archive: Archive,
        sources: Mapping[str, BaseSource],
        allocation: Allocation,
        seed: int,
        scheduler: RetrainingScheduler | None = None,
        calculator: str | None = None,
        *,
        follow_up: FollowUp | None = None,
    ) -> None:
        self.problem = problem
        self.archive = archive
        self.sources = sources
        self.allocation = allocation
        self.seed = seed
        self._scheduler = scheduler or RetrainingScheduler([], archive, 0.0)
        self._calculator = calculator or archive.state.calculator
        self._follow_up = follow_up or FollowUp()
        self._screen = Screen(problem)
        self._duplicates: Counter[str] = Counter()  # of each source, since its last acceptable proposal or an outcome
        self._errors: Counter[str] = Counter()
        self._broken: set[str] = set()  # sources whose status() raised
        self._preparing: set[str] = set()  # sources that were busy when their status was last read in a call
        for past in archive.history():
            if isinstance(past, SourceCall):
                self._count_errors(past)
                self._notify_proposed(past.candidates)
                for candidate in past.candidates:
                    if archive.status(candidate.id) != "rejected":
                        self._duplicates[past.source] = 0
                        self._screen.accepted(candidate, compute_descriptors(candidate.proposal.atoms))
            elif isinstance(past, ModelUpdate):
                self._adopted(past)
            elif isinstance(past, FollowUpOutcome):
                self._notify_follow_ups([past])
            else:
                self._notify_outcomes([past])
        for name in sources:
            self._warn_if_given_up(name)

    def propose(self, owner: str) -> list[Candidate]:
        """Record and return at least one new candidate, or none if no source has an acceptable proposal now."""
        dry: set[str] = set()  # sources without a proposal now, or with an error in this call
        failed: set[str] = set()
        patience = float(PATIENCE)
        while patience > 0:
            available = self._available(dry)
            if not available and failed:
                dry -= failed  # no other source has a proposal: call these again, until they have too many errors
                failed.clear()
                available = self._available(dry)
            if not available:
                return []
            name = self.allocation.choose(available)
            accepted, called = self._call(name, owner)
            if accepted:
                return accepted
            given = bool(called.candidates) and all(candidate.proposal.given for candidate in called.candidates)
            patience -= GIVEN if given else 1
            if not called.candidates:
                dry.add(name)
            if called.error:
                failed.add(name)
        log.warning("no acceptable proposal in %d calls of sources in a row", PATIENCE)
        return []

    @property
    def only_duplicates(self) -> bool:
        """Whether no source can be called now, and at least one of them because it proposes known structures only.

        Which sources do depends on the archive alone, so that a resumed search ends where an uninterrupted one does.
        """
        repeating = any(self._repeats(name) and self._status(name) is SourceStatus.READY for name in self.sources)
        return repeating and not self._available(set())

    @property
    def exhausted(self) -> bool:
        """Whether every source is exhausted."""
        return all(self._status(name) is SourceStatus.EXHAUSTED for name in self.sources)

    @property
    def preparing(self) -> list[str]:
        """Names of the sources with background work whose proposals have not been collected."""
        working = [name for name in self.sources if name in self._preparing and not self._repeats(name)]
        return [name for name in working if self._status(name) is not SourceStatus.EXHAUSTED]

    @property
    def prepared(self) -> bool:
        """Whether the proposals of at least one of these sources can be collected."""
        return any(self._status(name) is SourceStatus.READY for name in self.preparing)

    @property
    def is_training(self) -> bool:
        """Whether a training runs in the background; its generator may propose again when it has ended."""
        return self._scheduler.is_training

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until background proposals can be collected; return at once if no source prepares any."""
        wait_until(lambda: self.prepared or not self.preparing, seconds)

    def learn(self) -> bool:
        """Train the generators that are due and record the results; return whether there was any result."""
        learned = False
        while isinstance(step := self._scheduler.step(), Finished):
            learned, event = True, step.update
            failed = bool(event.training.get("failed"))
            log.log(logging.WARNING if failed else logging.INFO, "source %s: %s", event.source, event.detail)
            self._adopted(self.archive.record_model_update(event))
        return learned

    @property
    def training(self) -> list[str]:
        """Describe in words the work of generators that learn from the search, or the reason why they wait."""
        return self._scheduler.status

    def record(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Record outcomes, pass them on, and return them with their numbers."""
        recorded = self.archive.record_outcomes(outcomes)
        self._calculator = self.archive.state.calculator
        self._notify_outcomes(recorded)
        return recorded

    def record_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Record follow-up relaxations and pass them on."""
        self._notify_follow_ups(self.archive.record_follow_ups(outcomes))

    def announce(self, called: SourceCall) -> None:
        """Record candidates that no source proposed; they are not screened."""
        self.archive.record_call(called)
        self._notify_proposed(called.candidates)
        for candidate in called.candidates:
            self._screen.accepted(candidate, compute_descriptors(candidate.proposal.atoms))

    def close(self) -> None:
        """Stop background work of the sources and of the training."""
        with ExitStack() as stack:  # close each of them, whatever the others raise
            stack.callback(self._scheduler.close)
            for source in self.sources.values():
                stack.callback(source.close)

    def _adopted(self, event: ModelUpdate) -> None:
        self._scheduler.adopted(event)
        self._errors[event.source] = 0
        self._duplicates[event.source] = 0

    def _repeats(self, name: str) -> bool:
        """Return whether the last proposals of a source were all of known structures."""
        return self._duplicates[name] >= MOST_DUPLICATES

    def _available(self, dry: set[str]) -> list[str]:
        """Return the sources that are ready, or else those that wait for others but can do without."""
        asked = [name for name in self.sources if name not in dry and not self._repeats(name)]
        status = {name: self._status(name) for name in asked}
        self._preparing.update(name for name, found in status.items() if found is SourceStatus.BUSY)
        ready = [name for name, found in status.items() if found is SourceStatus.READY]
        waiting = [name for name, found in status.items() if found is SourceStatus.WAITING]
        return ready or [name for name in waiting if not self.sources[name].needs_others]

    def _status(self, name: str) -> SourceStatus:
        if self._given_up(name) or name in self._broken:
            return SourceStatus.EXHAUSTED
        try:
            return self.sources[name].status()
        except Exception as raised:  # noqa: BLE001  # third-party code must not end the search
            log.warning("source %s is not called again: its status() raised %s", name, message_of(raised))
            self._broken.add(name)
            return SourceStatus.EXHAUSTED

    def _given_up(self, name: str) -> bool:
        return self._errors[name] >= self.sources[name].max_errors

    def _count_errors(self, called: SourceCall) -> None:
        """Count errors in a row; a call without candidates and without an error leaves the count as it is."""
        if called.error:
            self._errors[called.source] += 1
        elif called.candidates:
            self._errors[called.source] = 0

    def _warn_if_given_up(self, name: str) -> None:
        if self._given_up(name):
            log.warning(
                "source %s is not called again in this search after %d errors in a row", name, self._errors[name]
            )

    def _call(self, name: str, owner: str) -> tuple[list[Candidate], SourceCall]:
        call = self.archive.state.calls[name]
        rng = np.random.default_rng([self.seed, crc32(name.encode()), call])
        context = Context(problem=self.problem, archive=self.archive, rng=rng)
        source = self.sources[name]
        start, in_background = time.monotonic(), source.seconds_in_background
        error = ""
        proposals: list[Proposal] = []
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                proposals = [self._checked(proposal) for proposal in source.propose(1, context)]
        except Exception as raised:  # noqa: BLE001  # third-party code must not end the search
            proposals, error = [], message_of(raised)
            log.warning("source %s raised %s", name, error)
        # Read before anything else happens, so that work that ends quickly is not overlooked.
        if self._status(name) is SourceStatus.BUSY:
            self._preparing.add(name)
        else:
            self._preparing.discard(name)

        accepted: list[Candidate] = []
        rejected: list[Rejected] = []
        candidates: list[Candidate] = []
        for proposal in proposals:
            candidate = Candidate(proposal=proposal, id=self.archive.candidates + len(candidates) + 1, source=name)
            candidates.append(candidate)
            verdict = self._screen.check(proposal.atoms, proposal.level, given=proposal.given)
            if verdict.described is None:
                reason = verdict.reason or RejectionReason.INVALID
                rejected.append(Rejected(candidate=candidate, detail=verdict.detail, reason=reason))
            else:
                self._duplicates[name] = 0
                self._screen.accepted(candidate, verdict.described)
                accepted.append(candidate)
        force_calls = sum(proposal.cost.force_calls for proposal in proposals)
        seconds = time.monotonic() - start + source.seconds_in_background - in_background
        called = SourceCall(
            source=name,
            call=call,
            requested=1,
            owner=owner,
            candidates=tuple(candidates),
            cost=Cost(force_calls=force_calls, seconds=seconds),
            error=error,
        )
        recorded = self.archive.record_call(called, rejected)
        self._count_errors(called)
        self._warn_if_given_up(name)
        self._notify_proposed(candidates)
        self._notify_outcomes(recorded)
        return accepted, called

    def _checked(self, proposal: Proposal) -> Proposal:
        """Return a proposal with the initial moments of the problem; raise if it cannot be recorded."""
        if not isinstance(proposal, Proposal) or not isinstance(proposal.atoms, Atoms):
            raise TypeError(f"propose() must return Proposal objects with ase.Atoms, but returned {proposal!r:.100}")
        json.dumps(dict(proposal.tag))
        return replace(proposal, atoms=self.problem.with_initial_moments(proposal.atoms))

    def _notify_proposed(self, candidates: Sequence[Candidate]) -> None:
        self.allocation.proposed(candidates)
        for name, source in self.sources.items():
            own = [candidate for candidate in candidates if candidate.source == name]
            if own:
                source.proposed(own)

    def _notify_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if not isinstance(outcome, Rejected):
                self._duplicates.clear()
            elif outcome.reason is RejectionReason.DUPLICATE and not outcome.candidate.proposal.given:
                self._duplicates[outcome.candidate.source] += 1
            if isinstance(outcome, Relaxed):
                self._screen.relaxed(outcome)
        comparable = [found for outcome in outcomes if (found := self._comparable(outcome)) is not None]
        self.allocation.observe(comparable)
        for source in self.sources.values():
            source.observe(comparable)
        self._scheduler.observe(comparable)

    def _notify_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        present = [found for outcome in outcomes if (found := self._of_present_calculator(outcome)) is not None]
        for source in self.sources.values():
            source.observe_follow_ups(present)
        if self._follow_up.counts:
            self.allocation.observe_follow_ups(present)
            self._scheduler.observe_follow_ups(present)

    def _of_present_calculator(self, outcome: FollowUpOutcome) -> FollowUpOutcome | None:
        """Return an outcome with the present number of its calculator; ``None`` if the calculator is not in use."""
        level = self.archive.state.follow_ups.level(outcome.spec)
        if level is None or outcome.spec not in self._follow_up.names or outcome.calculator != level.label:
            return None
        return replace(outcome, number=1 + self._follow_up.names.index(outcome.spec))

    def _comparable(self, outcome: Outcome) -> Outcome | None:
        """Return an outcome without energies of another calculator; ``None`` if nothing of it is left."""
        if not isinstance(outcome, Relaxed) or outcome.evaluation.calculator == self._calculator:
            return outcome
        if outcome.level == REFINE:
            return None
        return Rejected(
            candidate=outcome.candidate,
            sequence=outcome.sequence,
            detail=f"relaxed by {outcome.evaluation.calculator}",
            reason=RejectionReason.OTHER_CALCULATOR,
        )
