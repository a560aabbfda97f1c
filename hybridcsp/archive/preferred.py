"""Minima in the order in which a search prefers them, as parents of new structures and as lessons."""

from __future__ import annotations

from dataclasses import dataclass

from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import Relaxed


@dataclass(frozen=True, kw_only=True, eq=False)
class PreferredMinimum:
    """A minimum of the search, and how high the last calculator that relaxed it puts it.

    Attributes
    ----------
    minimum
        The minimum, with its best relaxation by the calculator of the search.
    height
        Height above the best in eV/atom: above the lowest minimum of the last follow-up calculator with a result for
        it, or above the lowest of the search if there is none. In a search with objectives, how far it is from the
        Pareto front; see :meth:`Goals.preferred <hybridcsp.objectives.goals.Goals.preferred>`.
    end
        Relaxation that the height comes from: the last follow-up relaxation, or else the best one of the search.
    """

    minimum: Minimum
    height: float
    end: Relaxed

    @property
    def niche(self) -> int:
        """Id of the first minimum of its niche."""
        return self.minimum.niche
