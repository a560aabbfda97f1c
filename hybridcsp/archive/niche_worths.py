"""Worths of niches by their heights, kept up to date as a search adds niches and lowers them."""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np

#: Number of niches above the best whose mean height is the scale of credit, and the scale in eV/atom until there are
#: that many, and the smallest one.
LOWEST_NICHES, FIRST_SCALE, SMALLEST_SCALE = 7, 0.02, 0.002


@dataclass
class Niche:
    """A niche, the account that reached it first, and what calculators say about it.

    Attributes
    ----------
    key
        Account; ``None`` if no account is credited.
    values
        Values of the objectives for the lowest relaxation that has any.
    reached_again
        Whether another relaxation has ended in it that did not begin there.
    enthalpies
        Lowest enthalpies in eV/atom by calculator: 0 for that of the search, from 1 for follow-up calculators.
    repeated
        Numbers of the follow-up calculators by which it is a minimum that another niche had already led to.
    last, last_enthalpy
        Number of the last calculator with an enthalpy, and that enthalpy in eV/atom.
    """

    key: Hashable | None
    values: Mapping[str, float] = field(default_factory=dict)
    reached_again: bool = False
    enthalpies: dict[int, float] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    last: int = 0
    last_enthalpy: float = math.inf

    @property
    def pays(self) -> bool:
        """Whether an account earns what it is worth."""
        return self.key is not None and not self.reached_again and self.last not in self.repeated

    def lower(self, number: int, enthalpy: float) -> None:
        """Note an enthalpy by a calculator."""
        self.enthalpies[number] = min(enthalpy, self.enthalpies.get(number, math.inf))
        self._find_last()

    def forget(self, number: int) -> None:
        """Forget the results of a follow-up calculator."""
        self.enthalpies.pop(number, None)
        self.repeated.discard(number)
        self._find_last()

    def _find_last(self) -> None:
        self.last = max(self.enthalpies)
        self.last_enthalpy = self.enthalpies[self.last]


class NicheWorths:
    r"""Worths of niches by their heights h, :math:`\exp(-h/t)`, and the earnings of each account with them.

    The lowest niches decide the zero of the heights and the scale t. While these stay the same, the worths of all
    others do, and an outcome changes that of one niche alone: a search of 100,000 minima would otherwise compute
    100,000 exponentials after each.

    Parameters
    ----------
    niches
        Niches by number, in the order of their discovery.
    holes
        Numbers of niches that are left out.
    lowest
        Lowest enthalpies in eV/atom by calculator, from which heights count.

    Attributes
    ----------
    holes
        As above.
    """

    def __init__(self, niches: Mapping[int, Niche], holes: Set[int], lowest: Mapping[int, float]) -> None:
        self.holes = holes
        self._lowest = lowest
        self._heights: dict[int, float] = {}  # by niche
        self._places: dict[int, int] = {}  # by niche, in the arrays
        self._worths = array("d")  # 0 for a niche that does not pay
        self._accounts = array("q")  # the account of each, by its number
        self._numbers: dict[Hashable | None, int] = {}  # of the accounts
        counted = {number: niche for number, niche in niches.items() if number not in holes}
        heights = [self._height(niche) for niche in counted.values()]
        few = heapq.nsmallest(LOWEST_NICHES + 1, heights)
        self._scale = scale_of(few)
        self._highest_that_decides = few[-1] if len(few) > LOWEST_NICHES else math.inf
        for (number, niche), height in zip(counted.items(), heights, strict=True):
            self._add(number, niche, height)

    def update(self, niches: Mapping[int, Niche], changed: Iterable[int]) -> bool:
        """Take note of niches that are new or have changed; return whether the worths of all others are the same.

        If they are not, this object is of no more use.

        Parameters
        ----------
        niches
            All niches by number.
        changed
            Numbers of the niches that are new, in the order of their discovery, or have changed. No enthalpy of a
            follow-up calculator has.
        """
        for number in changed:
            if number in self.holes:
                continue
            niche = niches[number]
            height = self._height(niche)
            known = self._heights.get(number)
            if height != known and min(height, math.inf if known is None else known) <= self._highest_that_decides:
                return False
            if known is None:
                self._add(number, niche, height)
            else:
                self._heights[number] = height
                self._worths[self._places[number]] = self._worth(niche, height)
        return True

    def by_account(self) -> dict[Hashable, float]:
        """Return the sum of the worths of the niches of each account."""
        # It adds up in the order of the niches, so that the sum is always the same in its last digit.
        sums = np.bincount(np.frombuffer(self._accounts, dtype=np.int64), np.frombuffer(self._worths))
        return {key: float(sums[number]) for key, number in self._numbers.items() if key is not None}

    def _add(self, number: int, niche: Niche, height: float) -> None:
        self._places[number] = len(self._worths)
        self._heights[number] = height
        self._worths.append(self._worth(niche, height))
        self._accounts.append(self._numbers.setdefault(niche.key, len(self._numbers)))

    def _height(self, niche: Niche) -> float:
        return niche.last_enthalpy - self._lowest[niche.last]

    def _worth(self, niche: Niche, height: float) -> float:
        return math.exp(-height / self._scale) if niche.pays else 0.0


def scale_of(lowest: list[float]) -> float:
    """Return the scale of credit in eV/atom, by the heights of the lowest niches from the best one on, ascending."""
    if len(lowest) <= LOWEST_NICHES:
        return FIRST_SCALE
    return max(SMALLEST_SCALE, sum(lowest[1 : LOWEST_NICHES + 1]) / LOWEST_NICHES)
