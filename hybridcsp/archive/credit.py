"""Credit of sources for the low niches that they alone have reached, and the price of relaxations in force calls."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass

from hybridcsp.archive.niche_worths import LOWEST_NICHES, Niche, NicheWorths
from hybridcsp.core.outcomes import Failed, FollowUpOutcome, Relaxed
from hybridcsp.core.records import ADDED
from hybridcsp.objectives.fronts import exclusive_hypervolumes
from hybridcsp.objectives.goals import Goals

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
    """Represent the relaxations of one source, or of one version of a generator, and their price.

    Attributes
    ----------
    relaxations
        Number of relaxations.
    paid
        Force calls.
    """

    relaxations: int = 0
    paid: float = 0.0


class CreditTracker:
    r"""Track what relaxations cost, and the credit that they earn with the low niches that they alone have reached.

    The credit of a source estimates how much it can still improve the search. A niche is worth :math:`\exp(-h/t)` to
    the first that reached it, where h is its height above the lowest enthalpy at present and t the mean height of the
    next lowest niches: with an exponential lower tail of the enthalpies, the probability of a result below the lowest,
    and the expected improvement, are proportional to it (the problem of the largest of many draws from several
    sources: Cicirello, Smith, AAAI 2005; doi:10.48550/arXiv.2203.10883). It is worth nothing as soon as a second
    relaxation reaches it. What is left is the estimate of Good and Turing (doi:10.1093/biomet/40.3-4.237) of the
    probability that the next relaxation of a source ends in a low niche that none has reached yet: the share of its
    results that were reached once. Minima of a niche pay once, together. Suspect minima pay nothing. A relaxation that
    returns to the niche that a parent of its candidate came from does not count as a second one, because it began
    there.

    In a search with objectives a niche is worth the hypervolume of the Pareto front that it alone dominates, and
    nothing if it does not meet the condition of the search or has no value. The sum over the niches that a source alone
    has reached once estimates, by leaving them out one by one, the expected hypervolume improvement of its next
    relaxation (Emmerich, Giannakoglou, Naujoks, IEEE Trans. Evol. Comput. 10, 421 (2006),
    doi:10.1109/TEVC.2005.859463). The unit is the mean of the front, so that
    all its niches together are worth as many as they are, and at most eight, which is about what the lowest niches of
    an ordinary search are worth.

    Where follow-up relaxations count, the height of a niche is that by the last follow-up calculator with a result for
    it, and a niche that becomes a minimum of this calculator which another niche has already led to is worth nothing. A
    follow-up relaxation that failed changes nothing.

    Parameters
    ----------
    goals
        Objectives and conditions of the search.
    """

    def __init__(self, goals: Goals | None = None) -> None:
        self._goals = Goals() if goals is None else goals
        self._accounts: dict[Hashable, CreditAccount] = {}
        self._niches: dict[int, Niche] = {}
        self._worths: NicheWorths | None = None  # ``None`` after a change of more than the niches that follow
        self._changed: dict[int, None] = {}  # niches since then, in order
        self._niche_of: dict[int, int] = {}  # by minimum
        self._ended: dict[int, int] = {}  # niches by candidate
        self._suspects: frozenset[int] = frozenset()
        self._lowest: dict[int, float] = {}  # enthalpies by calculator
        self._labels: dict[int, str] = {}  # of follow-up calculators
        self._credit: dict[Hashable, float] | None = None  # ``None`` after a change

    def account(self, key: Hashable) -> CreditAccount:
        """Return the account of a key; it is opened if it does not exist."""
        return self._accounts.setdefault(key, CreditAccount())

    def credit(self, key: Hashable) -> float:
        """Return the credit of an account."""
        if self._credit is None:
            self._credit = self._all_credit()
        return self._credit.get(key, 0.0)

    def rate(self, key: Hashable) -> float:
        """Return the credit per force call of an account, or 0 before its first force call."""
        paid = self.account(key).paid
        return self.credit(key) / paid if paid else 0.0

    def close_accounts(self) -> None:
        """Delete all accounts; niches and enthalpies are kept, but earn nothing any more."""
        self._accounts.clear()
        for niche in self._niches.values():
            niche.key = None
        self._credit = self._worths = None

    def observe(self, outcome: Relaxed | Failed, key: Hashable | None) -> None:
        """Book a relaxation; called once for each, in the order of the events.

        Parameters
        ----------
        outcome
            Outcome of the relaxation.
        key
            Account that pays and is credited; ``None`` for no account.
        """
        if key is not None:
            own = self.account(key)
            own.relaxations += 1
            own.paid += price(outcome)
        if not isinstance(outcome, Relaxed) or outcome.minimum is None:
            return
        self.note_suspects(outcome)
        number = outcome.minimum if outcome.niche is None else outcome.niche
        self._niche_of[outcome.minimum] = number
        niche = self._niches.get(number)
        if niche is None:
            niche = self._niches[number] = Niche(key)
        elif all(self._ended.get(parent) != number for parent in outcome.candidate.proposal.parents):
            niche.reached_again = True
        self._ended[outcome.candidate.id] = number
        if outcome.objectives and outcome.enthalpy_per_atom <= niche.enthalpies.get(0, math.inf):
            niche.values = outcome.objectives
        self._lower(niche, 0, outcome.enthalpy_per_atom)
        self._changed[number] = None

    def note_suspects(self, outcome: Relaxed) -> None:
        """Take note of the minima that are suspect after a relaxation, which need not be booked."""
        self._suspects = outcome.suspects_after(self._suspects)
        self._credit = None

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Note the results of follow-up relaxations of minima, which then replace those of the search."""
        for followed in outcomes:
            end = followed.outcome
            if not isinstance(end, Relaxed) or end.minimum is None:
                continue
            self._worths = None
            if self._labels.get(followed.number) != followed.calculator:
                self._forget(followed.number)
                self._labels[followed.number] = followed.calculator
            niche = self._niches.get(self._niche_of.get(followed.of, 0))
            if niche is None:
                self._lowest[followed.number] = min(end.enthalpy_per_atom, self._lowest.get(followed.number, math.inf))
                self._credit = None
                continue
            if not end.is_new_minimum and followed.number not in niche.enthalpies:
                niche.repeated.add(followed.number)
            self._lower(niche, followed.number, end.enthalpy_per_atom)

    def _forget(self, number: int) -> None:
        """Forget the results of a follow-up calculator, whose label has changed."""
        for niche in self._niches.values():
            niche.forget(number)
        self._lowest.pop(number, None)

    def _lower(self, niche: Niche, number: int, enthalpy: float) -> None:
        niche.lower(number, enthalpy)
        self._lowest[number] = min(enthalpy, self._lowest.get(number, math.inf))
        self._credit = None

    def _all_credit(self) -> dict[Hashable, float]:
        holes = {self._niche_of[minimum] for minimum in self._suspects if minimum in self._niche_of}
        if self._goals.condition or self._goals.optimised:
            return self._credit_by_goals(holes)
        known = self._worths
        if known is None or known.holes != holes or not known.update(self._niches, self._changed):
            self._worths = known = NicheWorths(self._niches, holes, self._lowest_without(holes))
        self._changed.clear()
        return known.by_account()

    def _lowest_without(self, holes: Set[int]) -> dict[int, float]:
        """Return the lowest enthalpy of each calculator in eV/atom, that of the search without holes."""
        own = (niche.enthalpies[0] for number, niche in self._niches.items() if number not in holes)
        return self._lowest | {0: min(own, default=math.inf)}

    def _credit_by_goals(self, holes: Set[int]) -> dict[Hashable, float]:
        lowest = self._lowest_without(holes)
        heights = {
            number: niche.last_enthalpy - lowest[niche.last]
            for number, niche in self._niches.items()
            if number not in holes
        }
        if self._goals.condition:
            allow = self._goals.allow
            heights = {n: height for n, height in heights.items() if allow(self._niches[n].values, height)}
        niches = {number: self._niches[number] for number in heights}
        if not self._goals.optimised:
            return NicheWorths(niches, set(), lowest).by_account()
        credit: dict[Hashable, float] = {}
        worths = self._hypervolumes(list(zip(heights.values(), niches.values(), strict=True)))
        for niche, own in zip(niches.values(), worths, strict=True):
            if niche.key is not None and niche.pays:
                credit[niche.key] = credit.get(niche.key, 0.0) + own
        return credit

    def _hypervolumes(self, heights: Sequence[tuple[float, Niche]]) -> list[float]:
        """Return what each niche adds to the hypervolume of all, in units of the mean of the front."""
        criteria = [self._goals.criteria(niche.values, height) for height, niche in heights]
        own = iter(exclusive_hypervolumes([point for point in criteria if point is not None]).tolist())
        found = [0.0 if point is None else next(own) for point in criteria]
        number = min(LOWEST_NICHES + 1, sum(volume > 0 for volume in found))
        return [volume * number / sum(found) if volume else 0.0 for volume in found]
