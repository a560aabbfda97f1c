"""Provide the part of a search of a chemical system that divides its relaxations between compositions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import SourceCall
from hybridcsp.archive.part import ArchivePart
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome
from hybridcsp.core.records import REFERENCE, WORKERS, Candidate, Proposal
from hybridcsp.core.system import System
from hybridcsp.search.composition_allocation import CompositionAllocation
from hybridcsp.search.proposer import Proposer, wait_until
from hybridcsp.search.references import Reference
from hybridcsp.sources.base import BaseSource

log = logging.getLogger(__name__)


class SystemProposer:
    """Choose compositions, and let the sources of each propose structures for it.

    Each composition has its own sources, allocation and screening: a :class:`~hybridcsp.search.proposer.Proposer` on
    its part of the archive. They are built when the composition is first chosen; what the part holds is replayed then,
    so that a resumed search continues in the same way.

    Parameters
    ----------
    archive
        Archive of the search of a chemical system.
    build
        Function that builds the proposer of a composition from its part of the archive.
    sources
        Sources of one composition, by the names that their candidates carry; those of all others have the same names.
    """

    def __init__(
        self,
        archive: Archive,
        build: Callable[[ArchivePart], Proposer],
        sources: Mapping[str, BaseSource],
    ) -> None:
        assert isinstance(archive.state, SystemState)
        self.archive = archive
        self.problem: System = archive.state.system
        self.sources = sources
        self.allocation = CompositionAllocation(archive.state)
        self._build = build
        self._proposers: dict[str, Proposer] = {}

    def of(self, formula: str) -> Proposer:
        """Return the proposer of a composition."""
        known = self._proposers.get(formula)
        if known is None:
            known = self._proposers[formula] = self._build(self.archive.part(formula))
        return known

    def propose(self, owner: str) -> list[Candidate]:
        """Record and return at least one new candidate, or none if no composition has an acceptable proposal now."""
        dry: set[str] = set()
        while (formula := self.allocation.choose(dry)) is not None:
            if accepted := self.of(formula).propose(owner):
                return accepted
            dry.add(formula)
        return []

    @property
    def exhausted(self) -> bool:
        """Whether every source of every composition is exhausted."""
        return all(self.of(formula).exhausted for formula in self.problem.compositions)

    @property
    def only_duplicates(self) -> bool:
        """Whether at every composition with a source that is not exhausted the last proposals were known structures."""
        own = [self.of(formula) for formula in self.problem.compositions]
        return all(one.only_duplicates or one.exhausted for one in own)

    @property
    def preparing(self) -> list[str]:
        """Names of the sources with background work whose proposals have not been collected."""
        names = [name for one in self._proposers.values() for name in one.preparing]
        return list(dict.fromkeys(names))

    @property
    def prepared(self) -> bool:
        """Whether the proposals of at least one of these sources can be collected."""
        return any(one.prepared for one in self._proposers.values())

    @property
    def is_training(self) -> bool:
        """Whether a training runs in the background."""
        return any(one.is_training for one in self._proposers.values())

    @property
    def training(self) -> list[str]:
        """Describe in words the work of generators that learn from the search."""
        found = {formula: one.training for formula, one in self._proposers.items()}
        return [f"{formula}: {text}" for formula, texts in found.items() for text in texts]

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until background proposals can be collected; return at once if no source prepares any."""
        wait_until(lambda: self.prepared or not self.preparing, seconds)

    def learn(self) -> bool:
        """Train the generators that are due and record the results; return whether there was any result."""
        learned = [one.learn() for one in self._proposers.values()]  # each of them, whatever the others return
        return any(learned)

    def record(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Record outcomes, pass them on within their compositions, and return them with their numbers."""
        recorded: list[Outcome] = []
        for formula, group in groupby(outcomes, lambda one: self._state.formula_of(one.candidate.id)):
            if formula in self.problem.compositions:
                recorded += self.of(formula).record(list(group))
            else:  # of a known phase at a composition that is not searched
                recorded += self.archive.record_outcomes(list(group))
        return recorded

    def record_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Record follow-up relaxations and pass them on within their compositions."""
        for formula, group in groupby(outcomes, lambda one: self._state.formula_of(one.outcome.candidate.id)):
            self.of(formula).record_follow_ups(list(group))

    def announce(self, called: SourceCall) -> None:
        """Record candidates that no source proposed; they are not screened."""
        (candidate,) = called.candidates
        formula = self.problem.formula_of(candidate.atoms.numbers)
        assert formula is not None  # checked where the candidate was made
        if formula in self.problem.compositions:
            self.of(formula).announce(called)
        else:
            self.archive.part(formula).record_call(called)

    def announce_references(self, references: Sequence[Reference]) -> None:
        """Record known phases as candidates that are relaxed before all others, each once."""
        known = self.archive.state.candidates_of(REFERENCE)
        recorded = {(event.tag["file"], event.tag["frame"]) for event in known}
        for reference in references:
            if (reference.file, reference.frame) not in recorded:
                atoms = reference.atoms
                if (formula := self.problem.formula_of(atoms.numbers)) in self.problem.compositions:
                    atoms = self.problem.problem(formula).with_initial_moments(atoms)
                proposal = Proposal(atoms=atoms, operator=REFERENCE, tag=reference.tag, given=True)
                candidate = Candidate(proposal=proposal, id=self.archive.candidates + 1, source=REFERENCE)
                call = self.archive.state.calls[REFERENCE]
                self.announce(
                    SourceCall(source=REFERENCE, call=call, requested=1, owner=WORKERS, candidates=(candidate,))
                )

    def close(self) -> None:
        """Stop background work of the sources and of the training."""
        with ExitStack() as stack:  # close each of them, whatever the others raise
            for source in self.sources.values():
                stack.callback(source.close)
            for one in self._proposers.values():
                stack.callback(one.close)

    @property
    def _state(self) -> SystemState:
        assert isinstance(self.archive.state, SystemState)
        return self.archive.state
