"""Counts of what the operators of sources have done, and of failures in a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hybridcsp.core.records import Cost


@dataclass(kw_only=True)
class Tally:
    """The results of one operator of one source so far.

    Attributes
    ----------
    proposed
        Number of candidates.
    rejected, failed
        Numbers of rejected candidates and of failed relaxations, by reason.
    relaxed
        Number of relaxations that ended in a structure.
    unconverged
        Number of these that did not converge.
    first_reached
        Number of minima that it reached first.
    best
        Lowest enthalpy in eV/atom, by the calculator in use; ``None`` if it reached no minimum.
    cost
        Cost of all its relaxations.
    """

    proposed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    relaxed: int = 0
    unconverged: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    first_reached: int = 0
    best: float | None = None
    cost: Cost = field(default_factory=Cost)


@dataclass(kw_only=True)
class Failures:
    """Consecutive relaxations that failed for the same reason, before any has succeeded.

    Attributes
    ----------
    reason
        Value of a :class:`~hybridcsp.core.outcomes.FailureReason`.
    detail
        Explanation of the first of them.
    count
        Number of them.
    """

    reason: str
    detail: str
    count: int = 1
