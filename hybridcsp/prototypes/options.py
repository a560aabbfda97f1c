"""Proposals from prototypes for a problem, in the order of their estimated probability of success."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import gcd

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.prototypes.building import draw_crystal, substitute
from hybridcsp.prototypes.labels import Label, reduced_formula
from hybridcsp.prototypes.library import Library, Template
from hybridcsp.prototypes.ranking import Placement, placements
from hybridcsp.prototypes.table import CountTable
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.elements import squared_distances
from hybridcsp.structure.normalizer import ENANTIOMORPHS

#: Assumed probability that known coordinates of the right prototype relax into the structure sought.
TEMPLATE_SUCCESS = 0.8

#: Assumed probability that drawn coordinates do with one free parameter; that with n parameters is its n-th power ...
DRAW_SUCCESS = 0.75

#: ... but at least this.
MIN_SUCCESS = 0.02

#: Number of draws of one prototype with the same elements in its slots.
DRAWS = 20

#: Factor of the probability if the result is a supercell of the prototype.
SUPERCELL = 0.1


@dataclass(frozen=True, eq=False)
class Option:
    """One proposal from a prototype.

    Attributes
    ----------
    label, elements
        Prototype and atomic numbers of the elements in its slots.
    units
        Number of the problem's formula units in the cell.
    template
        Template with the coordinates; ``None`` if they are drawn.
    draw
        Number of earlier draws of the same prototype and elements.
    chance
        Estimated probability that this proposal leads to the structure sought and none before it did.
    """

    label: Label
    elements: tuple[int, ...]
    units: int
    template: Template | None
    draw: int
    chance: float

    def build(self, problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return the crystal, or ``None`` if it cannot be built within the problem's bounds."""
        if self.template is None:
            return draw_crystal(self.label, self.elements, problem, self.units, rng)
        elements = dict(zip(self.template.elements, self.elements, strict=True))
        return substitute(self.template.atoms, elements, problem, self.units)


class Options:
    """Options for a problem in a fixed order, the most probable first.

    A prototype's templates come first, in the order of the similarity of their elements to those sought, and then draws
    on its Wyckoff positions. The probability of an attempt excludes that of the attempts before it: with a probability
    p of being the right prototype and q of success in each attempt, the k-th has p q (1 - q)^(k-1).

    Options are computed on demand. There are none for a fixed cell: which prototypes fit it is not known in advance.

    Parameters
    ----------
    problem
        Problem of the search.
    table
        Counts of prototypes.
    libraries
        Libraries of templates.
    """

    def __init__(self, problem: Problem, table: CountTable, libraries: Sequence[Library]) -> None:
        self._problem = problem
        self._more = _ordered(problem, table, libraries)
        self._listed: list[Option] = []
        self._possible: dict[int, bool] = {}
        self._drawable: dict[tuple[Label, tuple[int, ...]], bool] = {}
        self._arrangements: dict[int, list[Atoms]] = {}

    def __getitem__(self, rank: int) -> Option:
        """Return the option of a rank that :meth:`possible` yielded."""
        return self._listed[rank]

    def possible(self, first: int) -> Iterator[int]:
        """Yield the ranks, from a first one on, of options that can be built and do not repeat earlier ones."""
        for rank in count(first):
            while len(self._listed) <= rank:
                option = next(self._more, None)
                if option is None:
                    return
                self._possible[len(self._listed)] = self._is_possible(option)
                self._listed.append(option)
            if self._possible[rank]:
                yield rank

    def _is_possible(self, option: Option) -> bool:
        """Return whether an option can be built; its own random stream makes the result equal in every run."""
        if option.template is None:
            key = option.label, option.elements
            if key not in self._drawable:
                self._drawable[key] = option.build(self._problem, np.random.default_rng(0)) is not None
            return self._drawable[key]
        atoms = option.build(self._problem, np.random.default_rng(0))
        if atoms is None:
            return False
        if len(option.label.symmetries) > 1:
            before = self._arrangements.setdefault(id(option.template), [])
            if any(_same_shape(atoms, other) for other in before):
                return False
            before.append(atoms)
        return True


def _ordered(problem: Problem, table: CountTable, libraries: Sequence[Library]) -> Iterator[Option]:
    if problem.cell is not None:
        return
    counts = reduced_formula(problem.composition)
    elements, stoichiometry = tuple(counts), tuple(counts.values())
    found = [template for library in libraries for template in library.matching(stoichiometry)]
    known = table.matching(stoichiometry)
    # A structure with known coordinates counts as one crystal.
    known = known.joined((template.label, template.elements) for template in found)
    by_label: dict[Label, list[Template]] = {}
    for template in found:
        by_label.setdefault(template.label, []).append(template)
    # The probability of the attempts at a prototype is below that of the prototype: they are created when it is first.
    ranked = placements(elements, known)
    runs: dict[int, _Run] = {}
    heap = [(-placement.probability, index) for index, placement in enumerate(ranked)]
    while heap:
        _, index = heapq.heappop(heap)
        if index in runs:
            yield runs[index].option()
            more = runs[index].advance()
        else:
            placement = ranked[index]
            run = _Run.of(placement, problem, by_label.get(placement.label, []))
            more = run is not None
            if run is not None:
                runs[index] = run
        if more:
            heapq.heappush(heap, (-runs[index].chance, index))


class _Run:
    """Attempts at one prototype with given elements in its slots."""

    def __init__(self, placement: Placement, units: int, chance: float, templates: Sequence[Template]) -> None:
        self._placement = placement
        self._units = units
        self._attempts = 0
        self._left = chance
        self._with_coordinates = _by_resemblance(placement, templates)

    @classmethod
    def of(cls, placement: Placement, problem: Problem, templates: Sequence[Template]) -> _Run | None:
        label = placement.label
        hands = {label.spacegroup, *(g for g, other in ENANTIOMORPHS.items() if other == label.spacegroup)}
        if problem.spacegroups and not hands.intersection(problem.spacegroups):
            return None
        per_unit = gcd(*problem.composition.values())
        # The units of cells that contain whole primitive cells of the prototype are multiples of this number.
        step = label.units // gcd(label.units, per_unit)
        smallest = -(-problem.units[0] // step) * step
        if step * per_unit == label.units and step in problem.units:
            return cls(placement, step, placement.probability, templates)
        if smallest in problem.units:
            return cls(placement, smallest, placement.probability * SUPERCELL, templates)
        return None

    @property
    def chance(self) -> float:
        return self._left * self._success

    def option(self) -> Option:
        number = len(self._with_coordinates)
        if self._attempts < number:
            template, elements = self._with_coordinates[self._attempts]
            return Option(self._placement.label, elements, self._units, template, 0, self.chance)
        return Option(
            self._placement.label, self._placement.elements, self._units, None, self._attempts - number, self.chance
        )

    def advance(self) -> bool:
        self._left *= 1 - self._success
        self._attempts += 1
        fixed = self._placement.label.freedom == 0
        return self._attempts < (1 if fixed else len(self._with_coordinates) + DRAWS)

    @property
    def _success(self) -> float:
        freedom = self._placement.label.freedom
        if freedom == 0 or self._attempts < len(self._with_coordinates):
            return TEMPLATE_SUCCESS
        return max(DRAW_SUCCESS**freedom, MIN_SUCCESS)


def _by_resemblance(placement: Placement, templates: Sequence[Template]) -> list[tuple[Template, tuple[int, ...]]]:
    """Return templates with the elements of their slots in all equivalent orders, the most similar elements first."""
    squares = squared_distances()
    orders = [tuple(placement.elements[slot] for slot in symmetry) for symmetry in placement.label.symmetries]
    pairs = [(template, elements) for template in templates for elements in sorted(set(orders))]
    return sorted(pairs, key=lambda pair: float(squares[list(pair[0].elements), list(pair[1])].sum()))


def _same_shape(first: Atoms, second: Atoms) -> bool:
    """Return whether two arrangements of elements on one template are the same crystal."""
    from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher

    matcher = StructureMatcher(
        ltol=0.01, stol=0.02, angle_tol=1.0, primitive_cell=False, comparator=ElementComparator()
    )
    return bool(matcher.fit(to_pymatgen(first), to_pymatgen(second), skip_structure_reduction=True))
