"""The order in which goals prefer minima, and the credit of sources by what they add to the front."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from crystals import relaxed, rutile

from hybridcsp.archive.credit import CreditTracker
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.objectives.conditions import Condition
from hybridcsp.objectives.goals import Goal, Goals, best_of_all

DENSITY = Goal(name="density", unit="g/cm³", goal="max")
GAP = Goal(name="gap", unit="eV", goal=1.5)


def minimum(**values):
    return SimpleNamespace(objectives=values)


def test_goals_say_which_values_are_better():
    assert DENSITY.criterion(5.0) < DENSITY.criterion(4.0)
    assert GAP.criterion(1.4) == pytest.approx(GAP.criterion(1.6))
    assert GAP.criterion(1.5) == 0
    assert Goal(name="volume", unit="", goal="min").criterion(2.0) == 2.0


def test_fronts_come_in_order_and_the_lower_first_within_each():
    low, dense, beaten, unknown = minimum(density=4.0), minimum(density=5.0), minimum(density=3.9), minimum()
    order = Goals((DENSITY,)).preferred([(low, 0.0), (unknown, 0.01), (beaten, 0.02), (dense, 0.3)])
    assert [one for one, _ in order] == [low, dense, beaten, unknown]
    preferences = [preference for _, preference in order]
    assert preferences[0] == preferences[1] == 0 < preferences[2] < preferences[3]


def test_only_what_meets_the_condition_is_preferred():
    goals = Goals((DENSITY,), Condition("height < 0.2 and density > 4"))
    kept, high, light, unknown = minimum(density=5.0), minimum(density=9.0), minimum(density=3.0), minimum()
    assert [one for one, _ in goals.preferred([(kept, 0.1), (light, 0.0), (unknown, 0.0), (high, 0.3)])] == [kept]
    assert goals.condition.unmet({"height": 0.3, "density": 3.0}) == ("height < 0.2", "density > 4")
    assert goals.condition.unmet({"height": 0.1}) == ("density > 4",)


def test_the_best_values_are_those_of_minima_that_meet_the_condition():
    goals = Goals((DENSITY, GAP, Goal(name="volume", unit="", goal="report")), Condition("height < 0.2"))
    minima = [(minimum(density=4.0, gap=1.9), 0.0), (minimum(density=5.0), 0.1), (minimum(density=9.0, gap=1.5), 0.3)]
    density, gap = goals.best_values(minima)
    assert (density.name, density.value, gap.name, gap.value) == ("density", 5.0, "gap", 1.9)
    assert (str(density), str(gap)) == ("density 5 g/cm³", "gap 1.9 eV")
    assert [one.value for one in goals.best_values(minima[2:])] == [None, None]
    assert best_of_all([gap, *goals.best_values([(minimum(gap=1.4), 0.0)])[1:]]).value == 1.4
    assert Goals().best_values(minima) == ()


def test_reported_values_change_no_order():
    shown = Goals((Goal(name="density", unit="", goal="report"),))
    heights = [(minimum(density=1.0), 0.0), (minimum(density=9.0), 0.1)]
    assert shown.preferred(heights) == heights


def reached(number, enthalpy, source, **values):
    candidate = Candidate(proposal=Proposal(atoms=rutile(), operator="made"), id=number, source=source)
    return relaxed(candidate, enthalpy, minimum=number, is_new_minimum=True, niche=number, objectives=values)


def test_credit_goes_to_what_only_one_source_adds_to_the_front():
    credit = CreditTracker(Goals((DENSITY,)))
    for number, (enthalpy, source, density) in enumerate(
        [(-3.0, "random", 4.0), (-2.9, "evolution", 5.0), (-2.8, "swarm", 4.5)], start=1
    ):
        credit.observe(reached(number, enthalpy, source, density=density), source)
    assert credit.credit("random") > 0
    assert credit.credit("evolution") > 0
    assert credit.credit("swarm") == 0  # its minimum is neither lower nor denser than the second
    assert credit.credit("random") + credit.credit("evolution") == pytest.approx(2.0)


def test_minima_that_violate_the_condition_or_have_no_value_earn_nothing():
    credit = CreditTracker(Goals((DENSITY,), Condition("density < 4.5")))
    credit.observe(reached(1, -3.0, "random", density=4.0), "random")
    credit.observe(reached(2, -2.9, "evolution", density=5.0), "evolution")
    credit.observe(reached(3, -3.1, "swarm"), "swarm")
    assert credit.credit("random") > 0 == credit.credit("evolution") == credit.credit("swarm")
