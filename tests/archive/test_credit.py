"""Credit and costs of relaxations."""

import math

import pytest
from crystals import followed_up, relaxed, rutile

from hybridcsp.archive.credit import CREDIT_SCALE, CreditTracker
from hybridcsp.core.records import Candidate, Cost, Proposal


def minimum(number, enthalpy, new=True, force_calls=50):
    candidate = Candidate(proposal=Proposal(atoms=rutile(), operator="random"), id=number, source="random")
    return relaxed(
        candidate, enthalpy, minimum=number, is_new_minimum=new, cost=Cost(seconds=1.0, force_calls=force_calls)
    )


def earn(tracker, outcome, key):
    tracker.grant(outcome, key, tracker.charge(outcome, key))


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


def worth(height):
    return math.exp(-height / CREDIT_SCALE)


def earned(tracker, *keys):
    return pytest.approx([tracker.account(key).earned for key in keys])


class TestFollowUpsThatCount:
    def test_minimum_that_the_follow_up_calculator_puts_high_loses_its_credit(self):
        tracker = CreditTracker()
        earn(tracker, minimum(1, -3.1), "low")
        earn(tracker, minimum(2, -3.1 + CREDIT_SCALE), "preferred")
        tracker.observe_follow_ups([followed_up(1, -7.9), followed_up(2, -8.0, minimum=2)])
        assert [worth(0.1), 1.0] == earned(tracker, "low", "preferred")

    def test_credit_is_replaced_and_not_given_twice(self):
        tracker = CreditTracker()
        earn(tracker, minimum(1, -3.1), "only")
        tracker.observe_follow_ups([followed_up(1, -8.0)])
        assert earned(tracker, "only") == [1.0]
        tracker.observe_follow_ups([followed_up(1, -20.0, number=2, calculator="third")])
        assert earned(tracker, "only") == [1.0]

    def test_minimum_that_became_a_known_one_loses_its_credit(self):
        tracker = CreditTracker()
        earn(tracker, minimum(1, -3.1), "first")
        earn(tracker, minimum(2, -3.1), "second")
        tracker.observe_follow_ups([followed_up(1, -8.0), followed_up(2, -8.0, minimum=1, is_new_minimum=False)])
        assert earned(tracker, "first", "second") == [1.0, 0.0]

    def test_lower_result_shrinks_the_credit_of_the_same_calculator_alone(self):
        tracker = CreditTracker()
        for number, key in ((1, "followed"), (2, "lower"), (3, "not followed")):
            earn(tracker, minimum(number, -3.1), key)
        tracker.observe_follow_ups([followed_up(1, -8.0), followed_up(2, -8.0 - CREDIT_SCALE, minimum=2)])
        assert [worth(CREDIT_SCALE), 1.0, 1.0] == earned(tracker, "followed", "lower", "not followed")

    def test_shares_and_discount_are_those_of_the_relaxation(self):
        tracker = CreditTracker(half_life=100.0)
        outcome = minimum(1, -3.1)
        credit = tracker.charge(outcome, "child")
        tracker.grant(outcome, "child", 0.7 * credit)
        tracker.grant(outcome, "parent", 0.3 * credit)
        tracker.charge(minimum(2, -3.1, new=False, force_calls=100), "child")
        tracker.observe_follow_ups([followed_up(1, -8.0)])
        assert earned(tracker, "child", "parent") == [0.35, 0.15]
        tracker.observe_follow_ups([followed_up(9, -8.0 - CREDIT_SCALE)])
        tracker.charge(minimum(2, -3.1, new=False, force_calls=100), "child")
        assert [0.175 * worth(CREDIT_SCALE), 0.075 * worth(CREDIT_SCALE)] == earned(tracker, "child", "parent")

    def test_failed_and_unconverged_follow_ups_change_nothing(self):
        tracker = CreditTracker()
        earn(tracker, minimum(1, -3.1), "first")
        tracker.observe_follow_ups([followed_up(1, None), followed_up(1, -9.0, minimum=None)])
        assert earned(tracker, "first") == [1.0]

    def test_results_of_another_version_of_the_calculator_replace_those_before(self):
        tracker = CreditTracker()
        earn(tracker, minimum(1, -3.1), "first")
        earn(tracker, minimum(2, -3.1 + CREDIT_SCALE), "second")
        tracker.observe_follow_ups([followed_up(1, -7.9), followed_up(2, -8.0, minimum=2)])
        tracker.observe_follow_ups([followed_up(2, -5.0, calculator="second (version 2)")])
        assert earned(tracker, "first", "second") == [1.0, 1.0]

    def test_closed_accounts_get_nothing(self):
        tracker = CreditTracker()
        earn(tracker, minimum(1, -3.1), "first")
        tracker.close_accounts()
        tracker.observe_follow_ups([followed_up(1, -8.0)])
        assert tracker.account("first").earned == 0.0
