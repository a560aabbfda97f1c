"""Which source gets the next job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from hybridcsp.records import Candidate, Outcome, Rejected


class Allocation(Protocol):
    """Decides between sources. Its state changes in ``proposed`` and ``observe`` only, which a resume replays."""

    def choose(self, available: Sequence[str]) -> str:
        """Return one of the names, none of which is exhausted."""

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Take note of new candidates."""

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from outcomes, in the order of their sequence."""


class EqualShares:
    """Gives every source the same number of relaxations; ties go to the one named first."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def choose(self, available: Sequence[str]) -> str:
        """Return the source that was given least."""
        return min(available, key=lambda name: self._given[name])

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Count candidates as given."""
        self._given.update(candidate.source for candidate in candidates)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Take back what was rejected before it was relaxed."""
        self._given.subtract(outcome.candidate.source for outcome in outcomes if isinstance(outcome, Rejected))
