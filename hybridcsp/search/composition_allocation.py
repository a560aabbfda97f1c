"""The rule that decides which composition of a chemical system is searched next."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.records import ADDED, REFERENCE
from hybridcsp.search.success_priors import known_crystals

#: Mean decrease of the best of a composition by its second relaxation that lowers it, in eV/atom, before any was seen,
#: and the number of decreases that this assumption weighs as much as.
FIRST_SCALE, WEIGHT = 0.3, 4

#: Smallest such decrease in eV/atom.
SMALLEST_SCALE = 0.02

#: Height above the hull at which a composition without any minimum is expected, in mean decreases.
UNKNOWN_HEIGHT = 0.5

#: Number of known crystals of a stoichiometry at which half of the largest prior is reached, and the smallest prior.
HALF, LEAST = 5.0, 0.5

#: Number of relaxations of each element that come first, because there is no hull without them.
FIRST_OF_ELEMENTS = 2


class CompositionAllocation:
    r"""Choose the composition whose next relaxation is expected to lower the convex hull the most.

    If the relaxations of a composition were independent draws, the next of n + 1 would be the lowest with a
    probability of 1/(n + 1). By how much it then lies below the lowest so far has a mean of s = a/n, as for draws
    with a density that begins at a lowest enthalpy; a is learned from all compositions. Its distribution is Lomax's
    with the exponent 2, whose heavy tail allows for what was observed: the first minima of a composition may lie far
    above its best. The hull falls only by what is left after the height h of the lowest minimum above the hull, so
    that the expected improvement of the hull is

    .. math:: \frac{1}{n + 1} \frac{s^2}{s + h}.

    A composition without any minimum is expected at a height of s/2 with n = 1, and the rarer its stoichiometry is
    among known crystals, the less it promises. So every composition is tried, the likely ones first; those on or near
    the hull return often, those far above it less often the more was tried. Relaxations that are running count as
    done, so that many workers are not all given the same composition. Elements come first, twice each, unless a known
    phase of them was given.

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
        scale /= max(tried, 1)
        prior = self._prior(formula) if lowest is None else 1.0
        height = UNKNOWN_HEIGHT * scale if lowest is None else max(0.0, self._state.height(lowest))
        return prior * scale**2 / (scale + height) / (tried + 1)

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
        """Return the mean decrease of the best of a composition, times the number of its relaxations, in eV/atom."""
        seen = self._state.decreases
        return max(SMALLEST_SCALE, (WEIGHT * FIRST_SCALE + sum(seen)) / (WEIGHT + len(seen)))

    def _prior_of(self, formula: str) -> float:
        """Return how likely a composition is to be on the hull, up to a factor, by its stoichiometry."""
        known = known_crystals(self._state.system.problem(formula))
        return LEAST + (1 - LEAST) * known / (known + HALF)
