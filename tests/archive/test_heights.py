"""Heights of minima as sources derive them from outcomes."""

from dataclasses import replace

import pytest
from crystals import followed_up, relaxed, rutile

from hybridcsp.archive.heights import Heights
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.objectives.conditions import Condition
from hybridcsp.objectives.goals import Goals


def found(minimum, enthalpy):
    candidate = Candidate(proposal=Proposal(atoms=rutile(), operator="random"), id=minimum, source="random")
    return relaxed(candidate, enthalpy, minimum=minimum, is_new_minimum=True)


def heights_of(*minima):
    heights = Heights()
    for number, enthalpy in enumerate(minima, start=1):
        heights.observe(found(number, enthalpy))
    return heights


def test_without_follow_ups_nothing_is_shifted():
    assert [heights_of(-3.1, -3.0).shift(minimum) for minimum in (1, 2, 3, None)] == [0.0] * 4


def test_minimum_that_a_follow_up_calculator_puts_high_is_shifted_up_and_one_that_it_prefers_down():
    heights = heights_of(-3.1, -3.0, -2.9)
    for minimum, enthalpy in ((1, -7.95), (2, -8.0)):
        heights.observe_follow_up(followed_up(minimum, enthalpy))
    assert heights.shift(1) == pytest.approx(0.05)  # 0.05 above the lowest instead of 0
    assert heights.shift(2) == pytest.approx(-0.1)  # the lowest instead of 0.1 above
    assert heights.shift(3) == 0.0
    assert heights.shifted(found(2, -2.98)) == pytest.approx(-3.08)


def test_last_calculator_with_a_result_counts():
    heights = heights_of(-3.1, -3.0)
    heights.observe_follow_up(followed_up(1, -8.0))
    heights.observe_follow_up(followed_up(2, -7.9))
    heights.observe_follow_up(followed_up(2, -20.0, number=2, calculator="third"))
    assert heights.shift(2) == pytest.approx(-0.1)
    assert heights.shift(1) == pytest.approx(0.0)


def test_failed_and_unconverged_follow_ups_change_nothing():
    heights = heights_of(-3.1, -3.0)
    heights.observe_follow_up(followed_up(1, -7.0, minimum=None))
    heights.observe_follow_up(followed_up(2, None))
    assert (heights.shift(1), heights.shift(2)) == (0.0, 0.0)


def test_results_under_another_label_are_forgotten():
    heights = heights_of(-3.1, -3.0)
    heights.observe_follow_up(followed_up(1, -7.0))
    heights.observe_follow_up(followed_up(2, -8.0))
    heights.observe_follow_up(followed_up(2, -5.0, calculator="second (version 2)"))
    assert heights.shift(1) == 0.0
    assert heights.shift(2) == pytest.approx(-0.1)


class TestConditions:
    def test_a_minimum_is_allowed_while_it_is_low_enough(self):
        heights = Heights(Goals((), Condition("height < 0.15")))
        low, high = found(1, -3.0), found(2, -2.9)
        for end in (low, high):
            heights.observe(end)
        assert heights.allow(low)
        assert heights.allow(high)
        heights.observe(found(3, -3.1))
        assert heights.allow(low)
        assert not heights.allow(high)

    def test_values_are_those_of_the_lowest_relaxation_that_has_any(self):
        heights = Heights(Goals((), Condition("density > 4")))
        for enthalpy, values in ((-3.0, {"density": 3.9}), (-3.05, {"density": 4.1}), (-3.04, {"density": 3.8})):
            heights.observe(replace(found(1, enthalpy), objectives=values))
        assert heights.allow(found(1, -3.05))  # such as one that ended early there, without values of its own
        assert not heights.allow(found(2, -3.0))

    def test_without_a_condition_everything_is_allowed(self):
        assert heights_of(-3.1).allow(found(7, 100.0))
