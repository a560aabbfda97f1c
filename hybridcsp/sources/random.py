"""Provide the source of random symmetric crystals, the baseline for every other source."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import count, permutations

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.archive.distances import search_distances
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost, Proposal
from hybridcsp.errors import InputError
from hybridcsp.sources.base import BaseSource, Context
from hybridcsp.structure.placement import BONDS, SEPARATIONS, place, random_cell, separations
from hybridcsp.structure.separations import usual_distances
from hybridcsp.structure.symmetry import primitive, spacegroup
from hybridcsp.structure.symmetry_orders import random_groups
from hybridcsp.structure.validity import cell_violation, shortest_violation
from hybridcsp.structure.wyckoff import SpaceGroup, point_group_order, space_group

#: Share of crystals that keep the search's own distances, once there are some, in place of the usual ones.
OWN = 0.5

#: Number of attempts in one space group.
ATTEMPTS_PER_GROUP = 3

#: Number of crystals that come out more symmetric than their group before one of them is proposed: some orders do not
#: occur in fixed cells and in small ones. More are rarely drawn in variable cells: in none of 300 of 2 to 15 atoms.
REDRAWS = 12

#: Largest deviation of a fixed cell from the metric of a crystal system, in Å and degrees.
METRIC_TOLERANCE = (0.05, 0.1)

# Number of random crystals that are built to check that an allowed space group occurs at all.
_PROBES = 100

_NO_DISTANCES = np.zeros((119, 119))

_EVERY_GROUP = tuple(range(1, 231))

# Angles, and which lengths are equal, in the conventional cells of PyXtal's settings.
_METRICS: dict[str, tuple[tuple[float | None, ...], tuple[tuple[int, int], ...]]] = {
    "triclinic": ((None, None, None), ()),
    "monoclinic": ((90, None, 90), ()),
    "orthorhombic": ((90, 90, 90), ()),
    "tetragonal": ((90, 90, 90), ((0, 1),)),
    "hexagonal": ((90, 90, 120), ((0, 1),)),
    "cubic": ((90, 90, 90), ((0, 1), (1, 2))),
}


class RandomSource(BaseSource):
    """Propose random crystals: space group, cell shape, volume, Wyckoff positions and coordinates are drawn.

    The number of formula units is drawn evenly from the problem's, then the space group from those whose Wyckoff
    positions hold the contents of the *primitive* cell, so that centred lattices have their share: the order of its
    point group with the probability that it has among known crystals of that size
    (:mod:`~hybridcsp.structure.symmetry_orders`), and a group of that order; a crystal that comes out more symmetric is
    drawn again a few times. The atoms are distributed over Wyckoff
    positions (:meth:`SpaceGroup.draw_sites`), put at random points of them, and pushed apart until each pair of
    elements keeps its usual distance (:func:`~hybridcsp.structure.separations.usual_distances`); the distances are
    loosened if that fails in one space group after another. Once the search has found some minima, half of the crystals
    keep the distances of its best instead (:func:`~hybridcsp.archive.distances.search_distances`). AIRSS does the same
    with MINSEP, SYMMOPS and pushes (doi:10.1088/0953-8984/23/5/053201).

    Groups and lattice shapes are PyXtal's (doi:10.1016/j.cpc.2020.107810); the placement is not, because PyXtal 1.1.5
    needs up to seconds for 20 atoms at such separations and does not see neighbours beyond the adjacent cells.

    Every loop is bounded in attempts, never in time: the same stream of random numbers gives the same structures.

    Parameters
    ----------
    problem
        The problem of the search. A fixed cell is filled with groups whose metric it has in any order of axes.
    argument
        Must be ``None``: the source has no argument.

    Raises
    ------
    InputError
        If an argument is given, or if no allowed space group holds the contents or fits the fixed cell.
    """

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        if argument is not None:
            raise InputError("source", f"random:{argument}", reason="random takes no argument; write random")
        self._problem = problem
        self._settings = _settings(problem.cell) if problem.cell else None
        self._usual = usual_distances(problem), usual_distances(problem, bonds=True)
        self._units = self._check_spacegroups()

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return ``n`` random crystals, fewer if the limit of attempts is reached.

        The tag of each holds ``spacegroup`` (at 0.01 Å), ``drawn`` (the requested group; the crystal may have a higher
        one), ``attempts`` and ``separation`` (fraction of the usual distances that it was built at).
        """
        own = search_distances(context.archive, self._problem)
        proposals = []
        for _ in range(n):
            start = time.perf_counter()
            found = self._draw(own, context.rng)
            if found is not None:
                atoms, tag = found
                cost = Cost(seconds=time.perf_counter() - start)
                proposals.append(Proposal(atoms=atoms, operator="random", tag=tag, cost=cost))
        return proposals

    def _check_spacegroups(self) -> tuple[int, ...]:
        """Return the numbers of formula units that an allowed space group holds."""
        problem = self._problem
        if not problem.spacegroups:
            return problem.units  # group 1 holds everything
        pairs = check_spacegroups(problem)
        usable = self._outcomes(pairs)
        if usable.intersection(problem.spacegroups):
            return tuple(sorted({z for z, _ in pairs}))
        why = f"crystals of {_cell_in_words(problem)} drawn in them are more symmetric, for example"
        raise InputError("spacegroups", problem.spacegroups, reason=f"{why}: {', '.join(map(str, sorted(usable)))}")

    def _outcomes(self, pairs: Sequence[tuple[int, int]]) -> set[int]:
        """Return the space groups of random crystals, up to the first allowed one; distances and bounds are ignored."""
        rng = np.random.default_rng(0)
        outcomes: set[int] = set()
        for _ in range(_PROBES):
            units, number = pairs[int(rng.integers(len(pairs)))]
            atoms = self._build(number, self._problem.contents(units), None, rng)
            if atoms is not None:
                outcomes.add(spacegroup(atoms))
                if outcomes.intersection(self._problem.spacegroups):
                    break
        return outcomes

    def _compatible(self, number: int, units: int) -> bool:
        return _is_compatible(self._problem, self._settings, number, units)

    def _group(self, number: int) -> SpaceGroup:
        return space_group(number, conventional=self._settings is not None)

    def _draw(
        self, own: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> tuple[Atoms, dict[str, int | float]] | None:
        """Return a crystal and its tag; some crystals keep the search's own distances if there are any."""
        usual = self._usual[int(rng.random() < BONDS)]
        if own is not None and rng.random() < OWN:
            usual = own
        units = self._units[rng.integers(len(self._units))]
        contents = self._problem.contents(units)
        allowed = self._problem.spacegroups or _EVERY_GROUP
        # After a group in which nothing can be built, the others of its order come first, so that the orders keep their
        # probabilities.
        groups = (
            number
            for _ in count()
            for number in random_groups(allowed, sum(contents.values()), rng)
            if self._compatible(number, units)
        )
        attempts = redrawn = 0
        for separation, number in zip(SEPARATIONS, groups, strict=False):
            for _ in range(ATTEMPTS_PER_GROUP):
                attempts += 1
                atoms = self._build(number, contents, (usual, separation), rng)
                if atoms is None or cell_violation(atoms, self._problem) is not None:
                    continue
                found = spacegroup(atoms)
                if self._problem.spacegroups:
                    wanted = found in self._problem.spacegroups
                else:
                    # Special positions often make a crystal more symmetric than the group that was drawn.
                    as_drawn = point_group_order(found) == point_group_order(number)
                    redrawn += not as_drawn
                    wanted = as_drawn or separation < 1 or redrawn == REDRAWS
                if wanted:
                    tag = {"spacegroup": found, "drawn": number, "attempts": attempts, "separation": separation}
                    return atoms, tag
        return None

    def _build(
        self,
        number: int,
        contents: Mapping[str, int],
        separation: tuple[NDArray[np.float64], float] | None,
        rng: np.random.Generator,
    ) -> Atoms | None:
        """Return one crystal in a space group, or ``None`` if it cannot be built.

        The separation is a pair of distances and a fraction of them; without it distances are ignored.
        """
        group = self._group(number)
        numbers = np.array([atomic_numbers[symbol] for symbol in contents])
        counts = list(contents.values())
        sites = [(int(numbers[kind]), position) for kind, position in group.draw_sites(counts, rng)]
        if self._settings is not None:
            settings = self._settings[group.lattice_type]
            order = settings[rng.integers(len(settings))]
            cell = Cell.fromcellpar(self._problem.cell).array[order]
        else:
            order = [0, 1, 2]
            cell = random_cell(self._problem, group, sum(counts), rng)
            if cell is None:
                return None
        volume = abs(float(np.linalg.det(cell))) / sum(counts)
        distances = _NO_DISTANCES if separation is None else separations(self._problem, *separation, volume)
        placed = place(sites, cell, distances, rng)
        if placed is None:
            return None
        back = np.argsort(order)
        atoms = Atoms(numbers=placed[0], cell=cell[back], scaled_positions=placed[1][:, back], pbc=True)
        if self._settings is None:
            atoms = primitive(atoms)
            if len(atoms) != sum(counts):
                return None
        return None if shortest_violation(atoms, distances) else atoms


def check_spacegroups(problem: Problem) -> list[tuple[int, int]]:
    """Return the pairs of a number of formula units and an allowed space group that holds it.

    The list is empty if the problem allows all space groups.

    Raises
    ------
    InputError
        If Wyckoff positions of no allowed group hold the contents of the primitive cell, or none fits the fixed cell.
    """
    if not problem.spacegroups:
        return []
    settings = _settings(problem.cell) if problem.cell else None
    pairs = [
        (units, number)
        for units in problem.units
        for number in problem.spacegroups
        if _is_compatible(problem, settings, number, units)
    ]
    if pairs:
        return pairs
    usable = [
        number
        for number in _EVERY_GROUP
        if any(_is_compatible(problem, settings, number, units) for units in problem.units)
    ]
    why = f"their Wyckoff positions do not hold {_cell_in_words(problem)}, but those of these do"
    raise InputError("spacegroups", problem.spacegroups, reason=f"{why}: {', '.join(map(str, usable))}")


def _is_compatible(
    problem: Problem, settings: Mapping[str, Sequence[Sequence[int]]] | None, number: int, units: int
) -> bool:
    group = space_group(number, conventional=settings is not None)
    if settings is not None and group.lattice_type not in settings:
        return False
    return group.holds(list(problem.contents(units).values()))


def _cell_in_words(problem: Problem) -> str:
    where = "the fixed cell" if problem.cell else "a primitive cell"
    return f"{problem.units_in_words} x {problem.formula} in {where}"


def _settings(parameters: Sequence[float]) -> dict[str, list[list[int]]]:
    """Return for each lattice type whose metric a cell has the orders of its axes with that metric."""
    length_tolerance, angle_tolerance = METRIC_TOLERANCE
    found: dict[str, list[list[int]]] = {}
    for order in map(list, permutations(range(3))):
        lengths = [parameters[i] for i in order]
        angles = [parameters[3 + i] for i in order]
        for lattice_type, (wanted, equal) in _METRICS.items():
            if all(w is None or abs(a - w) <= angle_tolerance for a, w in zip(angles, wanted, strict=True)) and all(
                abs(lengths[i] - lengths[j]) <= length_tolerance for i, j in equal
            ):
                found.setdefault(lattice_type, []).append(order)
    return found
