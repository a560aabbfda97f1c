"""Addition and removal of whole formula units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import bounded_attempts, reduced
from hybridcsp.operators.splicing import PLANES, Slab, block, face, stack
from hybridcsp.structure.separations import shortest_distances


@dataclass(frozen=True)
class FormulaUnits(Operator):
    """Add or remove formula units by using a thicker or thinner slab of the parent as the new cell.

    The parent is cut along a random lattice plane. The slab, which may contain repeats, holds the new number of formula
    units; this is drawn from the numbers that the problem allows, those close to the parent's more often. Successive
    slabs are shifted sideways to fit. The density and most local environments stay the same, in contrast to adding or
    removing single atoms.

    References
    ----------
    Slabs as in cut-and-splice: Deaven, Ho, Phys. Rev. Lett. 75, 288 (1995), doi:10.1103/PhysRevLett.75.288.
    """

    name: str = "formula-units"
    n_parents: int = 1

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the problem allows more than one number of formula units."""
        return len(problem.units) > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail."""
        own = problem.units_of(parents[0].numbers)
        others = [units for units in problem.units if units != own]
        if own is None or not others:
            return None
        parent = reduced(parents[0])
        wanted = shortest_distances(parents)
        chances = 1 / np.abs(np.array(others) - own)

        def resize() -> Atoms | None:
            units = int(rng.choice(others, p=chances / chances.sum()))
            plane = PLANES[rng.integers(len(PLANES))]
            slab = Slab(block(parent, face(parent, plane)), rng.random(), units / own)
            stacked = stack([slab], problem.contents(units), wanted, rng)
            return None if stacked is None else stacked[0]

        return bounded_attempts(resize, parents, problem)
