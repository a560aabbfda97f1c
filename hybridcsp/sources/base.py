"""Where candidates come from: one file for each source, and the interface they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hybridcsp.archive.archive import Archive
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Outcome, Proposal


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a source may look at when it proposes.

    Attributes
    ----------
    problem
        What is searched.
    archive
        Everything found so far, to read.
    rng
        The only randomness to use: the k-th call of a source draws from the same stream in every run of a seed.
    """

    problem: Problem
    archive: Archive
    rng: np.random.Generator


class Source(Protocol):
    """Something that proposes structures; it never calls a calculator.

    A source is built by its class as ``SomeSource(problem, argument=None)``, where ``argument`` is what follows the
    colon in ``name:argument``. Its state may change in :meth:`proposed` and :meth:`observe` only: when a search is
    taken up again these two are called as they were before, in the same order, and :meth:`propose` is not.

    A source that works best on what others find may have a property ``ready``: while that is false, it is called only
    where no other source is ready. It says in ``starts`` from when on it is, as in "it starts after 6 minima". One that
    cannot work without has ``needs_others = True``: it is never called then, and refused alone. One that makes
    proposals beside the search has a property ``preparing``, true from the call that begins until the one that returns
    them: it is not called before it is ready, and a search that has nothing else to do waits for it. What that took is
    told by a growing attribute ``seconds_beside``. What it holds is let go in ``close()``, if it has that.
    """

    @property
    def exhausted(self) -> bool:
        """Whether it will never propose anything again."""

    def propose(self, n: int, context: Context) -> Sequence[Proposal]:
        """Return at most ``n`` proposals; none when it has nothing to offer now."""

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Take note of what its proposals became: all that one call returned, in order, before any outcome."""

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from the outcomes of every source, in the order of their sequence."""
