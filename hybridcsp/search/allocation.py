"""The base class of allocations, the rules that decide which source proposes the next candidate, and equal shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Rejected
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate
from hybridcsp.objectives.goals import Goals


class Allocation(ABC):
    """Base class of the rules that divide relaxations between the sources.

    The state of an allocation may change in :meth:`proposed` and :meth:`observe` only. When a search is resumed these
    two are called again as they were before, in the same order, and :meth:`choose` is not.
    """

    @abstractmethod
    def choose(self, available: Sequence[str]) -> str:
        """Return the source that proposes next.

        Called whenever a candidate is needed. A source that then has nothing to propose is left out of ``available``
        until the next candidate is needed.

        Parameters
        ----------
        available
            Names of the sources that can propose now, at least one, in the order in which the user named them.
        """

    def pursue(self, goals: Goals) -> None:  # noqa: B027  # a hook that may be left out
        """Take note of the objectives and conditions of the search; called once, before anything else, if it has any.

        Parameters
        ----------
        goals
            The goals. The values of a minimum are those of the outcomes that ended in it,
            :attr:`Relaxed.objectives <hybridcsp.core.outcomes.Relaxed.objectives>`.
        """

    def proposed(self, candidates: Sequence[Candidate]) -> None:  # noqa: B027  # a hook that may be left out
        """Take note of the candidates of one call of a source; called after each call, before any of their outcomes."""

    def observe(self, outcomes: Sequence[Outcome]) -> None:  # noqa: B027  # a hook that may be left out
        """Learn from outcomes; called with those of all sources, in order.

        When a search is resumed, outcomes that arrived together may be passed one by one, so that the result must not
        depend on their grouping.
        """

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:  # noqa: B027  # may be left out
        """Learn from follow-up relaxations; called like :meth:`observe`, but only in a search in which they count.

        They are no relaxations of the search: none of them ends a candidate.
        """


class EqualAllocation(Allocation):
    """Give every source the same number of relaxations; of sources that have the same, the one named first is chosen.

    Parameters
    ----------
    problem, seed
        Not used; every allocation is built with these two.
    """

    def __init__(self, problem: Problem | None = None, seed: int = 0) -> None:
        self._given: Counter[str] = Counter()

    def choose(self, available: Sequence[str]) -> str:
        """Return the source with the fewest relaxations."""
        return min(available, key=lambda name: self._given[name])

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Count the candidates of each source."""
        self._given.update(candidate.source for candidate in candidates)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Subtract the candidates that were rejected before their relaxation."""
        self._given.subtract(outcome.candidate.source for outcome in outcomes if isinstance(outcome, Rejected))
