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


class Tallies(dict[tuple[str, str], Tally]):
    """The results of a search by source and operator."""

    def __init__(self) -> None:
        super().__init__()
        self._bests: dict[str, dict[tuple[str, str], float]] = {}  # by calculators used before

    def entry(self, source: str, operator: str) -> Tally:
        """Return the tally of an operator of a source, which is added if it has proposed nothing yet."""
        tally = self.get((source, operator))
        if tally is None:
            tally = self[source, operator] = Tally()
        return tally

    def of_operator(self, source: str, operator: str) -> Tally:
        """Return the results of an operator of a source; an empty tally if it has proposed nothing."""
        return self.get((source, operator)) or Tally()

    def of_source(self, source: str) -> dict[str, Tally]:
        """Return the results of a source by operator."""
        return {operator: tally for (name, operator), tally in self.items() if name == source}

    def rejected(self) -> Counter[str]:
        """Return the numbers of rejected candidates by reason."""
        return sum((tally.rejected for tally in self.values()), Counter[str]())

    def failed(self) -> Counter[str]:
        """Return the numbers of failed relaxations by reason."""
        return sum((tally.failed for tally in self.values()), Counter[str]())

    def change_calculator(self, before: str, after: str) -> None:
        """Replace the lowest enthalpies, which are of one calculator, by those of another one that is used instead."""
        self._bests[before] = {name: tally.best for name, tally in self.items() if tally.best is not None}
        known = self._bests.get(after, {})
        for name, tally in self.items():
            tally.best = known.get(name)


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


@dataclass(kw_only=True)
class WorkerResults:
    """Successes and failures of relaxations by the workers with one calculator.

    Attributes
    ----------
    attempts, successes
        Number of relaxations, and number of these that ended in a structure.
    failures
        Last relaxations, if none has succeeded and these failed for the same reason; those from before a run that ended
        for this reason do not count.
    """

    attempts: int = 0
    successes: int = 0
    failures: Failures | None = None

    def add_success(self) -> None:
        """Count a relaxation that ended in a structure."""
        self.attempts += 1
        self.successes += 1
        self.failures = None

    def add_failure(self, reason: str, detail: str) -> None:
        """Count a relaxation that failed."""
        self.attempts += 1
        if self.successes:
            return
        # Details are not compared: they hold numbers, and a calculator that has failed may fail otherwise from then on.
        if self.failures is not None and self.failures.reason == reason:
            self.failures.count += 1
        else:
            self.failures = Failures(reason=reason, detail=detail)
