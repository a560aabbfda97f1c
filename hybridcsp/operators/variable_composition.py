"""Operators that make crystals of one composition from a crystal of another: transmutation, addition, substitution."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import atomic_numbers, chemical_symbols

from hybridcsp.core.problem import Problem
from hybridcsp.core.volumes import expected_volume
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import Floats, bounded_attempts, reduced
from hybridcsp.operators.contents import ContentsAdjustment, draw_generators
from hybridcsp.operators.supercell import supercells
from hybridcsp.operators.symmetry import operations, symmetrised
from hybridcsp.structure.symmetry import SYMPREC, SYMPREC_LOOSE, primitive

#: Largest number of primitive cells in a supercell.
LARGEST = 24

#: Number of supercells of which the most compact one is taken.
SHAPES = 8

#: Fraction of changed atoms over which the probability of a supercell decreases by a factor of e, and the largest one.
CHANGE, MOST_CHANGED = 0.15, 0.75


class CompositionOperator(Operator):
    """Base class of operators whose parents may have other compositions of a chemical system than the child."""

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free."""
        return problem.cell is None

    def accepts(self, parent: Mapping[str, int], problem: Problem) -> bool:
        """Return whether a crystal of some composition can be a parent; by default if that is not the problem's.

        Parameters
        ----------
        parent
            Numbers of atoms by element in the reduced formula of the parent.
        problem
            The problem that the child has to obey.
        """
        return dict(parent) != reduced_composition(problem.composition)

    def most_children(self, parent: Mapping[str, int], problem: Problem) -> int | None:
        """Return the largest number of different children of a parent; ``None`` if it has no limit."""
        return None


@dataclass(frozen=True)
class _SupercellOperator(CompositionOperator):
    """Base class of operators that change the contents of a supercell of a parent.

    The parent is symmetrised at the loose tolerance and reduced to its primitive cell. The number of these cells and
    that of the formula units of the child are drawn together, those with few changes more often. Of some supercells of
    this size the most compact one is taken and scaled by the ratio of the expected volumes. The changes are those of
    whole orbits of the group that one to four random operations of the supercell generate.
    """

    n_parents: int = 1

    @abstractmethod
    def change(self, have: Mapping[str, int], contents: Mapping[str, int]) -> float | None:
        """Return the number of atoms that the operator changes; ``None`` if it cannot make these contents.

        Parameters
        ----------
        have, contents
            Numbers of atoms by element in the supercell and in the child.
        """

    @abstractmethod
    def adjust(self, draft: ContentsAdjustment, distances: Floats) -> bool:
        """Adjust the contents of a supercell; return whether they are those of the child.

        Parameters
        ----------
        draft
            The supercell.
        distances
            Minimum distances in Å by atomic numbers, shape ``(119, 119)``.
        """

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if there is no suitable supercell or all attempts fail."""
        parent = ideal_primitive(parents[0])
        sizes, chances = self._sizes(parent, problem)
        if not sizes:
            return None

        def make() -> Atoms | None:
            copies, units = sizes[rng.choice(len(sizes), p=chances)]
            contents = problem.contents(units)
            cell = scaled_to(_compact_supercell(parent, copies, rng), contents, problem)
            group = operations(cell, SYMPREC)
            draft = ContentsAdjustment(cell, None if group is None else draw_generators(group, rng), contents, rng)
            return _smallest(draft.crystal, problem) if self.adjust(draft, problem.distance_table) else None

        return bounded_attempts(make, parents, problem)

    def _sizes(self, parent: Atoms, problem: Problem) -> tuple[list[tuple[int, int]], Floats]:
        """Return numbers of primitive cells with numbers of formula units, and the probability of each pair."""
        counts = Counter(parent.get_chemical_symbols())
        sizes, weights = [], []
        for units in problem.units:
            contents = problem.contents(units)
            total = sum(contents.values())
            copies = range(1, min(LARGEST, int(total / (1 - MOST_CHANGED) / len(parent))) + 1)
            for number in copies:
                have = {symbol: number * count for symbol, count in counts.items()}
                changed = self.change(have, contents)
                if changed is not None and changed <= MOST_CHANGED * total:
                    sizes.append((number, units))
                    weights.append(np.exp(-changed / total / CHANGE) / number)
        return sizes, np.array(weights) / max(sum(weights), 1e-300)


@dataclass(frozen=True)
class Transmutation(_SupercellOperator):
    """Change the elements of some orbits of the parent, or of a supercell of it.

    The child has as many atoms as the supercell; the positions stay.

    References
    ----------
    Oganov, Ma, Lyakhov, Valle, Gatti (USPEX), Rev. Mineral. Geochem. 71, 271 (2010), doi:10.2138/rmg.2010.71.13;
    orderings of a lattice: Jóhannesson et al., Phys. Rev. Lett. 88, 255506 (2002), doi:10.1103/PhysRevLett.88.255506;
    as "substitution" in CrySPY: Yamashita et al., Sci. Technol. Adv. Mater. Meth. 1, 87 (2021),
    doi:10.1080/27660400.2021.1943171.
    """

    name: str = "transmutation"

    def change(self, have: Mapping[str, int], contents: Mapping[str, int]) -> float | None:
        """Return the number of atoms whose element changes; ``None`` if the numbers of atoms differ."""
        if sum(have.values()) != sum(contents.values()):
            return None
        return sum(max(0, count - have.get(symbol, 0)) for symbol, count in contents.items()) or None

    def adjust(self, draft: ContentsAdjustment, distances: Floats) -> bool:
        """Transmute orbits of surplus elements."""
        return draft.transmute()


@dataclass(frozen=True)
class AdditionRemoval(_SupercellOperator):
    """Remove weakly bound orbits of the parent, or of a supercell of it, and put atoms into its largest holes.

    Atoms of elements of which the supercell has too many are removed, those of low coordination by the strengths of
    their bonds more often; missing ones are added at the vertices of Voronoi cells that are farthest from all atoms.

    References
    ----------
    Zhu, Li, Oganov, Allen, Phys. Rev. B 87, 195317 (2013), doi:10.1103/PhysRevB.87.195317; variable numbers of atoms:
    Tipton, Hennig (GASP), J. Phys.: Condens. Matter 25, 495401 (2013), doi:10.1088/0953-8984/25/49/495401. Bond
    strengths: Lyakhov, Oganov, Valle, Comput. Phys. Commun. 181, 1623 (2010), doi:10.1016/j.cpc.2010.06.007.
    """

    name: str = "addition-removal"

    def change(self, have: Mapping[str, int], contents: Mapping[str, int]) -> float | None:
        """Return the number of atoms that are added and removed."""
        symbols = {*have, *contents}
        return sum(abs(contents.get(symbol, 0) - have.get(symbol, 0)) for symbol in symbols) or None

    def adjust(self, draft: ContentsAdjustment, distances: Floats) -> bool:
        """Remove all surplus atoms and add all missing ones."""
        return draft.remove(draft.surplus) and draft.add(distances)


@dataclass(frozen=True)
class Substitution(CompositionOperator):
    """Exchange the elements of a parent for those of the problem in the same proportions, such as A₂B from AB₂.

    The child has the whole symmetry of the parent, and its volume is scaled by the ratio of the expected volumes.

    References
    ----------
    Hautier, Fischer, Ehrlacher, Jain, Ceder, Inorg. Chem. 50, 656 (2011), doi:10.1021/ic102031h.
    """

    name: str = "substitution"
    n_parents: int = 1

    def accepts(self, parent: Mapping[str, int], problem: Problem) -> bool:
        """Return whether the parent has the proportions of the problem in another order or with other elements."""
        return bool(_exchanges(parent, problem))

    def most_children(self, parent: Mapping[str, int], problem: Problem) -> int | None:
        """Return the number of ways to exchange the elements."""
        return len(_exchanges(parent, problem))

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if its proportions differ, or its size is not allowed."""
        parent = ideal_primitive(parents[0])
        exchanges = _exchanges(reduced_composition(Counter(parent.get_chemical_symbols())), problem)
        if not exchanges:
            return None

        def exchange() -> Atoms | None:
            child = parent.copy()
            elements = exchanges[rng.integers(len(exchanges))]
            child.numbers[:] = [atomic_numbers[elements[symbol]] for symbol in parent.get_chemical_symbols()]
            return scaled_to(child, Counter(child.get_chemical_symbols()), problem, parent)

        return bounded_attempts(exchange, parents, problem)


def reduced_composition(counts: Mapping[str, int]) -> dict[str, int]:
    """Return numbers of atoms by element without a common factor."""
    factor = int(np.gcd.reduce(list(counts.values())))
    return {symbol: count // factor for symbol, count in counts.items()}


def ideal_primitive(parent: Atoms) -> Atoms:
    """Return the primitive cell, symmetrised at the loose tolerance, without initial moments and charges.

    Moments and charges belong to the elements, which the operators change; the search gives every candidate those of
    its problem.
    """
    arrays = parent.numbers, parent.cell.array, parent.positions
    return _ideal_primitive(*(np.asarray(array).tobytes() for array in arrays)).copy()


@lru_cache(maxsize=256)  # parents have many children
def _ideal_primitive(numbers: bytes, cell: bytes, positions: bytes) -> Atoms:
    places, vectors = (np.frombuffer(data).reshape(-1, 3) for data in (positions, cell))
    bare = Atoms(np.frombuffer(numbers, dtype=int), places, cell=vectors, pbc=True)
    small = primitive(bare, SYMPREC_LOOSE)
    ideal = symmetrised(small)
    return small if ideal is None else ideal[0]


def scaled_to(crystal: Atoms, contents: Mapping[str, int], problem: Problem, parent: Atoms | None = None) -> Atoms:
    """Return a crystal whose volume is scaled by the ratio of the expected volumes of other contents and its own.

    Parameters
    ----------
    crystal
        The crystal.
    contents
        Numbers of atoms by element, of which the result should have the volume.
    problem
        Problem with the pressure.
    parent
        Crystal of which the present volume is; by default the crystal itself.
    """
    present = Counter((crystal if parent is None else parent).get_chemical_symbols())
    expected = [
        sum(counts.values()) * expected_volume(counts, problem.pressure_gpa)
        for counts in ({symbol: n for symbol, n in contents.items() if n}, present)
    ]
    result = crystal.copy()
    result.set_cell(crystal.cell.array * np.cbrt(expected[0] / expected[1]), scale_atoms=True)
    return result


def _smallest(crystal: Atoms, problem: Problem) -> Atoms:
    """Return the primitive cell of a crystal if the problem allows its size, or else the crystal itself."""
    small = primitive(crystal, SYMPREC)
    return small if problem.units_of(small.numbers) in problem.units else crystal


def _compact_supercell(parent: Atoms, copies: int, rng: np.random.Generator) -> Atoms:
    """Return the most compact of some random supercells, in its reduced cell."""
    shapes = supercells(copies)
    drawn = [shapes[index] for index in rng.integers(len(shapes), size=SHAPES)]
    cells = [reduced(make_supercell(parent, shape)) for shape in drawn]
    return min(cells, key=lambda cell: round(float((cell.cell.lengths() ** 2).sum()), 6))


def _exchanges(parent: Mapping[str, int], problem: Problem) -> list[dict[str, str]]:
    """Return the assignments of elements of the problem to those of a reduced composition, but for the identity."""
    wanted = reduced_composition(problem.composition)
    if sorted(parent.values()) != sorted(wanted.values()):
        return []
    symbols = sorted(parent, key=chemical_symbols.index)
    assignments = [dict(zip(symbols, order, strict=True)) for order in permutations(sorted(wanted))]
    return [
        assignment
        for assignment in assignments
        if all(parent[old] == wanted[new] for old, new in assignment.items())
        and any(old != new for old, new in assignment.items())
    ]
