"""Credit of sources for the minima that they find, and the price of relaxations in force calls."""

from __future__ import annotations

import math

from hybridcsp.core.records import ADDED, Failed, Relaxed

#: Energy in eV/atom above the best minimum at which the credit of a new minimum has fallen by a factor e.
CREDIT_SCALE = 0.02

#: Price of a relaxation whose force calls are not known.
EXPECTED_FORCE_CALLS = 60.0


def price(outcome: Relaxed | Failed) -> float:
    """Return the force calls of a relaxation, or the expected number if they were not counted.

    They are not counted if a person reports a relaxation without them, or if a worker dies. A structure that a person
    added unrequested is not a relaxation of the search and costs the force calls that were reported with it.
    """
    if outcome.candidate.source == ADDED:
        return outcome.cost.force_calls
    return outcome.cost.force_calls or EXPECTED_FORCE_CALLS


class Credit:
    """Credit for new minima, which is the larger the nearer they lie to the lowest minimum known so far."""

    def __init__(self) -> None:
        self._lowest: float | None = None

    def of(self, outcome: Relaxed | Failed) -> tuple[float, float]:
        """Return the credit of an outcome, and the factor by which all earlier credit shrinks.

        This is called once for each outcome, in order. The factor is less than one if the outcome has lowered the best
        enthalpy: earlier minima that were near the best lie higher above it now.
        """
        if not isinstance(outcome, Relaxed) or outcome.minimum is None:
            return 0.0, 1.0
        enthalpy, before = outcome.enthalpy_per_atom, self._lowest
        self._lowest = enthalpy if before is None else min(before, enthalpy)
        shrinking = 1.0 if before is None else math.exp((self._lowest - before) / CREDIT_SCALE)
        return math.exp((self._lowest - enthalpy) / CREDIT_SCALE) if outcome.is_new_minimum else 0.0, shrinking
