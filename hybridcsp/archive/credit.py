"""Credit that relaxations earn, and the price in force calls at which they earn it."""

from __future__ import annotations

import math

from hybridcsp.core.records import ADDED, Failed, Relaxed

#: Credit of a new minimum falls by a factor e for each so many eV/atom that it lies above the best.
CREDIT_SCALE = 0.02

EXPECTED_FORCE_CALLS = 60.0


def price(outcome: Relaxed | Failed) -> float:
    """Return the force calls of a relaxation; where nobody counted them, what one is expected to take.

    Nobody does who tells of a relaxation without them, nor a worker that dies. What was handed in without having been
    asked for is no relaxation of the search and costs what it is said to.
    """
    if outcome.candidate.source == ADDED:
        return outcome.cost.force_calls
    return outcome.cost.force_calls or EXPECTED_FORCE_CALLS


class Credit:
    """What relaxations earn: the nearer a new minimum lies to the lowest known by now, the more."""

    def __init__(self) -> None:
        self._lowest: float | None = None

    def of(self, outcome: Relaxed | Failed) -> tuple[float, float]:
        """Return what an outcome earns, and the factor by which all that was earned before shrinks.

        To be asked once for each outcome, in order. The factor is less than one where the outcome has lowered the best:
        what was near the best before lies higher above it now.
        """
        if not isinstance(outcome, Relaxed) or outcome.minimum is None:
            return 0.0, 1.0
        enthalpy, before = outcome.enthalpy_per_atom, self._lowest
        self._lowest = enthalpy if before is None else min(before, enthalpy)
        shrinking = 1.0 if before is None else math.exp((self._lowest - before) / CREDIT_SCALE)
        return math.exp((self._lowest - enthalpy) / CREDIT_SCALE) if outcome.is_new_minimum else 0.0, shrinking
