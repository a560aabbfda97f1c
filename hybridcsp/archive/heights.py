"""Heights of minima as sources learn them from outcomes, follow-up relaxations included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Relaxed
from hybridcsp.objectives.goals import Goals


@dataclass
class _Level:
    """The results of one follow-up calculator: its label, and enthalpies per atom (eV) by minimum of the search."""

    label: str
    results: dict[int, float] = field(default_factory=dict)
    lowest: float = math.inf


class Heights:
    """Heights of the minima of a search, of which follow-up calculators may have another opinion.

    The height of a minimum is that above the lowest minimum of the last follow-up calculator with a result for it, or
    above the lowest of the search if there is none, as in
    :meth:`SearchState.preferred <hybridcsp.archive.state.SearchState.preferred>`. A source that decides between calls,
    when it knows outcomes but not the archive, keeps such an object and passes every outcome on to it, so that a
    resumed search decides in the same way.

    Parameters
    ----------
    goals
        Objectives and conditions of the search.

    Attributes
    ----------
    lowest
        Lowest enthalpy of the search in eV/atom, without suspect minima; infinite before the first minimum.
    """

    def __init__(self, goals: Goals | None = None) -> None:
        self._goals = Goals() if goals is None else goals
        self._enthalpies: dict[int, float] = {}  # of the search, by minimum
        self._values: dict[int, tuple[float, Mapping[str, float]]] = {}  # enthalpies and objectives, by minimum
        self._suspects: frozenset[int] = frozenset()
        self.lowest = math.inf
        self._levels: dict[int, _Level] = {}

    def observe(self, outcome: Outcome) -> None:
        """Note the enthalpy of a minimum of the search; ignore other outcomes, and the depth of holes."""
        if isinstance(outcome, Relaxed) and outcome.minimum is not None:
            enthalpy = outcome.enthalpy_per_atom
            if outcome.objectives and enthalpy <= self._values.get(outcome.minimum, (math.inf, {}))[0]:
                self._values[outcome.minimum] = enthalpy, outcome.objectives
            self._enthalpies[outcome.minimum] = min(enthalpy, self._enthalpies.get(outcome.minimum, math.inf))
            suspects = outcome.suspects_after(self._suspects)
            if suspects != self._suspects:
                self._suspects = suspects
                others = (known for minimum, known in self._enthalpies.items() if minimum not in suspects)
                self.lowest = min(others, default=math.inf)
            elif outcome.minimum not in suspects:
                self.lowest = min(enthalpy, self.lowest)

    def observe_follow_up(self, followed: FollowUpOutcome) -> None:
        """Note the enthalpy of a minimum by a follow-up calculator; ignore failed and unconverged relaxations.

        Results of a calculator whose label has changed are forgotten.
        """
        end = followed.outcome
        if not isinstance(end, Relaxed) or end.minimum is None:
            return
        level = self._levels.get(followed.number)
        if level is None or level.label != followed.calculator:
            level = self._levels[followed.number] = _Level(followed.calculator)
        level.results[followed.of] = end.enthalpy_per_atom
        level.lowest = min(end.enthalpy_per_atom, level.lowest)

    def allow(self, end: Relaxed) -> bool:
        """Return whether the minimum of a relaxation meets the condition of the search at present.

        Its height is that above the lowest minimum, and its values are those of its lowest relaxation that has any.
        """
        if not self._goals.condition:
            return True
        _, values = self._values.get(end.minimum or 0, (math.inf, end.objectives))
        return self._goals.allow(values, max(0.0, self.shifted(end) - self.lowest))

    def shift(self, minimum: int | None) -> float:
        """Return how much higher follow-up relaxations put a minimum than the search, in eV/atom; 0 without any."""
        if minimum is None or minimum not in self._enthalpies:
            return 0.0
        for number in sorted(self._levels, reverse=True):
            level = self._levels[number]
            if minimum in level.results:
                height = self._enthalpies[minimum] - self.lowest
                return level.results[minimum] - level.lowest - height
        return 0.0

    def shifted(self, end: Relaxed) -> float:
        """Return the enthalpy of a relaxation in eV/atom, shifted with its minimum: the value to compare it by."""
        return end.enthalpy_per_atom + self.shift(end.minimum)
