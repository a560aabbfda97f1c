"""The choice of the minima that breed, and of the weights by which they become parents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
from deap import base, tools

from hybridcsp.objectives.goals import Goals

#: Lowest and highest selection temperature in eV/atom.
COLDEST, WARMEST = 0.002, 0.04

#: Criteria of a minimum, all of which are the better the smaller; ``None`` if a value is missing.
Criteria = tuple[float, ...] | None


class Survival(ABC):
    """Base class of the rules by which some of the diverse minima of a search become parents.

    Attributes
    ----------
    choices
        Number of diverse minima from which the parents are chosen, in sizes of the population.
    """

    choices: ClassVar[int] = 2

    @abstractmethod
    def weights(self, heights: Sequence[float], criteria: Sequence[Criteria], kept: int, seed: int) -> dict[int, float]:
        """Return the weights of the minima that may become parents, by their places in the arguments.

        Parameters
        ----------
        heights
            Heights by which the search prefers the minima, in eV/atom, the preferred ones first.
        criteria
            Their criteria: height and objectives.
        kept
            Number of minima that may become parents.
        seed
            Seed of random choices.
        """


class LowestSurvive(Survival):
    """Keep the lowest minima, with Boltzmann weights."""

    choices = 1

    def weights(self, heights: Sequence[float], criteria: Sequence[Criteria], kept: int, seed: int) -> dict[int, float]:
        """Return the Boltzmann weights of the first minima at the selection temperature."""
        return dict(enumerate(boltzmann_weights(heights[:kept])))


class CrowdedSurvival(Survival):
    """Keep the best fronts and thin out the last of them where it is crowded, as in NSGA-II; for two criteria.

    The weight of a minimum is the probability with which it wins a binary tournament: that with the lower number of
    its front, or of one front the one with the larger crowding distance, wins.

    References
    ----------
    Deb, Pratap, Agarwal, Meyarivan, IEEE Trans. Evol. Comput. 6, 182 (2002), doi:10.1109/4235.996017.
    """

    def weights(self, heights: Sequence[float], criteria: Sequence[Criteria], kept: int, seed: int) -> dict[int, float]:
        """Return the weights of the minima that NSGA-II selects; those without a value are last."""
        points = _points(criteria)
        if points:
            tools.selNSGA2(points, len(points))  # computes the crowding distances
        order = [
            point.place
            for front in (tools.sortNondominated(points, len(points)) if points else ())
            for point in sorted(front, key=lambda one: (-one.fitness.crowding_dist, one.place))
        ]
        order = _filled(order, criteria)[:kept]
        return {place: float(2 * (len(order) - k) - 1) for k, place in enumerate(order)}


class ReferenceSurvival(Survival):
    """Keep the best fronts, and those of the last that are close to evenly spread directions, as in NSGA-III.

    All that are kept have the same weight. For three and more criteria, among which crowding distances tell little.

    References
    ----------
    Deb, Jain, IEEE Trans. Evol. Comput. 18, 577 (2014), doi:10.1109/TEVC.2013.2281535.
    """

    def weights(self, heights: Sequence[float], criteria: Sequence[Criteria], kept: int, seed: int) -> dict[int, float]:
        """Return equal weights for the minima that NSGA-III selects; those without a value are last."""
        points, order = _points(criteria), []
        if points:
            directions = _directions(len(points[0].fitness.values), kept)
            with _numpy_seeded(seed):
                chosen = tools.selNSGA3(points, min(kept, len(points)), directions)
            order = sorted(point.place for point in chosen)
        return dict.fromkeys(_filled(order, criteria)[:kept] if len(order) < kept else order, 1.0)


def survival(goals: Goals) -> Survival:
    """Return the rule for a search with some goals: that of NSGA-II with one objective, of NSGA-III with several."""
    rules = (LowestSurvive, CrowdedSurvival, ReferenceSurvival)
    return rules[min(len(goals.optimised), len(rules) - 1)]()


def boltzmann_weights(heights: Sequence[float]) -> list[float]:
    """Return the weights of heights (eV/atom) at the selection temperature: 1 for the lowest."""
    if not heights:
        return []
    lowest = min(heights)
    temperature = min(max(float(np.median(heights)) - lowest, COLDEST), WARMEST)
    return [math.exp((lowest - height) / temperature) for height in heights]


class _Point:
    """A minimum as DEAP selects it."""

    def __init__(self, place: int, criteria: tuple[float, ...]) -> None:
        kind = type("Criteria", (base.Fitness,), {"weights": (-1.0,) * len(criteria)})
        self.place, self.fitness = place, kind(criteria)


def _points(criteria: Sequence[Criteria]) -> list[_Point]:
    return [_Point(place, own) for place, own in enumerate(criteria) if own is not None]


def _filled(order: Sequence[int], criteria: Sequence[Criteria]) -> list[int]:
    """Return places with those of minima without a value behind them."""
    return [*order, *(place for place, own in enumerate(criteria) if own is None)]


def _directions(number: int, wanted: int) -> np.ndarray:
    """Return evenly spread directions, shape ``(n, number)``, at least as many as wanted."""
    divisions = 1
    while math.comb(number + divisions - 1, divisions) < wanted:
        divisions += 1
    return np.asarray(tools.uniform_reference_points(number, divisions))


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed the global random numbers of NumPy, which DEAP uses here, and restore their state afterwards."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)
