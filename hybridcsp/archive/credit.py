"""Credit of sources for the minima that they find, and the price of relaxations in force calls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from hybridcsp.core.records import ADDED, Failed, FollowUpOutcome, Relaxed

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
    credit
        Credit by the calculator that it was earned with: 0 for that of the search, from 1 for follow-up calculators.
    """

    relaxations: int = 0
    paid: float = 0.0
    credit: dict[int, float] = field(default_factory=dict)

    @property
    def earned(self) -> float:
        """Credit of all calculators together."""
        return sum(self.credit.values())

    @property
    def rate(self) -> float:
        """Credit per force call, or 0 before the first force call."""
        return self.earned / self.paid if self.paid else 0.0


@dataclass
class _Grant:
    """A share of the credit of a minimum that an account got, and what its present value follows from.

    Attributes
    ----------
    key
        Account that got it.
    share
        Fraction of the credit of the minimum.
    spent
        Force calls of all relaxations when it was granted.
    enthalpies
        Enthalpies of the minimum in eV/atom by calculator; infinite where it was known already. The last one counts.
    """

    key: Hashable
    share: float
    spent: float
    enthalpies: dict[int, float]


class CreditTracker:
    """Track costs and credit of relaxations.

    A relaxation earns credit if it is the first to reach a minimum: ``exp(-ΔH / 20 meV)``, where ΔH is the enthalpy per
    atom above the best minimum known at present. Whenever a better minimum is found, all earlier credit shrinks by the
    corresponding factor.

    Where follow-up relaxations count, the credit of a minimum is that of its last result: when a follow-up relaxation
    has ended, the credit that the minimum has earned so far is taken back, and the same accounts get, in the same
    shares, what ``exp(-ΔH / 20 meV)`` by the follow-up calculator is worth. It is nothing if an earlier follow-up
    relaxation has ended in the same minimum of that calculator. So no minimum earns twice, and a minimum that the
    follow-up calculator puts high loses what it had earned. A follow-up relaxation that failed changes nothing.

    Parameters
    ----------
    half_life
        Number of force calls, of all accounts together, after which earlier costs and credit count half; by default
        they are not discounted.
    """

    def __init__(self, half_life: float = math.inf) -> None:
        self._half_life = half_life
        self._spent = 0.0  # force calls
        self._lowest: dict[int, float] = {}  # by calculator
        self._labels: dict[int, str] = {}  # of follow-up calculators
        self._accounts: dict[Hashable, CreditAccount] = {}
        self._grants: defaultdict[int, list[_Grant]] = defaultdict(list)  # by minimum

    def account(self, key: Hashable) -> CreditAccount:
        """Return the account of a key; it is opened if it does not exist."""
        return self._accounts.setdefault(key, CreditAccount())

    def close_accounts(self) -> None:
        """Delete all accounts; the lowest enthalpies are kept."""
        self._accounts.clear()
        self._grants.clear()

    def charge(self, outcome: Relaxed | Failed, key: Hashable | None) -> float:
        """Charge the costs of a relaxation to an account and return its credit, which the caller grants.

        Called once for each relaxation, in the order of the events.

        Parameters
        ----------
        outcome
            Outcome of the relaxation.
        key
            Account that pays; if ``None``, none pays, and only the lowest enthalpy is noted.
        """
        cost = price(outcome)
        self._spent += cost
        discount = self._discount(cost)
        for account in self._accounts.values():
            account.credit = {number: credit * discount for number, credit in account.credit.items()}
            account.paid *= discount
        if key is not None:
            own = self.account(key)
            own.relaxations += 1
            own.paid += cost
        if not isinstance(outcome, Relaxed) or outcome.minimum is None:
            return 0.0
        self._lower(0, outcome.enthalpy_per_atom)
        return self._worth(0, outcome.enthalpy_per_atom) if outcome.is_new_minimum else 0.0

    def grant(self, outcome: Relaxed, key: Hashable, credit: float) -> None:
        """Give an account a part of the credit that :meth:`charge` has just returned for a relaxation."""
        earned = self.account(key).credit
        earned[0] = earned.get(0, 0.0) + credit
        enthalpy = outcome.enthalpy_per_atom
        if outcome.minimum is not None and credit:
            share = credit / self._worth(0, enthalpy)
            self._grants[outcome.minimum].append(_Grant(key, share, self._spent, {0: enthalpy}))

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Replace the credit of minima by what the results of their follow-up relaxations are worth."""
        for followed in outcomes:
            end = followed.outcome
            if not isinstance(end, Relaxed) or end.minimum is None:
                continue
            if self._labels.get(followed.number) != followed.calculator:
                self._forget(followed.number)
                self._labels[followed.number] = followed.calculator
            self._lower(followed.number, end.enthalpy_per_atom)
            for grant in self._grants.get(followed.of, ()):
                enthalpy = end.enthalpy_per_atom if end.is_new_minimum else math.inf
                self._revise(grant, {**grant.enthalpies, followed.number: enthalpy})

    def _forget(self, number: int) -> None:
        """Take back what was earned with a follow-up calculator, whose label has changed."""
        for grants in self._grants.values():
            for grant in grants:
                if number in grant.enthalpies:
                    others = {other: enthalpy for other, enthalpy in grant.enthalpies.items() if other != number}
                    self._revise(grant, others)
        for account in self._accounts.values():
            account.credit.pop(number, None)
        self._lowest.pop(number, None)

    def _revise(self, grant: _Grant, enthalpies: dict[int, float]) -> None:
        account = self._accounts.get(grant.key)
        if account is not None:
            for sign, known in ((-1, grant.enthalpies), (1, enthalpies)):
                number = max(known)
                worth = grant.share * self._worth(number, known[number]) * self._discount(self._spent - grant.spent)
                account.credit[number] = account.credit.get(number, 0.0) + sign * worth
        grant.enthalpies = enthalpies

    def _discount(self, force_calls: float) -> float:
        return float(0.5 ** (force_calls / self._half_life))

    def _worth(self, number: int, enthalpy: float) -> float:
        """Return the credit that a minimum of this enthalpy by a calculator is worth at present."""
        return math.exp((self._lowest[number] - enthalpy) / CREDIT_SCALE)

    def _lower(self, number: int, enthalpy: float) -> None:
        """Note an enthalpy by a calculator, and shrink the credit earned with it if that is the lowest so far."""
        before = self._lowest.get(number)
        if before is None or enthalpy < before:
            self._lowest[number] = enthalpy
        if before is not None and enthalpy < before:
            shrinking = math.exp((enthalpy - before) / CREDIT_SCALE)
            for account in self._accounts.values():
                if number in account.credit:
                    account.credit[number] *= shrinking
