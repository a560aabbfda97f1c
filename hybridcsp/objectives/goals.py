"""The goals of a search: which minima its conditions allow, and by which numbers these are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from ase import Atoms

from hybridcsp.objectives.base import MAXIMUM, MINIMUM, REPORTED
from hybridcsp.objectives.conditions import HEIGHT, Condition
from hybridcsp.objectives.fronts import front_numbers

#: Height in eV/atom that each front counts as where minima are weighted by their heights.
HEIGHT_OF_A_FRONT = 0.02


class HasObjectives(Protocol):
    """A minimum with the values of its objectives."""

    @property
    def objectives(self) -> Mapping[str, float]:
        """Values by name, without those that could not be computed."""


_M = TypeVar("_M", bound=HasObjectives)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """An objective as the results of a search are judged by it.

    Attributes
    ----------
    name, unit
        Name and unit of the value.
    goal
        ``"min"``, ``"max"``, ``"report"``, or a number near which values are preferred.
    """

    name: str
    unit: str
    goal: str | float

    @property
    def is_optimised(self) -> bool:
        """Whether some values are preferred to others."""
        return self.goal != REPORTED

    def criterion(self, value: float) -> float:
        """Return a number that is the smaller, the better the value is."""
        if isinstance(self.goal, float | int):
            return abs(value - self.goal)
        return {MINIMUM: value, MAXIMUM: -value}[self.goal]

    @property
    def in_words(self) -> str:
        """The goal in words: "density (g/cm³): as large as possible"."""
        unit = f" ({self.unit})" if self.unit else ""
        words = {MINIMUM: "as small as possible", MAXIMUM: "as large as possible", REPORTED: "shown"}
        wanted = words.get(str(self.goal)) or f"near {self.goal:g}"
        return f"{self.name}{unit}: {wanted}"


@dataclass(frozen=True, kw_only=True)
class BestValue(Goal):
    """The best value of an objective among minima that meet the condition of a search.

    Attributes
    ----------
    value
        The value; ``None`` if no such minimum has one.
    """

    value: float | None = None

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.4g}"
        return f"{self.name} {value}{f' {self.unit}' if self.unit and self.value is not None else ''}"


def best_of_all(values: Sequence[BestValue]) -> BestValue:
    """Return the best of several values of the same objective."""
    known = [(one.criterion(one.value), number) for number, one in enumerate(values) if one.value is not None]
    return values[min(known)[1]] if known else values[0]


class Goals:
    """The goals of a search beside a low enthalpy; none in an ordinary search.

    Parameters
    ----------
    objectives
        The objectives.
    condition
        Condition on values and heights that minima must meet to become parents, starts, lessons or part of a front.

    Attributes
    ----------
    objectives, condition
        The parameters.
    optimised
        The objectives some values of which are preferred.
    estimators
        Functions that estimate the values of objectives for structures that are not relaxed, by name.
    """

    def __init__(self, objectives: tuple[Goal, ...] = (), condition: Condition | None = None) -> None:
        self.objectives = objectives
        self.condition = Condition() if condition is None else condition
        self.optimised = tuple(one for one in objectives if one.is_optimised)
        self.estimators: Mapping[str, Callable[[Atoms], float]] = {}

    def with_estimators(self, estimators: Mapping[str, Callable[[Atoms], float]]) -> Goals:
        """Return the same goals with functions that estimate the values of objectives without a relaxation."""
        goals = Goals(self.objectives, self.condition)
        goals.estimators = dict(estimators)
        return goals

    def promises(self, atoms: Atoms) -> bool:
        """Return whether a structure that is not relaxed may meet the condition, as far as its values are estimated."""
        for name, (low, high) in self.condition.intervals().items():
            if name in self.estimators:
                try:
                    value = float(self.estimators[name](atoms.copy()))
                except Exception:  # noqa: BLE001  # an objective may raise anything; nothing is known then
                    continue
                if not low <= value <= high:
                    return False
        return True

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the goals that the recorded settings of a session contain."""
        objectives = tuple(
            Goal(name=one["name"], unit=one["unit"], goal=one["goal"]) for one in settings.get("objectives", ())
        )
        return cls(objectives, Condition(settings.get("where", "")))

    def __bool__(self) -> bool:
        return bool(self.objectives or self.condition)

    def allow(self, values: Mapping[str, float], height: float) -> bool:
        """Return whether a minimum meets the condition; it does not if a value that the condition needs is missing.

        Parameters
        ----------
        values
            Values of the objectives by name.
        height
            Enthalpy above the lowest minimum in eV/atom.
        """
        return not self.condition or self.condition.holds({**values, HEIGHT: height})

    def criteria(self, values: Mapping[str, float], height: float) -> tuple[float, ...] | None:
        """Return the height and the criteria of the optimised objectives, all of which are the better the smaller.

        Parameters
        ----------
        values, height
            As for :meth:`allow`.

        Returns
        -------
        tuple of float or None
            ``None`` if a value is missing.
        """
        if any(one.name not in values for one in self.optimised):
            return None
        return (height, *(one.criterion(values[one.name]) for one in self.optimised))

    def best_values(self, heights: Sequence[tuple[_M, float]]) -> tuple[BestValue, ...]:
        """Return the best value of each optimised objective among the minima that meet the condition.

        Parameters
        ----------
        heights
            Minima with their heights in eV/atom.
        """
        if not self.optimised:
            return ()
        allowed = [one.objectives for one, height in heights if self.allow(one.objectives, height)]
        return tuple(
            BestValue(
                name=goal.name,
                unit=goal.unit,
                goal=goal.goal,
                value=min(
                    (values[goal.name] for values in allowed if goal.name in values), key=goal.criterion, default=None
                ),
            )
            for goal in self.optimised
        )

    def preferred(self, heights: Sequence[tuple[_M, float]]) -> list[tuple[_M, float]]:
        """Return the minima that meet the condition, best first, with the heights by which they are preferred.

        Parameters
        ----------
        heights
            Minima with their heights in eV/atom, lowest first.

        Returns
        -------
        list of tuple
            Without optimised objectives the minima with their heights, in the given order. Otherwise minima are ordered
            by the number of their front among all that meet the condition (see
            :func:`~hybridcsp.objectives.fronts.front_numbers`), and of one front by their heights; their preference is
            :data:`HEIGHT_OF_A_FRONT` for each front before theirs. Minima without a value form the last front.
        """
        if not self:
            return list(heights)
        allowed = [(one, height) for one, height in heights if self.allow(one.objectives, height)]
        if not self.optimised:
            return allowed
        fronts = self.front_numbers(allowed)
        order = sorted(range(len(allowed)), key=fronts.__getitem__)  # of one front, the lower stays before the higher
        return [(allowed[place][0], HEIGHT_OF_A_FRONT * fronts[place]) for place in order]

    def front_numbers(self, heights: Sequence[tuple[_M, float]]) -> list[int]:
        """Return the number of the front of each minimum, 0 for the Pareto front; those without a value are last."""
        points = [self.criteria(one.objectives, height) for one, height in heights]
        numbers = iter(front_numbers([point for point in points if point is not None]).tolist())
        found = [None if point is None else next(numbers) for point in points]
        last = 1 + max((number for number in found if number is not None), default=-1)
        return [last if number is None else number for number in found]
