"""Exchange of atoms of different elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import bounded_attempts


@dataclass(frozen=True)
class Permutation(Operator):
    """Swap atoms of different elements, at most a third of the cell.

    The pair of elements is drawn with a probability that decreases with the difference of the covalent radii, because
    swaps of atoms of different size are rarely stable; every pair has a chance. The number of swaps is drawn from a
    geometric distribution. Initial moments and charges move with their atoms.

    References
    ----------
    Oganov, Glass, J. Chem. Phys. 124, 244704 (2006), doi:10.1063/1.2210932.
    """

    name: str = "permutation"
    n_parents: int = 1
    softness: float = 0.3  # Å

    def applies_to(self, problem: Problem) -> bool:
        """Return whether there is more than one element."""
        return len(problem.composition) > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail or there is only one element."""
        (parent,) = parents
        pairs = list(combinations(np.unique(parent.numbers).tolist(), 2))
        if not pairs:
            return None
        differences = np.array([abs(covalent_radii[a] - covalent_radii[b]) for a, b in pairs])
        chances = np.exp(-differences / self.softness)

        def swap() -> Atoms:
            child = parent.copy()
            first, second = pairs[rng.choice(len(pairs), p=chances / chances.sum())]
            own = [rng.permutation(np.flatnonzero(parent.numbers == number)) for number in (first, second)]
            most = min(len(own[0]), len(own[1]), max(1, len(parent) // 6))
            swaps = min(int(rng.geometric(0.5)), most)
            here, there = own[0][:swaps], own[1][:swaps]
            child.positions[here], child.positions[there] = parent.positions[there], parent.positions[here]
            return child

        return bounded_attempts(swap, parents, problem)
