"""Selection of parents with DEAP."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from deap import base, tools

from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import Relaxed


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    """Selection weight of a parent, which is maximised."""

    weights = (1.0,)


@dataclass(frozen=True, eq=False)
class Individual:
    """Represent a minimum as a possible parent.

    Attributes
    ----------
    minimum
        The minimum.
    end
        Relaxation whose structure children are made of: its last follow-up relaxation, or else its best one.
    fitness
        Selection weight, which DEAP reads.
    """

    minimum: Minimum
    end: Relaxed
    fitness: Fitness


def roulette() -> base.Toolbox:
    """Return a toolbox of DEAP whose ``select(individuals)`` draws one parent in proportion to its fitness."""
    toolbox = base.Toolbox()
    toolbox.register("select", tools.selRoulette, k=1)
    return toolbox


def select_parents(
    population: Sequence[Individual], n: int, rng: np.random.Generator, toolbox: base.Toolbox
) -> list[Individual]:
    """Return ``n`` different individuals, each drawn by the selection of the toolbox from those that are left.

    They are of different niches as far as there are enough: children of two similar parents are similar to both.
    """
    left = list(population)
    parents: list[Individual] = []
    with seeded_random(rng):
        for _ in range(n):
            taken = {parent.minimum.niche for parent in parents}
            others = [individual for individual in left if individual.minimum.niche not in taken]
            (parent,) = toolbox.select(others or left)
            left.remove(parent)
            parents.append(parent)
    return parents


@contextmanager
def seeded_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global random numbers of Python, the only ones that DEAP can use, and restore their state afterwards."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)
