"""Policies that complete partly built crystals for a tree search: at random, or by a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.generators.base import Condition, Sample
from hybridcsp.generators.growing import GrowingGenerator, PartialCrystal
from hybridcsp.generators.loading import one_thread
from hybridcsp.generators.selection import LOW_ENERGIES, select
from hybridcsp.sources.crystal_builder import CrystalBuilder
from hybridcsp.sources.search_tree import Growth
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.normalizer import ENANTIOMORPHS
from hybridcsp.structure.placement import SEPARATIONS
from hybridcsp.structure.symmetry import in_group, spacegroup
from hybridcsp.structure.symmetry_orders import random_groups
from hybridcsp.structure.validity import cell_violation
from hybridcsp.structure.wyckoff import LETTERS, point_group_order

_EVERY_GROUP = tuple(range(1, 231))


class GrowthPolicy(ABC):
    """Abstract base class of policies.

    Attributes
    ----------
    attempts
        Largest number of completions that are tried for one proposal.
    """

    attempts: int

    @abstractmethod
    def complete(self, growth: Growth, rng: np.random.Generator) -> Growth | None:
        """Return a random complete growth that begins with the given steps; ``None`` if none was found."""

    @abstractmethod
    def build(
        self, growth: Growth, attempt: int, own: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> Atoms | None:
        """Return a crystal with a random geometry for a complete growth; ``None`` if it cannot be built.

        Parameters
        ----------
        growth
            A growth that :meth:`complete` returned.
        attempt
            Number of attempts before, for the same proposal.
        own
            Distances in the best minima of the search (:func:`~hybridcsp.archive.distances.search_distances`), or
            ``None``.
        rng
            Random number generator.
        """


class RandomPolicy(GrowthPolicy):
    """Draw formula units, space group and orbits as the random source does, and put atoms at random points.

    Parameters
    ----------
    problem
        The problem of the search.
    """

    #: Number of attempts with one completion.
    _REPEATS = 3

    #: Number of completions whose crystals have more symmetry than their group before one of them is accepted.
    _REDRAWS = 12

    attempts = len(SEPARATIONS)

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._builder = CrystalBuilder(problem)
        self._groups: dict[int, tuple[int, ...]] = {}

    def complete(self, growth: Growth, rng: np.random.Generator) -> Growth | None:
        """Return a random completion."""
        units = growth.units or int(rng.choice(self._units))
        contents = self._problem.contents(units)
        number = growth.spacegroup
        if not number:
            allowed = [group for group in self._holding(units) if growth.order in (0, point_group_order(group))]
            number = next(random_groups(allowed, sum(contents.values()), rng))
        positions = {position.letter: position for position in self._builder.group(number).positions}
        left, taken = dict(contents), set()
        for symbol, letter in growth.sites:
            left[symbol] -= positions[letter].multiplicity
            if not positions[letter].freedom:
                taken.add(letter)
        drawn = self._builder.group(number).draw_sites(list(left.values()), rng, frozenset(taken))
        symbols = list(contents)
        ranks = element_order({atomic_numbers[symbol]: count for symbol, count in contents.items()})
        added = sorted(
            ((symbols[kind], position.letter) for kind, position in drawn),
            key=lambda site: (ranks.index(atomic_numbers[site[0]]), LETTERS.index(site[1])),
        )
        return Growth(units, point_group_order(number), number, (*growth.sites, *added))

    def build(
        self, growth: Growth, attempt: int, own: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> Atoms | None:
        """Return a crystal whose atoms keep apart, at distances that get looser with the attempts.

        Crystals with more symmetry than their group belong to another part of the tree and are accepted late.
        """
        positions = {position.letter: position for position in self._builder.group(growth.spacegroup).positions}
        sites = [(atomic_numbers[symbol], positions[letter]) for symbol, letter in growth.sites]
        separation = SEPARATIONS[attempt]
        distances = self._builder.draw_distances(own, rng)
        for _ in range(self._REPEATS):
            atoms = self._builder.build(growth.spacegroup, sites, (distances, separation), rng)
            if atoms is None or cell_violation(atoms, self._problem) is not None:
                continue
            found = spacegroup(atoms)
            if self._problem.spacegroups:
                if found in self._problem.spacegroups:
                    return atoms
            elif point_group_order(found) == growth.order or separation < 1 or attempt >= self._REDRAWS - 1:
                return atoms
        return None

    @cached_property
    def _units(self) -> list[int]:
        """Numbers of formula units that an allowed space group holds."""
        return [units for units in self._problem.units if self._holding(units)]

    def _holding(self, units: int) -> tuple[int, ...]:
        """Return the allowed space groups that hold the contents."""
        if units not in self._groups:
            allowed = self._problem.spacegroups or _EVERY_GROUP
            self._groups[units] = tuple(number for number in allowed if self._builder.holds(number, units))
        return self._groups[units]


@dataclass
class GeneratorPolicy(GrowthPolicy):
    """Complete crystals by a generator that builds them orbit after orbit.

    Parameters
    ----------
    problem
        The problem of the search, with a free cell.
    generator
        The generator.
    """

    problem: Problem
    generator: GrowingGenerator
    attempts: int = 8

    def complete(self, growth: Growth, rng: np.random.Generator) -> Growth | None:
        """Return a completion by the generator; the number of formula units is drawn evenly."""
        units = growth.units or int(rng.choice(self.problem.units))
        with one_thread():
            (found,) = self.generator.complete([self._partial(growth, units)], rng)
        if found is None or found.spacegroup is None:
            return None
        return Growth(units, point_group_order(found.spacegroup), found.spacegroup, found.sites)

    def build(
        self, growth: Growth, attempt: int, own: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> Atoms | None:
        """Return a crystal of the generator, symmetrised, if the problem allows it."""
        with one_thread():
            (atoms,) = self.generator.build([self._partial(growth, growth.units)], rng)
        if atoms is None:
            return None
        allowed = self.problem.spacegroups
        if allowed and spacegroup(atoms) not in allowed and growth.spacegroup in ENANTIOMORPHS.values():
            mirrored = atoms.copy()
            mirrored.set_scaled_positions(-atoms.get_scaled_positions() % 1.0)
            atoms = mirrored if any(in_group(mirrored, group) is not None for group in allowed) else atoms
        selected = select([Sample(atoms=atoms, request=0)], self.problem, self.generator.conditions, 1)
        return selected.chosen[0].atoms if selected.chosen else None

    def _partial(self, growth: Growth, units: int) -> PartialCrystal:
        allowed: tuple[int, ...] = ()
        if not growth.spacegroup and (self.problem.spacegroups or growth.order):
            groups = self.problem.spacegroups or _EVERY_GROUP
            wanted = {ENANTIOMORPHS.get(group, group) for group in groups}
            allowed = tuple(sorted(g for g in wanted if growth.order in (0, point_group_order(g))))
        conditions = self.generator.conditions
        return PartialCrystal(
            contents=self.problem.contents(units),
            spacegroup=growth.spacegroup or None,
            spacegroups=allowed,
            sites=growth.sites,
            energy_quantile=LOW_ENERGIES / 2 if Condition.ENERGY in conditions else None,
            pressure_gpa=self.problem.pressure_gpa if Condition.PRESSURE in conditions else None,
        )
