"""Credit and costs of relaxations."""

import math

import pytest
from crystals import relaxed, rutile

from hybridcsp.archive.credit import CREDIT_SCALE, CreditTracker
from hybridcsp.core.records import Candidate, Cost, Proposal


def minimum(number, enthalpy, new=True, force_calls=50):
    candidate = Candidate(proposal=Proposal(atoms=rutile(), operator="random"), id=number, source="random")
    return relaxed(
        candidate, enthalpy, minimum=number, is_new_minimum=new, cost=Cost(seconds=1.0, force_calls=force_calls)
    )


def earn(tracker, outcome, key):
    tracker.account(key).earned += tracker.charge(outcome, key)


def test_earlier_credit_shrinks_when_a_better_minimum_is_found():
    tracker = CreditTracker()
    earn(tracker, minimum(1, -3.0), "first")
    earn(tracker, minimum(2, -3.0 - CREDIT_SCALE), "second")
    assert tracker.account("first").earned == pytest.approx(math.exp(-1))
    assert tracker.account("second").earned == 1.0
    assert tracker.account("second").rate == pytest.approx(1 / 50)


def test_known_minimum_costs_force_calls_and_earns_nothing():
    tracker = CreditTracker()
    earn(tracker, minimum(1, -3.0), "first")
    earn(tracker, minimum(1, -3.0, new=False), "second")
    second = tracker.account("second")
    assert (second.relaxations, second.paid, second.earned) == (1, 50.0, 0.0)


def test_costs_and_credit_are_discounted_by_half_after_the_half_life():
    tracker = CreditTracker(half_life=100.0)
    earn(tracker, minimum(1, -3.0), "first")
    tracker.charge(minimum(2, -3.0, new=False, force_calls=100), "second")
    assert (tracker.account("first").paid, tracker.account("first").earned) == (25.0, 0.5)


def test_lowest_enthalpy_is_kept_when_accounts_are_closed():
    tracker = CreditTracker()
    tracker.charge(minimum(1, -3.0), None)
    tracker.close_accounts()
    assert tracker.charge(minimum(2, -3.0 + CREDIT_SCALE), "first") == pytest.approx(math.exp(-1))
