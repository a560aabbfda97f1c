"""Credit of sources for the minima that they find, and the price of relaxations in force calls."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

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


@dataclass
class CreditAccount:
    """Represent what the relaxations of one source, or of one version of a generator, have paid and earned.

    Attributes
    ----------
    relaxations
        Number of relaxations.
    paid
        Force calls.
    earned
        Credit.
    """

    relaxations: int = 0
    paid: float = 0.0
    earned: float = 0.0

    @property
    def rate(self) -> float:
        """Credit per force call, or 0 before the first force call."""
        return self.earned / self.paid if self.paid else 0.0


class CreditTracker:
    """Track costs and credit of relaxations.

    A relaxation earns credit if it is the first to reach a minimum: ``exp(-ΔH / 20 meV)``, where ΔH is the enthalpy per
    atom above the best minimum known at present. Whenever a better minimum is found, all earlier credit shrinks by the
    corresponding factor.

    Parameters
    ----------
    half_life
        Number of force calls, of all accounts together, after which earlier costs and credit count half; by default
        they are not discounted.
    """

    def __init__(self, half_life: float = math.inf) -> None:
        self._half_life = half_life
        self._lowest: float | None = None
        self._accounts: dict[Hashable, CreditAccount] = {}

    def account(self, key: Hashable) -> CreditAccount:
        """Return the account of a key; it is opened if it does not exist."""
        return self._accounts.setdefault(key, CreditAccount())

    def close_accounts(self) -> None:
        """Delete all accounts; the lowest enthalpy is kept."""
        self._accounts.clear()

    def charge(self, outcome: Relaxed | Failed, key: Hashable | None) -> float:
        """Charge the costs of a relaxation to an account and return its credit, which the caller distributes.

        Called once for each relaxation, in the order of the events.

        Parameters
        ----------
        outcome
            Outcome of the relaxation.
        key
            Account that pays; if ``None``, none pays, and only the lowest enthalpy is noted.
        """
        cost = price(outcome)
        discount = 0.5 ** (cost / self._half_life)
        for account in self._accounts.values():
            account.earned *= discount
            account.paid *= discount
        if key is not None:
            own = self.account(key)
            own.relaxations += 1
            own.paid += cost
        return self._credit(outcome)

    def _credit(self, outcome: Relaxed | Failed) -> float:
        """Return the credit of an outcome, after earlier credit has shrunk if it lowers the best enthalpy."""
        if not isinstance(outcome, Relaxed) or outcome.minimum is None:
            return 0.0
        enthalpy, before = outcome.enthalpy_per_atom, self._lowest
        self._lowest = enthalpy if before is None else min(before, enthalpy)
        shrinking = 1.0 if before is None else math.exp((self._lowest - before) / CREDIT_SCALE)
        for account in self._accounts.values():
            account.earned *= shrinking
        return math.exp((self._lowest - enthalpy) / CREDIT_SCALE) if outcome.is_new_minimum else 0.0
