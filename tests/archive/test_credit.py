"""Credit and costs of relaxations."""

import heapq
import math

import pytest
from crystals import followed_up, relaxed, rutile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.archive.credit import EXPECTED_FORCE_CALLS, CreditTracker, price
from hybridcsp.archive.niche_worths import FIRST_SCALE, LOWEST_NICHES, SMALLEST_SCALE
from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.core.records import ADDED, Candidate, Cost, Proposal


def candidate(number, parents=(), source="random"):
    return Candidate(proposal=Proposal(atoms=rutile(), operator="random", parents=parents), id=number, source=source)


def end(number, enthalpy, minimum=None, parents=(), force_calls=50, **changes):
    """A relaxation that was the first to reach a minimum of the same number, or reached a given one again."""
    cost = Cost(seconds=1.0, force_calls=force_calls)
    new = minimum is None
    which = {"minimum": number if new else minimum, "is_new_minimum": new}
    return relaxed(candidate(number, parents), enthalpy, cost=cost, **which | changes)


def worth(height):
    return math.exp(-height / FIRST_SCALE)


def credit(tracker, *keys):
    return pytest.approx([tracker.credit(key) for key in keys])


@pytest.fixture
def tracker():
    return CreditTracker()


def test_credit_falls_with_the_height_above_the_present_best(tracker):
    tracker.observe(end(1, -3.0), "first")
    assert credit(tracker, "first") == [1.0]
    tracker.observe(end(2, -3.0 - FIRST_SCALE), "second")
    assert credit(tracker, "first", "second") == [worth(FIRST_SCALE), 1.0]
    assert tracker.rate("second") == pytest.approx(1 / 50)


def test_niche_that_is_reached_again_is_worth_nothing(tracker):
    tracker.observe(end(1, -3.0), "first")
    tracker.observe(end(2, -3.0, minimum=1), "second")
    assert credit(tracker, "first", "second") == [0.0, 0.0]
    assert (tracker.account("second").relaxations, tracker.account("second").paid) == (1, 50.0)


def test_new_minimum_of_a_known_niche_earns_nothing(tracker):
    tracker.observe(end(1, -3.0, niche=1), "first")
    tracker.observe(end(2, -3.1, niche=1), "second")
    assert credit(tracker, "first", "second") == [0.0, 0.0]
    tracker.observe(end(3, -3.1, niche=3), "third")
    assert credit(tracker, "third") == [1.0]


def test_return_to_the_niche_of_a_parent_does_not_count_as_reaching_it_again(tracker):
    tracker.observe(end(1, -3.0, niche=1), "random")
    tracker.observe(end(2, -3.01, parents=(1,), niche=1), "hops")
    assert credit(tracker, "random", "hops") == [1.0, 0.0]
    tracker.observe(end(3, -3.0, minimum=1, niche=1, parents=(7,)), "hops")
    assert credit(tracker, "random") == [0.0]


def test_suspect_minima_earn_nothing_and_are_no_reference(tracker):
    tracker.observe(end(1, -3.0), "first")
    tracker.observe(end(2, -9.0, suspect=True), "second")
    assert credit(tracker, "first", "second") == [1.0, 0.0]


def test_scale_is_the_mean_height_of_the_next_lowest_niches(tracker):
    for number, height in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), 1):
        tracker.observe(end(number, -3.0 + height), number)
    assert credit(tracker, 1, 2, 8) == [1.0, math.exp(-0.1 / 0.4), math.exp(-0.7 / 0.4)]


def test_credit_does_not_depend_on_the_order_of_the_results():
    ends = [(-3.0, "a"), (-3.01, "b"), (-2.99, "a"), (-3.05, "c")]

    def earned(order):
        tracker = CreditTracker()
        for number, (enthalpy, key) in enumerate(order, 1):
            tracker.observe(end(number, enthalpy), key)
        return [tracker.credit(key) for key in "abc"]

    assert earned(ends) == pytest.approx(earned(ends[::-1]))


def from_scratch(outcomes):
    """The credit of all sources, by the formula, summed niche after niche."""
    suspects, niches = frozenset(), {}
    for outcome, source in outcomes:
        suspects = outcome.suspects_after(suspects)
        niche = niches.setdefault(outcome.niche, {"source": source, "enthalpy": math.inf, "relaxations": 0})
        niche["relaxations"] += 1
        niche["enthalpy"] = min(niche["enthalpy"], outcome.enthalpy_per_atom)
    niches = [niche for number, niche in niches.items() if number not in suspects]
    lowest = min((niche["enthalpy"] for niche in niches), default=math.inf)
    heights = [niche["enthalpy"] - lowest for niche in niches]
    next_lowest = heapq.nsmallest(LOWEST_NICHES + 1, heights)[1:]
    scale = max(SMALLEST_SCALE, sum(next_lowest) / LOWEST_NICHES) if len(next_lowest) == LOWEST_NICHES else FIRST_SCALE
    credit = dict.fromkeys("abc", 0.0)
    for niche, height in zip(niches, heights, strict=True):
        if niche["relaxations"] == 1:
            credit[niche["source"]] += math.exp(-height / scale)
    return credit


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 20),
            st.floats(-4, -3) | st.sampled_from([-3.5, -3.25]),
            st.sampled_from("abc"),
            st.sampled_from([None, None, None, (), (1,), (2, 3)]),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_credit_that_is_kept_up_to_date_is_that_from_scratch_to_the_last_digit(rows):
    tracker, outcomes = CreditTracker(), []
    for number, (niche, enthalpy, source, suspects, is_read) in enumerate(rows, 1):
        outcome = end(number, enthalpy, minimum=niche, niche=niche, suspects=suspects)
        tracker.observe(outcome, source)
        outcomes.append((outcome, source))
        if is_read:
            assert {key: tracker.credit(key) for key in "abc"} == from_scratch(outcomes)
    assert {key: tracker.credit(key) for key in "abc"} == from_scratch(outcomes)


def test_failed_and_unconverged_relaxations_cost_and_earn_nothing(tracker):
    tracker.observe(Failed(candidate=candidate(1), reason=FailureReason.OVERLAP, cost=Cost(force_calls=9)), "first")
    tracker.observe(relaxed(candidate(2), -4.0, converged=False, cost=Cost(force_calls=100)), "first")
    assert tracker.account("first").paid == 109
    assert credit(tracker, "first") == [0.0]


def test_closed_accounts_get_nothing_but_what_they_found_stays_known(tracker):
    tracker.observe(end(1, -3.0), "first")
    tracker.close_accounts()
    assert credit(tracker, "first") == [0.0]
    tracker.observe(end(2, -3.0, minimum=1), "second")
    tracker.observe(end(3, -3.0 + FIRST_SCALE), "second")
    assert credit(tracker, "second") == [worth(FIRST_SCALE)]


def test_uncounted_relaxations_cost_the_expected_number_and_added_structures_nothing():
    assert price(relaxed(candidate(1), -3.0)) == EXPECTED_FORCE_CALLS
    assert price(relaxed(candidate(1, source=ADDED), -3.0)) == 0


class TestFollowUpsThatCount:
    def test_niche_that_the_follow_up_calculator_puts_high_loses_its_credit(self, tracker):
        tracker.observe(end(1, -3.1), "low")
        tracker.observe(end(2, -3.1 + FIRST_SCALE), "preferred")
        tracker.observe_follow_ups([followed_up(1, -7.9), followed_up(2, -8.0, minimum=2)])
        assert credit(tracker, "low", "preferred") == [worth(0.1), 1.0]

    def test_last_calculator_decides(self, tracker):
        tracker.observe(end(1, -3.1), "only")
        tracker.observe_follow_ups([followed_up(1, -8.0)])
        tracker.observe_follow_ups([followed_up(1, -20.0, number=2, calculator="third")])
        assert credit(tracker, "only") == [1.0]

    def test_minimum_that_became_a_known_one_loses_its_credit(self, tracker):
        tracker.observe(end(1, -3.1), "first")
        tracker.observe(end(2, -3.1), "second")
        tracker.observe_follow_ups([followed_up(1, -8.0), followed_up(2, -8.0, minimum=1, is_new_minimum=False)])
        assert credit(tracker, "first", "second") == [1.0, 0.0]

    def test_lower_result_counts_for_the_same_calculator_alone(self, tracker):
        for number, key in ((1, "followed"), (2, "lower"), (3, "not followed")):
            tracker.observe(end(number, -3.1), key)
        tracker.observe_follow_ups([followed_up(1, -8.0), followed_up(2, -8.0 - FIRST_SCALE, minimum=2)])
        assert credit(tracker, "followed", "lower", "not followed") == [worth(FIRST_SCALE), 1.0, 1.0]

    def test_failed_and_unconverged_follow_ups_change_nothing(self, tracker):
        tracker.observe(end(1, -3.1), "first")
        tracker.observe_follow_ups([followed_up(1, None), followed_up(1, -9.0, minimum=None)])
        assert credit(tracker, "first") == [1.0]

    def test_results_of_another_version_of_the_calculator_replace_those_before(self, tracker):
        tracker.observe(end(1, -3.1), "first")
        tracker.observe(end(2, -3.1 + FIRST_SCALE), "second")
        tracker.observe_follow_ups([followed_up(1, -7.9), followed_up(2, -8.0, minimum=2)])
        tracker.observe_follow_ups([followed_up(2, -5.0, calculator="second (version 2)")])
        assert credit(tracker, "first", "second") == [1.0, 1.0]

    def test_closed_accounts_get_nothing(self, tracker):
        tracker.observe(end(1, -3.1), "first")
        tracker.close_accounts()
        tracker.observe_follow_ups([followed_up(1, -8.0)])
        assert credit(tracker, "first") == [0.0]
