"""Combination of orbits of two parents that keeps symmetry operations of both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.operators.assembly import Assembly
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import SEPARATION, Floats, bounded_attempts
from hybridcsp.operators.subgroups import Subgroups, View, fitted, subgroups_of
from hybridcsp.structure.separations import shortest_distances

#: Smallest and largest fraction of the atoms that one parent contributes.
SHARES = (0.25, 0.75)

#: Largest fraction of the atoms that belong to neither parent, because the orbits of both do not fit together.
MOST_NEW = 0.5

#: Smallest fraction of the required distances at which orbits are combined.
LOOSEST = 0.7


@dataclass(frozen=True)
class CommonSubgroupOperator(Operator):
    """Base class of operators that combine orbits of two parents in a space group that both have.

    Both parents are symmetrised at the loose tolerance and described in the standard setting of a subgroup of one type
    that both space groups have (:mod:`~hybridcsp.operators.subgroups`), with a probability in proportion to the square
    root of its order. The cell of the second is drawn among the equivalent ones that resemble that of the first; the
    child gets a weighted mean of both metrics and of the volumes per atom. Orbits are taken in a random order that
    :meth:`ranks` decides, as long as there is room for them; atoms that are missing then are put on random orbits. The
    child has all operations of the subgroup.
    """

    n_parents: int = 2

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free and there is more than one atom."""
        return problem.cell is None and problem.units[-1] * problem.atoms_per_unit > 1

    @abstractmethod
    def ranks(self, first: View, second: View, share: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return the ranks of the orbits of both parents; those of high rank are taken first.

        Parameters
        ----------
        first, second
            The parents in one setting.
        share
            Fraction of the atoms that the first parent contributes.
        rng
            Random number generator.
        """

    def subgroups(self, parent: Atoms, problem: Problem) -> Subgroups | None:
        """Return the subgroups of a parent; ``None`` if it has no symmetry."""
        return subgroups_of(parent, problem)

    def sizes(self, first: View, second: View, problem: Problem) -> list[int]:
        """Return the numbers of formula units that a child may have: those of the parents."""
        own_sizes = {problem.units_of(view.atoms.numbers) for view in (first, second)}
        return [units for units in problem.units if units in own_sizes]

    def share(self, first: View, second: View, problem: Problem, rng: np.random.Generator) -> float:
        """Return the fraction of the atoms that the first parent contributes."""
        return float(rng.uniform(*SHARES))

    def fill_up(self, assembly: Assembly, orbits: Sequence[tuple[View, NDArray[np.int_]]]) -> None:
        """Add orbits that were left out because there were too many atoms of their element; by default none."""

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of two parents, or ``None`` if they have no subgroup in common or all attempts fail."""
        first, second = (self.subgroups(parent, problem) for parent in parents)
        if first is None or second is None:
            return None
        numbers = sorted(first.by_number.keys() & second.by_number.keys())
        if not numbers:
            return None
        wanted = SEPARATION * shortest_distances(parents)

        def combine() -> Atoms | None:
            number = first.draw_number(numbers, rng)
            own, other = first.draw_view(number, rng), second.draw_view(number, rng)
            if own is None or other is None or own.number != other.number:
                return None
            return self._combined(own, fitted(other, own.metric, rng), wanted, problem, rng)

        return bounded_attempts(combine, parents, problem)

    def _combined(
        self, first: View, second: View, wanted: Floats, problem: Problem, rng: np.random.Generator
    ) -> Atoms | None:
        sizes = self.sizes(first, second, problem)
        if not sizes:
            return None
        contents = problem.contents(sizes[rng.integers(len(sizes))])
        n_atoms = sum(contents.values())
        share = self.share(first, second, problem, rng)
        volumes = [view.atoms.get_volume() / len(view.atoms) for view in (first, second)]
        metric = share * _at_volume_1(first.metric) + (1 - share) * _at_volume_1(second.metric)
        of_cell = n_atoms * (share * volumes[0] + (1 - share) * volumes[1])
        distances = np.maximum(problem.distance_table, rng.uniform(LOOSEST, 1) * wanted)
        assembly = Assembly(first.number, metric, of_cell, distances, contents)
        ranks = self.ranks(first, second, share, rng)
        offers = [
            (float(rank), view, orbit)
            for view, own in zip((first, second), ranks, strict=True)
            for orbit, rank in zip(view.orbits, own, strict=True)
        ]
        taken = {id(first): 0, id(second): 0}
        left: list[tuple[View, NDArray[np.int_]]] = []
        for _, view, orbit in sorted(offers, key=lambda offer: -offer[0]):
            if assembly.add(view, orbit):
                taken[id(view)] += len(orbit)
            else:
                left.append((view, orbit))
        self.fill_up(assembly, left)
        if min(taken.values()) == 0 or assembly.missing > MOST_NEW * n_atoms:
            return None
        return assembly.complete(first, rng)


@dataclass(frozen=True)
class SymmetricHeredity(CommonSubgroupOperator):
    """Combine regions of two parents that are centred on symmetry elements of both.

    The regions are those where a plane wave, averaged over the operations of a space group that both parents have,
    exceeds a threshold: slabs that are centred on mirror planes, inversion centres or two-fold axes of both, or rods
    and spheres about axes and points of higher symmetry. The first parent contributes the orbits inside, the second
    those outside. With a wave vector of one reciprocal vector this is a cut through both crystals, as in heredity
    without symmetry; the child keeps all operations of the common group. Of several cuts that are drawn, the one with
    the highest local order inside both regions is made, so that disordered regions are replaced by ordered ones.

    References
    ----------
    Slabs with periodic boundaries: Abraham, Probert, Phys. Rev. B 73, 224104 (2006), doi:10.1103/PhysRevB.73.224104.
    Local order: Lyakhov, Oganov, Stokes, Zhu, Comput. Phys. Commun. 184, 1172 (2013), doi:10.1016/j.cpc.2012.12.009.
    Moves that keep symmetry: Wang et al. (MAGUS), Natl. Sci. Rev. 10, nwad128 (2023), doi:10.1093/nsr/nwad128.
    """

    name: str = "symmetric-heredity"
    cuts: int = 3

    def ranks(self, first: View, second: View, share: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return how far inside the region the orbits of the first, and outside those of the second parent are."""
        cuts = [_cut(first, second, share, rng) for _ in range(self.cuts)]
        return max(cuts, key=lambda cut: _order_within(first, cut[0]) + _order_within(second, cut[1]))


def _cut(first: View, second: View, share: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the heights of the orbits of two parents above the threshold of one plane wave, and below it."""
    wave = np.zeros(3, dtype=int)
    while not wave.any():
        wave = rng.integers(-1, 2, size=3)
    phase = rng.random()

    def heights(view: View) -> Floats:
        values = np.cos(2 * np.pi * (view.positions @ wave + phase))
        ties = 1e-3 * rng.random(len(view.orbits))
        return np.array([values[orbit].mean() for orbit in view.orbits]) + ties

    inside, outside = heights(first), heights(second)
    sizes = np.array([len(orbit) for orbit in first.orbits])
    order = np.argsort(-inside)
    last = int(np.searchsorted(np.cumsum(sizes[order]) / sizes.sum(), share))
    threshold = inside[order[min(last, len(order) - 1)]]
    return inside - threshold, threshold - outside


def _order_within(view: View, ranks: Floats) -> float:
    """Return the mean local order of the atoms of the orbits inside a region, relative to that of all."""
    inside = [orbit for orbit, rank in zip(view.orbits, ranks, strict=True) if rank >= 0]
    if not inside:
        return 0.0
    return float(view.local_order[np.concatenate(inside)].mean() / max(view.local_order.mean(), 1e-9))


@dataclass(frozen=True)
class OrbitCrossover(CommonSubgroupOperator):
    """Combine random orbits of two parents in a space group that both have.

    In contrast to heredity the orbits of a parent need not be close to each other: one parent may contribute the
    positions of one element, and the other one those of another.

    References
    ----------
    Moves that keep symmetry: Wang et al. (MAGUS), Natl. Sci. Rev. 10, nwad128 (2023), doi:10.1093/nsr/nwad128. Uniform
    crossover: Syswerda, Proc. 3rd Int. Conf. Genetic Algorithms, 2 (1989).
    """

    name: str = "orbit-crossover"

    def ranks(self, first: View, second: View, share: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return random ranks, by which the first parent contributes about its share."""
        return rng.random(len(first.orbits)) ** (1 / share), rng.random(len(second.orbits)) ** (1 / (1 - share))


def _at_volume_1(metric: Floats) -> Floats:
    return np.asarray(metric / np.cbrt(np.linalg.det(metric)))
