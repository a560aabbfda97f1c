"""Shares of evolution's operators, which follow their yields."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

from hybridcsp.archive.archive import Archive
from hybridcsp.operators import WeightedOperator

#: Energy above the best minimum in eV/atom at which the value of a new minimum is 1/e.
NEAR = 0.05

#: Smallest share of each operator, and weight of the prior shares in relaxations.
FLOOR = 0.01
PRIOR = 5.0


def operator_shares(archive: Archive, source: str, operators: Mapping[str, WeightedOperator]) -> dict[str, float]:
    """Return the probability of each operator of a source by probability matching with a floor; the sum is 1.

    Operators are drawn in proportion to their yield per force call. The yield of the first minimum of a niche decreases
    by a factor of e per 50 meV/atom above the best minimum; others yield nothing. A prior with the weight of five
    relaxations limits the effect of early luck.
    """
    gains: dict[str, float] = defaultdict(float)
    for basin, height in archive.state.preferred():
        origin = archive.state.candidates[basin.found_by]
        if origin.source == source and basin.niche == basin.id:
            gains[origin.operator] += math.exp(-height / NEAR)
    calls = {name: archive.state.tallies.of_operator(source, name).cost.force_calls for name in operators}
    relaxed = max(archive.state.relaxations, 1)
    prior_calls = PRIOR * max(archive.state.cost.force_calls / relaxed, 1.0)
    average = (sum(gains[name] for name in calls) + PRIOR) / (sum(calls.values()) + 2 * prior_calls)
    yields = {
        name: weighted.prior * (average * prior_calls + gains[name]) / (prior_calls + calls[name])
        for name, weighted in operators.items()
    }
    total = sum(yields.values())
    rest = 1 - FLOOR * len(yields)
    return {name: FLOOR + rest * value / total for name, value in yields.items()}


def children_by_parents(archive: Archive, operator: str) -> Counter[tuple[int, ...]]:
    """Return the number of children that an operator has made of each tuple of parents."""
    return Counter(event.parents for event in archive.state.candidates.values() if event.operator == operator)
