"""Provide the source of random symmetric crystals, the baseline for every other source."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.archive.distances import search_distances
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost, Proposal
from hybridcsp.errors import InputError
from hybridcsp.sources.base import BaseSource, Context
from hybridcsp.sources.crystal_builder import CrystalBuilder, Separation
from hybridcsp.structure.placement import SEPARATIONS
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.structure.symmetry_orders import random_groups
from hybridcsp.structure.validity import cell_violation
from hybridcsp.structure.wyckoff import point_group_order

#: Number of attempts in one space group.
ATTEMPTS_PER_GROUP = 3

#: Number of crystals that come out more symmetric than their group before one of them is proposed: some orders do not
#: occur in fixed cells and in small ones. More are rarely drawn in variable cells: in none of 300 of 2 to 15 atoms.
REDRAWS = 12

# Number of random crystals that are built to check that an allowed space group occurs at all.
_PROBES = 100

_EVERY_GROUP = tuple(range(1, 231))


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
        self._builder = CrystalBuilder(problem)
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

    def _draw(
        self, own: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> tuple[Atoms, dict[str, int | float]] | None:
        """Return a crystal and its tag; some crystals keep the search's own distances if there are any."""
        usual = self._builder.draw_distances(own, rng)
        units = self._units[rng.integers(len(self._units))]
        contents = self._problem.contents(units)
        allowed = self._problem.spacegroups or _EVERY_GROUP
        # After a group in which nothing can be built, the others of its order come first, so that the orders keep their
        # probabilities.
        groups = (
            number
            for _ in count()
            for number in random_groups(allowed, sum(contents.values()), rng)
            if self._builder.holds(number, units)
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
        separation: Separation | None,
        rng: np.random.Generator,
    ) -> Atoms | None:
        """Return one crystal in a space group, or ``None`` if it cannot be built; see :class:`CrystalBuilder`."""
        numbers = [atomic_numbers[symbol] for symbol in contents]
        drawn = self._builder.group(number).draw_sites(list(contents.values()), rng)
        return self._builder.build(number, [(numbers[kind], position) for kind, position in drawn], separation, rng)


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
    holds = CrystalBuilder(problem).holds
    pairs = [(units, number) for units in problem.units for number in problem.spacegroups if holds(number, units)]
    if pairs:
        return pairs
    usable = [number for number in _EVERY_GROUP if any(holds(number, units) for units in problem.units)]
    why = f"their Wyckoff positions do not hold {_cell_in_words(problem)}, but those of these do"
    raise InputError("spacegroups", problem.spacegroups, reason=f"{why}: {', '.join(map(str, usable))}")


def _cell_in_words(problem: Problem) -> str:
    where = "the fixed cell" if problem.cell else "a primitive cell"
    return f"{problem.units_in_words} x {problem.formula} in {where}"
