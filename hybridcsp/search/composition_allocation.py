"""The rule that decides which composition of a chemical system is searched next."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache
from itertools import pairwise

from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.records import ADDED, REFERENCE
from hybridcsp.search.success_priors import Difficulty

#: Mean in eV/atom of the exponential distribution of improvements of a composition before any was seen, and the number
#: of improvements that this assumption weighs as much as.
FIRST_SCALE, WEIGHT = 0.1, 4

#: Smallest mean improvement in eV/atom.
SMALLEST_SCALE = 0.01

#: Height above the hull that a composition without any minimum is expected to have, in mean improvements.
UNKNOWN_HEIGHT = 0.5

#: Number of known crystals of a stoichiometry at which half of the largest prior is reached, and the smallest prior.
HALF, LEAST = 5.0, 0.1

#: Number of relaxations of each element that come first, because there is no hull without them.
FIRST_OF_ELEMENTS = 2


class CompositionAllocation:
    r"""Choose the composition whose next relaxation is expected to lower the convex hull the most.

    If the relaxations of a composition were independent draws, the next of n + 1 would be the lowest with a probability
    of 1/(n + 1). By how much it then lies below the lowest so far is taken to follow an exponential distribution, whose
    mean s is that of the improvements seen at all compositions. The hull falls only by what is left after the height h
    of the lowest minimum above the hull, so that the expected improvement of the hull is

    .. math:: \frac{s}{n + 1} \exp(-h / s).

    A composition without any minimum is expected at a height of s/2, and the rarer its stoichiometry is among known
    crystals, the less it promises. So every composition is tried, the likely ones first; those on or near the hull
    return often, those far above it rarely. Relaxations that are running count as done, so that many workers are not
    all given the same composition. Elements come first, twice each, unless a known phase of them was given.

    All decisions are functions of the archive, so that a resumed search continues in the same way.

    Parameters
    ----------
    state
        State of the search.
    """

    def __init__(self, state: SystemState) -> None:
        self._state = state
        self._prior = cache(self._prior_of)

    def choose(self, without: Collection[str] = ()) -> str | None:
        """Return the composition that is searched next, or ``None`` if there is none left.

        Parameters
        ----------
        without
            Compositions that have nothing to propose now.
        """
        left = [formula for formula in self._state.system.compositions if formula not in without]
        tried = {formula: self._tried(formula) for formula in left}
        elements = [formula for formula in left if formula in self._state.system.elements]
        neglected = [formula for formula in elements if tried[formula] < self._first_of(formula)]
        if neglected:
            return min(neglected, key=tried.__getitem__)
        scale = self._scale()
        # Of equal ones the first in the order of the system is chosen.
        return max(left, key=lambda formula: self._expected(formula, tried[formula], scale), default=None)

    def expected_improvement(self, formula: str) -> float:
        """Return by how much the next relaxation of a composition is expected to lower the hull there, in eV/atom."""
        return self._expected(formula, self._tried(formula), self._scale())

    def _expected(self, formula: str, tried: int, scale: float) -> float:
        part = self._state.parts.get(formula)
        lowest = None if part is None else next((one for one in part.ranked(8) if not one.suspect), None)
        if lowest is None:
            return self._prior(formula) * scale / (tried + 1) * math.exp(-UNKNOWN_HEIGHT)
        return scale / (tried + 1) * math.exp(-max(0.0, self._state.height(lowest)) / scale)

    def _first_of(self, element: str) -> int:
        """Return how many relaxations of an element come before anything else: more while all of them fail."""
        part = self._state.parts.get(element)
        if part is not None and any(id_ in self._state.references for id_ in part.basins):
            return 0
        return FIRST_OF_ELEMENTS if part is not None and part.number_of_minima else 5 * FIRST_OF_ELEMENTS

    def _tried(self, formula: str) -> int:
        """Return the number of candidates of a composition that are or were relaxed."""
        part = self._state.parts.get(formula)
        if part is None:
            return 0
        rejected = sum(tally.rejected.total() for tally in part.tallies.values())
        given = sum(tally.proposed for (source, _), tally in part.tallies.items() if source in (ADDED, REFERENCE))
        return len(part.candidates) - rejected - given

    def _scale(self) -> float:
        """Return the mean improvement of a composition by a relaxation that lowers its best, in eV/atom."""
        drops = [drop for part in self._state.parts.values() for drop in improvements_of(part)]
        return max(SMALLEST_SCALE, (WEIGHT * FIRST_SCALE + sum(drops)) / (WEIGHT + len(drops)))

    def _prior_of(self, formula: str) -> float:
        """Return how likely a composition is to be on the hull, up to a factor, by its stoichiometry."""
        known = Difficulty.of(self._state.system.problem(formula)).known_crystals
        return LEAST + (1 - LEAST) * known / (known + HALF)


def improvements_of(part: SearchState) -> list[float]:
    """Return the decreases of the lowest enthalpy of a composition in eV/atom, the first minimum left out."""
    lowest = [one.enthalpy_per_atom for one in part.improvements]
    return [before - after for before, after in pairwise(lowest)]
