"""Mutations of the orbits of a parent: some placed anew, elements exchanged, or all drawn anew in its space group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.operators.assembly import Assembly
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import SEPARATION, bounded_attempts
from hybridcsp.operators.subgroups import Subgroups, View, subgroups_of
from hybridcsp.structure.placement import random_cell
from hybridcsp.structure.separations import shortest_distances
from hybridcsp.structure.wyckoff import space_group

#: Probability with which a mutation keeps the whole symmetry of its parent instead of a subgroup's.
WHOLE = 0.5

#: Volumes of mined crystals in volumes of their parents.
VOLUME_RANGE = (0.9, 1.15)

#: Smallest fraction of the required distances at which orbits are placed.
LOOSEST = 0.7


@dataclass(frozen=True)
class OrbitReplacement(Operator):
    """Remove some orbits of the parent and put their atoms on random orbits of the same space group.

    The orbits are those of the parent's space group at the loose tolerance, or of a random subgroup. A fraction of the
    atoms drawn uniformly from ``kept`` stays at its place, in a random order of the orbits. The others are distributed
    over Wyckoff positions as in random crystals, around those that stay, so that the child keeps all operations of the
    group, the cell, and part of the structure.

    References
    ----------
    Mutations that keep symmetry: Wang et al. (MAGUS), Natl. Sci. Rev. 10, nwad128 (2023), doi:10.1093/nsr/nwad128.
    """

    name: str = "orbit-replacement"
    n_parents: int = 1
    kept: tuple[float, float] = (0.2, 0.85)

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free and there is more than one atom."""
        return problem.cell is None and problem.units[-1] * problem.atoms_per_unit > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if it has no symmetry or all attempts fail."""
        subgroups = subgroups_of(parents[0], problem)
        if subgroups is None or not subgroups.by_number:
            return None
        wanted = SEPARATION * shortest_distances(parents)

        def replace() -> Atoms | None:
            view = _draw_view(subgroups, rng)
            units = None if view is None else problem.units_of(view.atoms.numbers)
            if view is None or units is None:
                return None
            n_atoms = len(view.atoms)
            distances = np.maximum(problem.distance_table, rng.uniform(LOOSEST, 1) * wanted)
            volume = view.atoms.get_volume()
            assembly = Assembly(view.number, view.metric, volume, distances, problem.contents(units))
            left = rng.uniform(*self.kept) * n_atoms
            for index in rng.permutation(len(view.orbits)):
                orbit = view.orbits[index]
                if len(orbit) <= left and len(orbit) < n_atoms and assembly.add(view, orbit):
                    left -= len(orbit)
            return assembly.complete(view, rng)

        return bounded_attempts(replace, parents, problem)


@dataclass(frozen=True)
class OrbitPermutation(Operator):
    """Exchange the elements of two orbits of the parent.

    The orbits are those of the parent's space group at the loose tolerance, or of a random subgroup. Two of them with
    equal numbers of atoms of different elements are exchanged, so that the child keeps all operations of the group.

    References
    ----------
    Permutation: Oganov, Glass, J. Chem. Phys. 124, 244704 (2006), doi:10.1063/1.2210932; with symmetry: Wang et al.
    (MAGUS), Natl. Sci. Rev. 10, nwad128 (2023), doi:10.1093/nsr/nwad128.
    """

    name: str = "orbit-permutation"
    n_parents: int = 1

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free and there is more than one element."""
        return problem.cell is None and len(problem.composition) > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if there are no such orbits or all attempts fail."""
        subgroups = subgroups_of(parents[0], problem)
        if subgroups is None or not subgroups.by_number:
            return None

        def exchange() -> Atoms | None:
            view = _draw_view(subgroups, rng)
            if view is None:
                return None
            child = view.atoms.copy()
            pairs = [
                (a, b)
                for a, b in combinations(view.orbits, 2)
                if len(a) == len(b) and child.numbers[a[0]] != child.numbers[b[0]]
            ]
            if not pairs:
                return None
            first, second = pairs[rng.integers(len(pairs))]
            positions = child.positions.copy()
            child.positions[first], child.positions[second] = positions[second], positions[first]
            return child

        return bounded_attempts(exchange, parents, problem)


@dataclass(frozen=True)
class SpaceGroupMiner(Operator):
    """Draw a random crystal in the space group of the parent.

    Parents are drawn with a probability that increases with their stability, so that the space groups follow those of
    the stable minima. Of the parent only the space group at the loose tolerance, the number of formula units, the
    shortest distances and roughly the volume are used. The shape of the cell, the Wyckoff positions and the coordinates
    are drawn as in random search.

    References
    ----------
    Space-group miner: Han et al., Nat. Comput. Sci. 5, 255 (2025), doi:10.1038/s43588-025-00775-z.
    """

    name: str = "space-group-miner"
    n_parents: int = 1

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free and there is more than one atom."""
        return problem.cell is None and problem.units[-1] * problem.atoms_per_unit > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if it has no symmetry or all attempts fail."""
        subgroups = subgroups_of(parents[0], problem)
        view = None if subgroups is None else subgroups.whole
        units = None if view is None else problem.units_of(view.atoms.numbers)
        if view is None or units is None:
            return None
        wanted = SEPARATION * shortest_distances(parents)
        group, contents = space_group(view.number), problem.contents(units)

        def draw() -> Atoms | None:
            cell = random_cell(problem, group, len(view.atoms), rng)
            if cell is None:
                return None
            vectors = np.linalg.inv(group.vectors) @ cell
            distances = np.maximum(problem.distance_table, rng.uniform(LOOSEST, 1) * wanted)
            volume = rng.uniform(*VOLUME_RANGE) * view.atoms.get_volume()
            assembly = Assembly(view.number, vectors @ vectors.T, volume, distances, contents)
            return assembly.complete(view, rng)

        return bounded_attempts(draw, parents, problem)


def _draw_view(subgroups: Subgroups, rng: np.random.Generator) -> View | None:
    """Return the parent in the setting of its whole space group or of a random subgroup."""
    if rng.random() < WHOLE and subgroups.whole is not None:
        return subgroups.whole
    return subgroups.draw_view(subgroups.draw_number(sorted(subgroups.by_number), rng), rng)
