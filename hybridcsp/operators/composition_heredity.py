"""Combinations of two parents of different compositions into a crystal of a third one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.operators.assembly import Assembly
from hybridcsp.operators.common import Floats, bounded_attempts, length_unit, reduced
from hybridcsp.operators.contents import ContentsAdjustment
from hybridcsp.operators.displacement import local_order
from hybridcsp.operators.heredity import Faces, faces_of, matching_blocks, ordered_slab
from hybridcsp.operators.splicing import Slab, stack
from hybridcsp.operators.subgroups import Subgroups, View, subgroups_of_primitive
from hybridcsp.operators.symmetric_heredity import OrbitCrossover
from hybridcsp.operators.variable_composition import CompositionOperator, ideal_primitive
from hybridcsp.structure.separations import shortest_distances

#: Smallest and largest fraction of the atoms that one parent contributes, and standard deviation of its noise.
SHARES, NOISE = (0.15, 0.85), 0.05

#: Largest fraction of the atoms of slabs that may be removed, transmuted and added.
MOST_CORRECTED = 0.35

#: Sizes of children of orbits, in sizes of the smaller and of the larger parent.
SIZES = (0.5, 2.0)


@dataclass(frozen=True)
class CompositionHeredity(CompositionOperator):
    """Stack slabs of two parents of different compositions.

    The shares of the parents are those that come closest to the composition of the child (lever rule), with a little
    noise: two phases into which the child would decompose are layered in just these proportions. Planes, orientations
    and slabs are chosen as in :class:`~hybridcsp.operators.heredity.Heredity`. If the atoms in the slabs and next to
    the cuts do not have the contents of the child, superfluous ones are removed, surplus ones transmuted, and missing
    ones put into holes, at most 35 % of the atoms.

    References
    ----------
    Heredity in variable composition: Oganov, Ma, Lyakhov, Valle, Gatti, Rev. Mineral. Geochem. 71, 271 (2010),
    doi:10.2138/rmg.2010.71.13; Trimarchi, Freeman, Zunger, Phys. Rev. B 80, 092101 (2009),
    doi:10.1103/PhysRevB.80.092101.
    """

    name: str = "composition-heredity"
    n_parents: int = 2
    cuts: int = 3

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of two parents, or ``None`` if all attempts fail."""
        ideal = [reduced(ideal_primitive(parent)) for parent in parents]
        wanted = np.maximum(shortest_distances(parents), problem.distance_table)
        orders = [local_order(parent) for parent in ideal]
        faces = [faces_of(parent) for parent in ideal]
        lever = _lever(ideal[0], ideal[1], problem)

        def splice() -> Atoms | None:
            units = int(rng.choice(problem.units))
            share = float(np.clip(lever + NOISE * rng.normal(), *SHARES))
            first = int(rng.integers(2))
            share = share if first == 0 else 1 - share
            return self._spliced(
                (faces[first], faces[1 - first]),
                (orders[first], orders[1 - first]),
                (share, 1 - share),
                wanted,
                (problem, units),
                rng,
            )

        return bounded_attempts(splice, parents, problem)

    def _spliced(
        self,
        faces: tuple[Faces, Faces],
        orders: tuple[Floats, Floats],
        shares: tuple[float, float],
        wanted: Floats,
        size: tuple[Problem, int],
        rng: np.random.Generator,
    ) -> Atoms | None:
        problem, units = size
        contents = problem.contents(units)
        n_atoms = sum(contents.values())
        pair = matching_blocks(*faces, n_atoms, shares[0], rng)
        if pair is None:
            return None
        slabs = [
            ordered_slab(own, part * n_atoms / own.n_atoms, order, self.cuts, rng)
            for own, part, order in zip(pair, shares, orders, strict=True)
        ]
        stacked = stack(slabs, contents, wanted, rng) or stack(slabs, _contents_inside(slabs), wanted, rng)
        if stacked is None or min(stacked[1]) == 0:
            return None
        child = stacked[0]
        volume = n_atoms * sum(length_unit(own.atoms) ** 3 * part for own, part in zip(pair, shares, strict=True))
        child.set_cell(child.cell.array * np.cbrt(volume / child.get_volume()), scale_atoms=True)
        return _corrected(reduced(child), contents, problem, rng)


@dataclass(frozen=True)
class CompositionCrossover(OrbitCrossover, CompositionOperator):
    """Combine random orbits of two parents of different compositions in a space group that both have.

    The shares follow the lever rule as in :class:`CompositionHeredity`. Orbits are taken as in
    :class:`~hybridcsp.operators.symmetric_heredity.OrbitCrossover` while atoms of their element are missing; orbits
    that are left over are then taken with another element, and the rest is put on random orbits.

    References
    ----------
    Moves that keep symmetry: Wang et al. (MAGUS), Natl. Sci. Rev. 10, nwad128 (2023), doi:10.1093/nsr/nwad128.
    """

    name: str = "composition-crossover"

    def subgroups(self, parent: Atoms, problem: Problem) -> Subgroups | None:
        """Return the subgroups of the primitive cell of a parent; ``None`` if it has no symmetry."""
        return subgroups_of_primitive(parent)

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of two parents, or ``None`` if they have no subgroup in common or all attempts fail."""
        ideal = [ideal_primitive(parent) for parent in parents]
        return super().__call__(ideal, problem, rng) if _similar_sizes(ideal[0], ideal[1], problem) else None

    def sizes(self, first: View, second: View, problem: Problem) -> list[int]:
        """Return the numbers of formula units with about as many atoms as the parents have."""
        return _similar_sizes(first.atoms, second.atoms, problem)

    def share(self, first: View, second: View, problem: Problem, rng: np.random.Generator) -> float:
        """Return the fraction of atoms of the first parent that comes closest to the composition."""
        return float(np.clip(_lever(first.atoms, second.atoms, problem) + NOISE * rng.normal(), *SHARES))

    def fill_up(self, assembly: Assembly, orbits: Sequence[tuple[View, NDArray[np.int_]]]) -> None:
        """Add orbits with the elements that are missing in place of their own."""
        for view, orbit in orbits:
            for element in assembly.missing_elements:
                if assembly.add(view, orbit, element):
                    break


def lever_share(first: Mapping[str, int], second: Mapping[str, int], wanted: Mapping[str, int]) -> float:
    """Return the fraction of atoms of the first of two compositions whose mixture is closest to a third one.

    Parameters
    ----------
    first, second, wanted
        Numbers of atoms by element.

    Returns
    -------
    float
        Fraction from 0 to 1; 0.5 if both compositions are the same.
    """
    symbols = sorted({*first, *second, *wanted})
    own, other, target = (
        np.array([counts.get(symbol, 0) for symbol in symbols]) / sum(counts.values())
        for counts in (first, second, wanted)
    )
    difference = own - other
    if not difference.any():
        return 0.5
    return float(np.clip((target - other) @ difference / (difference @ difference), 0.0, 1.0))


def _lever(first: Atoms, second: Atoms, problem: Problem) -> float:
    counts = [Counter(parent.get_chemical_symbols()) for parent in (first, second)]
    return lever_share(counts[0], counts[1], problem.composition)


def _similar_sizes(first: Atoms, second: Atoms, problem: Problem) -> list[int]:
    """Return the numbers of formula units whose numbers of atoms are similar to those of two primitive cells."""
    low, high = SIZES[0] * min(len(first), len(second)), SIZES[1] * max(len(first), len(second))
    return [units for units in problem.units if low <= units * problem.atoms_per_unit <= high]


def _contents_inside(slabs: Sequence[Slab]) -> dict[str, int]:
    """Return the numbers of atoms by element inside slabs."""
    counts: Counter[str] = Counter()
    for slab in slabs:
        atoms, _, depths = slab.depths()
        counts.update(slab.block.atoms.symbols[atoms[depths <= 0]])
    return dict(counts)


def _corrected(child: Atoms, contents: Mapping[str, int], problem: Problem, rng: np.random.Generator) -> Atoms | None:
    """Return a crystal with the given contents, whose atoms are changed one by one; ``None`` if too many had to be."""
    counts = Counter(child.numbers.tolist())
    wanted = {atomic_numbers[symbol]: count for symbol, count in contents.items()}
    changed = max(
        sum(max(0, wanted.get(z, 0) - counts[z]) for z in wanted),
        sum(max(0, counts[z] - wanted.get(z, 0)) for z in counts),
    )
    if changed > MOST_CORRECTED * sum(wanted.values()):
        return None
    draft = ContentsAdjustment(child, None, contents, rng)
    done = draft.remove(max(0, draft.excess)) and draft.transmute() and draft.add(problem.distance_table)
    return draft.crystal if done else None
