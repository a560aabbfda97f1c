"""Modulated supercells of a parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from ase import Atoms
from ase.build import make_supercell

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import bounded_attempts, length_unit
from hybridcsp.operators.strain import random_strain
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive


@dataclass(frozen=True)
class Supercell(Operator):
    """Build a supercell of the parent's primitive cell and modulate it.

    The supercell is drawn from all different supercells of its size. Each atom of the primitive cell gets a random
    direction; its images are displaced along it by a cosine wave, whose wave vector is commensurate with the supercell
    but not with the primitive cell, as in a cell-doubling transition. The largest displacement is drawn uniformly from
    ``amplitude``, in cube roots of the volume per atom; a small random strain is added.

    References
    ----------
    Lyakhov, Oganov, Stokes, Zhu, Comput. Phys. Commun. 184, 1172 (2013), doi:10.1016/j.cpc.2012.12.009; Lonie, Zurek,
    Comput. Phys. Commun. 182, 372 (2011), doi:10.1016/j.cpc.2010.07.048 ("ripple").
    """

    name: str = "supercell"
    n_parents: int = 1
    amplitude: tuple[float, float] = (0.1, 0.4)
    deviation: float = 0.04

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free and a multiple of a cell is allowed; parents may be non-primitive."""
        return problem.cell is None and problem.units[-1] > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail or no multiple is allowed."""
        small = primitive(parents[0], SYMPREC_LOOSE)
        own = problem.units_of(small.numbers)
        multiples = [units // own for units in problem.units if units % own == 0 and units > own] if own else []
        if not multiples:
            return None
        small.set_array("of_primitive", np.arange(len(small)))

        def repeat() -> Atoms:
            shapes = supercells(int(rng.choice(multiples)))
            shape = shapes[rng.integers(len(shapes))]
            child = make_supercell(small, shape)
            wave = _wave_vector(shape, rng)
            phases = 2 * np.pi * (child.positions @ np.linalg.inv(small.cell.array) @ wave + rng.random())
            directions = rng.normal(size=(len(small), 3))[child.get_array("of_primitive")]
            moves = directions * np.cos(phases)[:, None]
            largest = max(float(np.linalg.norm(moves, axis=1).max()), 1e-9)
            child.positions += moves * (rng.uniform(*self.amplitude) * length_unit(child) / largest)
            child.set_cell(child.cell.array @ random_strain(self.deviation, rng), scale_atoms=True)
            return child

        return bounded_attempts(repeat, parents, problem)


@cache
def supercells(size: int) -> tuple[np.ndarray, ...]:
    """Return all different superlattices of a size as Hermite normal forms (lower triangular integers)."""
    return tuple(
        np.array([[a, 0, 0], [b, c, 0], [d, e, size // (a * c)]])
        for a in range(1, size + 1)
        if size % a == 0
        for c in range(1, size // a + 1)
        if size // a % c == 0
        for b in range(a)
        for d in range(a)
        for e in range(c)
    )


def _wave_vector(shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a wave vector, in primitive reciprocal vectors, that is commensurate with the supercell only."""
    steps = np.linalg.inv(shape)
    while True:
        wave = steps @ rng.integers(-2, 3, size=3)
        if np.abs(wave - np.rint(wave)).max() > 1e-6:
            return np.asarray(wave)
