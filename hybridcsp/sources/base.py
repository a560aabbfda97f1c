"""Provide the base class of all sources, the states a source can be in, and the context of a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.objectives.goals import Goals


@dataclass(frozen=True, kw_only=True)
class Context:
    """Hold everything a source may use when it proposes structures.

    Attributes
    ----------
    problem
        The problem of the search.
    archive
        All candidates, outcomes and minima so far; read only.
    rng
        The random number generator of this call. The k-th call of a source draws from the same stream in every run
        with the same seed; a source must not use any other randomness.
    """

    problem: Problem
    archive: Archive
    rng: np.random.Generator


class SourceStatus(StrEnum):
    """State of a source, which decides whether the search calls it."""

    #: The source can be called now.
    READY = "ready"
    #: The source is called only when no other source is ready, and never if it has ``needs_others``.
    WAITING = "waiting"
    #: The source prepares proposals in the background. It is not called; a search with nothing else to do waits for it.
    BUSY = "busy"
    #: The source has no more proposals in this search and is never called again.
    EXHAUSTED = "exhausted"


class BaseSource(ABC):
    """Base class of everything that proposes structures.

    A source never calls a calculator: it proposes structures, and workers relax them. Subclasses implement
    :meth:`propose`; every other method has a default that does nothing. A source that is used by name is constructed
    as ``SomeSource(problem, argument)``, where ``argument`` is the text after the colon of ``name:argument``, or
    ``None``.

    The state of a source may change in :meth:`proposed` and :meth:`observe` only. When a search is resumed, these two
    are called again as before, in the same order, while :meth:`propose` is not; information that :meth:`propose` needs
    to keep goes into :attr:`Proposal.tag <hybridcsp.core.records.Proposal.tag>`.

    Attributes
    ----------
    name
        Name of the source in the run directory and on the screen; the name of the class if it is empty.
    needs_others
        Whether the source works only on minima that other sources find. It is then never called while it waits, and a
        search with no independent source is refused.
    needs_system
        Whether the source works only in searches of chemical systems, because it uses minima of other compositions. A
        search of one formula with it is refused.
    max_errors
        Number of errors in a row after which the source is not called again in this search.
    seconds_in_background
        Total wall time in seconds of finished background work; it is added to the cost of the call that collects the
        result.
    waiting_for
        Condition under which the source starts, as a clause: "it starts after 6 minima". Empty if it can always start.
    unusable
        Pairs of a place and a reason, one for each structure of the user that the source cannot use.

    Examples
    --------
    >>> class Shifted(BaseSource):
    ...     name = "shifted"
    ...
    ...     def propose(self, n, context):
    ...         best = context.archive.minima(1)
    ...         if not best:
    ...             return []
    ...         atoms = best[0].atoms
    ...         atoms.positions += context.rng.normal(0, 0.3, atoms.positions.shape)
    ...         return [Proposal(atoms=atoms, operator="shift", parents=(best[0].found_by.id,))]
    """

    name: str = ""
    needs_others: bool = False
    needs_system: bool = False
    max_errors: int = 10
    seconds_in_background: float = 0.0
    waiting_for: str = ""
    unusable: Sequence[tuple[str, str]] = ()

    def pursue(self, goals: Goals) -> None:  # noqa: B027  # an optional hook
        """Take note of the objectives and conditions of the search; called once, before anything else, if it has any.

        Parameters
        ----------
        goals
            The goals. Minima that :meth:`Archive.preferred_minima
            <hybridcsp.archive.archive.Archive.preferred_minima>` returns meet the condition and are in their order.
        """

    @abstractmethod
    def propose(self, n: int, context: Context) -> Sequence[Proposal]:
        """Propose at most ``n`` structures.

        Called when a worker needs a candidate and the allocation chooses this source. An empty list means that the
        source has nothing to offer now; it is called again after the next outcome. A source that starts background
        work returns an empty list, too, and reports BUSY until its proposals can be collected.

        Parameters
        ----------
        n
            Largest number of proposals.
        context
            Problem, archive and random number generator of this call.
        """

    def proposed(self, candidates: Sequence[Candidate]) -> None:  # noqa: B027  # an optional hook
        """Record the candidates that were made from the proposals of one call.

        Called once after each call of :meth:`propose` that returned proposals, with all of them in order, before any
        of their outcomes; and for each such call of the past when a search is resumed.
        """

    def observe(self, outcomes: Sequence[Outcome]) -> None:  # noqa: B027  # an optional hook
        """Learn from outcomes.

        Called with the outcomes of all sources, in the order in which they were recorded, as soon as they are; and
        with those of the past when a search is resumed. Outcomes that arrived together may then be passed one by one:
        the result must not depend on their grouping.
        """

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:  # noqa: B027  # an optional hook
        """Learn from follow-up relaxations of minima of the search with other calculators.

        Called as soon as they are recorded, and with those of the past when a search is resumed, in the order of the
        events. Their energies must not be compared with those of :meth:`observe`.
        """

    def status(self) -> SourceStatus:
        """Return the present state of the source.

        Called before every choice of a source, and right after :meth:`propose`; it must be fast and change nothing.
        """
        return SourceStatus.READY

    def close(self) -> None:  # noqa: B027  # an optional hook
        """Stop background work and release resources.

        Called when the search is closed, or replaces its sources because its calculator has changed. A second call must
        do nothing.
        """
