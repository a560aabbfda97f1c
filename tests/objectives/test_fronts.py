"""Pareto fronts and hypervolumes, against their definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridcsp.analysis.fronts import staircase
from hybridcsp.objectives.fronts import exclusive_hypervolumes, front_numbers, hypervolume, is_on_front

COORDINATES = st.integers(0, 6).map(float)  # few values, so that points are often equal in a coordinate or twice there
POINTS = st.integers(2, 3).flatmap(lambda n: st.lists(st.tuples(*[COORDINATES] * n), min_size=1, max_size=12))


def dominates(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Return whether a point is nowhere worse than another and somewhere better."""
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def brute_force_numbers(points: list[tuple[float, ...]]) -> list[int]:
    numbers: dict[int, int] = {}
    front = 0
    while left := [k for k in range(len(points)) if k not in numbers]:
        own = [k for k in left if not any(dominates(points[other], points[k]) for other in left)]
        numbers.update(dict.fromkeys(own, front))
        front += 1
    return [numbers[k] for k in range(len(points))]


def brute_force_volume(points: np.ndarray, reference: float) -> float:
    """Return the dominated volume by summing the boxes of the grid that the coordinates make."""
    axes = [np.unique([*points[:, k], reference]) for k in range(points.shape[1])]
    axes = [axis[axis <= reference] for axis in axes]
    total = 0.0
    for corner in np.ndindex(*(max(len(axis) - 1, 0) for axis in axes)):
        low = np.array([axis[k] for axis, k in zip(axes, corner, strict=True)])
        high = np.array([axis[k + 1] for axis, k in zip(axes, corner, strict=True)])
        if (points <= low).all(axis=1).any():
            total += float(np.prod(high - low))
    return total


@settings(deadline=None, max_examples=50)
@given(POINTS)
def test_fronts_are_those_of_the_definition(points: list[tuple[float, ...]]) -> None:
    expected = brute_force_numbers(points)
    assert front_numbers(points).tolist() == expected
    assert is_on_front(points).tolist() == [number == 0 for number in expected]


@settings(deadline=None, max_examples=50)
@given(POINTS)
def test_the_hypervolume_is_the_dominated_volume(points: list[tuple[float, ...]]) -> None:
    array = np.array(points)
    ideal, nadir = np.zeros(array.shape[1]), np.full(array.shape[1], 5.0)
    expected = brute_force_volume(array / 5, 1.1) / 1.1 ** array.shape[1]
    assert hypervolume(points, ideal, nadir) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(POINTS)
def test_an_exclusive_hypervolume_is_what_is_lost_without_the_point(points: list[tuple[float, ...]]) -> None:
    array = np.array(points)
    front = array[is_on_front(array)]
    width = np.where(np.ptp(front, axis=0) > 0, np.ptp(front, axis=0), 1.0)
    scaled = (front - front.min(axis=0)) / width
    whole = brute_force_volume(scaled, 1.1)
    lost = iter([whole - brute_force_volume(np.delete(scaled, k, axis=0), 1.1) for k in range(len(scaled))])
    expected = [next(lost) if on_front else 0.0 for on_front in is_on_front(array)]
    assert exclusive_hypervolumes(points) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=12))
def test_the_step_line_separates_what_is_dominated(points: list[tuple[float, float]]) -> None:
    line = staircase(points, (7.0, 7.0))
    front = {point for point, on_front in zip(points, is_on_front(points), strict=True) if on_front}
    assert front == set(line[1::2])
    assert all(before[0] == after[0] or before[1] == after[1] for before, after in pairwise(line))
    assert (line[0][1], line[-1][0]) == (7.0, 7.0)


def test_no_points_have_no_front() -> None:
    assert front_numbers([]).size == is_on_front([]).size == exclusive_hypervolumes([]).size == 0
    assert hypervolume([], np.zeros(2), np.ones(2)) == 0
    assert staircase([], (1.0, 1.0)) == []
