"""Deformation of the lattice at constant volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import bounded_attempts


@dataclass(frozen=True)
class Strain(Operator):
    """Apply a random symmetric strain at constant volume (lattice mutation).

    The six components are drawn from a normal distribution, whose standard deviation is drawn uniformly from
    ``deviation``; the atoms keep their fractional positions.

    References
    ----------
    Oganov, Glass, J. Chem. Phys. 124, 244704 (2006), doi:10.1063/1.2210932.
    """

    name: str = "strain"
    n_parents: int = 1
    deviation: tuple[float, float] = (0.1, 0.4)

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free."""
        return problem.cell is None

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail or the cell is fixed."""
        (parent,) = parents
        if problem.cell is not None:
            return None

        def deform() -> Atoms | None:
            child = parent.copy()
            child.set_cell(parent.cell.array @ random_strain(rng.uniform(*self.deviation), rng), scale_atoms=True)
            if np.linalg.det(child.cell.array) * np.linalg.det(parent.cell.array) <= 0:
                return None
            child.set_cell(child.cell.array * (parent.get_volume() / child.get_volume()) ** (1 / 3), scale_atoms=True)
            return child

        return bounded_attempts(deform, parents, problem)


def random_strain(deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Return the unit matrix plus a random symmetric strain with normal components, shape ``(3, 3)``."""
    strain = np.diag(rng.normal(0, deviation, 3))
    shear = rng.normal(0, deviation, 3) / 2  # an off-diagonal element is half the engineering shear
    for (i, j), value in zip(((1, 2), (0, 2), (0, 1)), shear, strict=True):
        strain[i, j] = strain[j, i] = value
    return np.eye(3) + strain
