"""Displacements along soft modes of a parent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import Floats, bounded_attempts, finish, length_unit
from hybridcsp.operators.displacement import displaced
from hybridcsp.structure.geometry import neighbours
from hybridcsp.structure.vibrations import internal_modes

#: Decay length of the bond strength in Å (Brown, Altermatt, doi:10.1107/S0108768185002063).
DECAY = 0.37

#: Excess (Å) over the sum of covalent radii beyond which bonds are neglected; their strength is below a thousandth.
REACH = 2.6

#: Eigenvalues that differ by less than this fraction of the largest one are treated as degenerate.
DEGENERATE = 1e-4


@dataclass(frozen=True)
class SoftMutation(Operator):
    """Displace atoms along one of the softest modes of a bond-hardness model.

    The modes are the eigenvectors of :func:`spring_hessian` without uniform translations, in ascending order of their
    eigenvalues; a random direction is drawn within a degenerate mode. The largest displacement of an atom is drawn
    uniformly from ``amplitude``, in cube roots of the volume per atom. Each child of a parent follows the next mode,
    and after the last mode the first one again.

    References
    ----------
    Lyakhov, Oganov, Valle, Comput. Phys. Commun. 181, 1623 (2010), doi:10.1016/j.cpc.2010.06.007.
    """

    name: str = "soft-mutation"
    n_parents: int = 1
    follows_modes: bool = True
    mode: int = 0
    amplitude: tuple[float, float] = (0.25, 0.6)

    def applies_to(self, problem: Problem) -> bool:
        """Return whether there is more than one atom."""
        return problem.units[-1] * problem.atoms_per_unit > 1

    def following(self, mode: int) -> SoftMutation:
        """Return the operator that follows a mode, counted from 0."""
        return replace(self, mode=mode)

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail."""
        (parent,) = parents
        if len(parent) < 2:
            return None
        modes = spring_modes(parent)
        space = modes[self.mode % len(modes)]

        def move() -> Atoms:
            direction = (space @ rng.normal(size=space.shape[1])).reshape(-1, 3)
            amplitude = rng.uniform(*self.amplitude) * length_unit(parent)
            return displaced(parent, direction * amplitude / np.linalg.norm(direction, axis=1).max())

        return bounded_attempts(move, parents, problem)


@dataclass(frozen=True)
class CalculatorSoftMutation(Operator):
    """Displace atoms along a soft mode of the calculator's Hessian, which the worker calculates.

    The child is an unchanged copy of the parent. Its job, of level "soft", calculates the modes by finite differences,
    displaces the atoms along the mode whose number is in the tag, and relaxes them. The force calls are counted there.

    References
    ----------
    Lyakhov, Oganov, Valle, Comput. Phys. Commun. 181, 1623 (2010), doi:10.1016/j.cpc.2010.06.007.
    """

    name: str = "calculator-soft-mutation"
    n_parents: int = 1
    level: str = "soft"
    follows_modes: bool = True
    mode: int = 0

    def applies_to(self, problem: Problem) -> bool:
        """Return whether there is more than one atom."""
        return problem.units[-1] * problem.atoms_per_unit > 1

    def following(self, mode: int) -> CalculatorSoftMutation:
        """Return the operator that follows a mode, counted from 0."""
        return replace(self, mode=mode)

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a copy of the parent, or ``None`` if it does not obey the problem."""
        return finish(parents[0], problem, parents=parents)


def spring_modes(atoms: Atoms) -> list[Floats]:
    """Return the modes of the spring model without uniform translations, softest first.

    Returns
    -------
    list of ndarray
        Orthonormal columns of each mode, shape ``(3 * n_atoms, degeneracy)``.
    """
    values, vectors = internal_modes(spring_hessian(atoms))
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > DEGENERATE * values[-1])
    return np.split(vectors, starts[1:], axis=1)


def spring_hessian(atoms: Atoms) -> Floats:
    r"""Return the Hessian of the spring model with respect to the positions, shape ``(3 * n_atoms, 3 * n_atoms)``.

    Each pair of atoms is connected by a spring, at rest in the given structure, of hardness

    .. math:: k_{ij} = \sqrt{\frac{\chi_i \chi_j}{n_i n_j}} \, s_{ij},
              \quad s_{ij} = e^{(R_i + R_j - r_{ij}) / 0.37 Å}, \quad n_i = \sum_j s_{ij}

    with covalent radii R, electronegativities χ, and coordination numbers n that weight neighbours by their distance.
    These parameters are available for all elements.
    """
    first, second, vectors, found, hardness = bonds(atoms)
    directions = vectors / found[:, None]
    projectors = hardness[:, None, None] * directions[:, :, None] * directions[:, None, :]
    blocks = np.zeros((len(atoms), len(atoms), 3, 3))
    np.add.at(blocks, (first, first), projectors)
    np.add.at(blocks, (first, second), -projectors)
    return blocks.transpose(0, 2, 1, 3).reshape(3 * len(atoms), 3 * len(atoms))


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, Floats, Floats, Floats]:
    """Return the springs of the model, each in both directions.

    Returns
    -------
    tuple of ndarray
        First atom, second atom, vector (Å), length (Å) and hardness of each spring.
    """
    first, second, vectors, found, strength = _strengths(atoms)
    coordination = np.bincount(first, weights=strength, minlength=len(atoms))
    hold = np.array([_electronegativity(int(number)) for number in atoms.numbers])
    hold = np.sqrt(hold / np.maximum(coordination, 1e-12))
    return first, second, vectors, found, strength * hold[first] * hold[second]


def coordination_numbers(atoms: Atoms) -> Floats:
    """Return the coordination numbers n of :func:`spring_hessian`, shape ``(n_atoms,)``: the sums of bond strengths."""
    first, _, _, _, strength = _strengths(atoms)
    return np.asarray(np.bincount(first, weights=strength, minlength=len(atoms)))


def _strengths(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, Floats, Floats, Floats]:
    """Return first atom, second atom, vector (Å), length (Å) and strength s of each bond, in both directions."""
    radii = covalent_radii[atoms.numbers]
    first, second, vectors, found = neighbours(atoms, 2 * float(radii.max()) + REACH)
    strength = np.exp((radii[first] + radii[second] - found) / DECAY)
    near = found < radii[first] + radii[second] + REACH
    return first[near], second[near], vectors[near], found[near], strength[near]


@cache
def _electronegativity(number: int) -> float:
    """Return Pauling's electronegativity; 2 for noble gases without a value."""
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(Element.from_Z(number).X)
    return value if math.isfinite(value) else 2.0
