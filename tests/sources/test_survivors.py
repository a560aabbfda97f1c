"""The rules by which minima become parents, with and without objectives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.objectives.fronts import front_numbers
from hybridcsp.objectives.goals import Goal, Goals
from hybridcsp.sources.survivors import CrowdedSurvival, LowestSurvive, ReferenceSurvival, survival

VALUES = st.floats(0, 9, allow_nan=False).map(lambda value: round(value, 1))


def goals(number: int) -> Goals:
    return Goals(tuple(Goal(name=f"value{k}", unit="", goal="max") for k in range(number)))


def criteria(number: int):
    return st.lists(st.one_of(st.none(), st.tuples(*[VALUES] * number)), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("number", "rule"), [(0, LowestSurvive), (1, CrowdedSurvival), (2, ReferenceSurvival), (4, ReferenceSurvival)]
)
def test_the_number_of_objectives_decides_about_the_rule(number, rule):
    assert type(survival(goals(number))) is rule


def test_without_objectives_the_lowest_survive_with_boltzmann_weights():
    weights = LowestSurvive().weights([0.0, 0.01, 0.1, 0.3], [None] * 4, kept=3, seed=0)
    assert list(weights) == [0, 1, 2]
    assert weights[0] == 1 > weights[1] > weights[2] > 0


@pytest.mark.parametrize(("rule", "number"), [(CrowdedSurvival(), 2), (ReferenceSurvival(), 3)])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_no_minimum_survives_instead_of_one_on_a_better_front(rule, number, data):
    points = data.draw(criteria(number))
    kept = data.draw(st.integers(1, 20))
    weights = rule.weights([0.0] * len(points), points, kept, seed=1)
    assert len(weights) == min(kept, len(points))
    assert min(weights.values()) > 0
    known = [place for place, own in enumerate(points) if own is not None]
    fronts = dict(zip(known, front_numbers([points[place] for place in known]), strict=True))
    worst = max((fronts.get(place, np.inf) for place in weights), default=0)
    assert all(fronts[place] >= worst for place in known if place not in weights)
    assert weights == rule.weights([0.0] * len(points), points, kept, seed=1)


def test_of_one_front_the_ends_and_the_isolated_are_preferred():
    line = [(0.0, 10.0), (4.9, 5.1), (5.0, 5.0), (5.1, 4.9), (7.5, 2.5), (10.0, 0.0)]
    weights = CrowdedSurvival().weights([0.0] * 6, line, kept=4, seed=0)
    assert set(weights) == {0, 1, 4, 5} or set(weights) == {0, 3, 4, 5}
    assert sorted(weights, key=weights.__getitem__)[-2:] in ([5, 0], [0, 5])


def test_directions_are_all_represented():
    corners = [(0.0, 9.0, 9.0), (9.0, 0.0, 9.0), (9.0, 9.0, 0.0)]
    near = [(0.5 + 0.01 * k, 8.9 - 0.01 * k, 8.9 + 0.001 * k) for k in range(20)]
    weights = ReferenceSurvival().weights([0.0] * 23, [*near, *corners], kept=6, seed=3)
    assert {20, 21, 22} <= set(weights)


def test_global_random_numbers_are_left_alone():
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    ReferenceSurvival().weights([0.0] * 9, [(float(k), 9.0 - k, k % 3) for k in range(9)], kept=4, seed=3)
    assert np.random.random() == expected
