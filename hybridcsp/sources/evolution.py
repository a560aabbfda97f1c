"""Provide the evolutionary source, which breeds the best diverse minima of all sources."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from deap import base, tools

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost, Outcome, Proposal, Relaxed
from hybridcsp.operators import OPERATORS, Operator, WeightedOperator
from hybridcsp.operators.registry import operators_named, weighted_operators
from hybridcsp.similarity import compute_descriptors
from hybridcsp.similarity.fingerprint import Floats
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.random import RandomSource

#: Number of minima that are needed before the first child.
ENOUGH = 6

#: Fraction of candidates without parents that a search needs.
FRESH = 0.2

#: Size of the population, and number of best minima from which it is chosen.
POPULATION = 24
LOOKED_AT = 100

#: Radius of a niche (root mean square difference of fingerprints), within which minima share their fitness, and largest
#: number of members of the population in one niche. Displacements of 0.1 to 0.2 Å make such a difference; rutile and
#: anatase differ by 0.08, and 1 % of pairs of random TiO₂ crystals by less than 0.07.
NICHE = 0.05
PLACES = 3

#: Number of children without success that halves the weight of a parent.
HALF_LIFE = 8

#: Lowest selection temperature in eV/atom.
COLDEST = 0.002

#: Energy above the best minimum in eV/atom at which the value of a new minimum is 1/e.
NEAR = 0.05

#: Smallest share of each operator, and weight of the prior shares in relaxations.
FLOOR = 0.02
PRIOR = 5.0

#: Largest number of operators and parents that are tried for one proposal.
TRIES = 8


class EvolutionSource(BaseSource):
    """Steady-state evolution on the minima of all sources.

    The population is derived from the archive at every call: the lowest minima, at most three of each niche of similar
    fingerprints, so that the best of every niche stays and no basin, family of distorted relatives or supercell can
    fill it. The fitness of a parent is a Boltzmann factor at the temperature that gives the median of the
    population 1/e of the weight of the best. It is shared within a niche (Goldberg, Richardson 1987), and halved by
    every eight children that found no new minimum at or below their parent. Parents are drawn by the roulette of DEAP.

    Minima are compared by their heights above the best: by the last follow-up calculator that has relaxed a minimum, or
    else by the calculator of the search. A parent is the structure in which the last follow-up relaxation ended.

    Operators are drawn by probability matching with a floor: in proportion to their yield per force call. The yield of
    a new minimum decreases by a factor of e per 50 meV/atom above the best one; rediscovered minima yield nothing. A
    prior with the weight of five relaxations limits the effect of early luck.

    Candidates without parents come from other sources: this one waits until there are six minima. If no other source
    has proposals, for instance in a search with evolution alone, it proposes random symmetric crystals (operator
    "random") until then, and one in five afterwards unless a fifth of all candidates are candidates without parents
    from other sources. All decisions are functions of the archive.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        Names of the operators to use, joined by commas; see :func:`~hybridcsp.operators.registry.operators_named`.
    operators
        The operators, if no names are given; by default :data:`~hybridcsp.operators.OPERATORS`. An operator that is not
        a :class:`~hybridcsp.operators.WeightedOperator` gets the prior 1.

    Attributes
    ----------
    toolbox
        Toolbox of DEAP; its ``select(individuals)`` draws one parent. Register another selection of ``deap.tools`` in
        its place to change how parents are chosen.

    Raises
    ------
    UnknownNameError, InputError, RegistrationError
        If the argument does not name operators, or ``operators`` holds anything else.

    References
    ----------
    Oganov, Glass, J. Chem. Phys. 124, 244704 (2006), doi:10.1063/1.2210932; steady state: Lonie, Zurek, Comput. Phys.
    Commun. 182, 372 (2011), doi:10.1016/j.cpc.2010.07.048; DEAP: Fortin et al., J. Mach. Learn. Res. 13, 2171 (2012).
    """

    name = "evolution"
    waiting_for = f"it starts after {ENOUGH} minima"

    def __init__(
        self,
        problem: Problem,
        argument: str | None = None,
        *,
        operators: Iterable[Operator | WeightedOperator] = OPERATORS,
    ) -> None:
        weighted = weighted_operators(operators) if argument is None else operators_named(argument)
        self._problem = problem
        self._random = RandomSource(problem)
        self.toolbox = base.Toolbox()
        self.toolbox.register("select", tools.selRoulette, k=1)
        self._operators = {one.operator.name: one for one in weighted if one.operator.applies_to(problem)}
        self._fingerprints: dict[int, tuple[int, Floats]] = {}  # by minimum: sequence and fingerprint of its end
        self._minima = 0

    def status(self) -> SourceStatus:
        """Return WAITING before there are enough minima to breed."""
        return SourceStatus.READY if self._minima >= ENOUGH else SourceStatus.WAITING

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return ``n`` children, or random crystals in place of some if other sources propose too few of them.

        ``parents`` of a child are the candidates that reached the parent minima first. The tag of a child of a soft
        mutation contains its ``mode``.
        """
        population = self.population(context.archive)
        shares = self.shares(context.archive)
        fresh = 0.0 if self._fraction_of_others(context.archive) >= FRESH else FRESH
        proposals: list[Proposal] = []
        for _ in range(n):
            child = None
            if len(population) >= ENOUGH and shares and context.rng.random() >= fresh:
                child = self._breed(population, shares, context)
            proposals += [child] if child is not None else self._random.propose(1, context)
        return proposals

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Count minima; everything else is read from the archive."""
        self._minima += sum(isinstance(outcome, Relaxed) and outcome.is_new_minimum for outcome in outcomes)

    def population(self, archive: Archive) -> list[Individual]:
        """Return the best diverse minima with their fitness."""
        chosen: list[PreferredMinimum] = []
        fingerprints: list[Floats] = []
        crowding: list[float] = []  # sum of the similarities to all members, 1 for itself
        for preferred in archive.preferred_minima(LOOKED_AT):
            own = self._fingerprint(preferred)
            similarities = [_similarity(own, other) for other in fingerprints]
            if sum(similarity > 0 for similarity in similarities) < PLACES:
                crowding = [before + more for before, more in zip(crowding, similarities, strict=True)]
                crowding.append(1 + sum(similarities))
                chosen.append(preferred)
                fingerprints.append(own)
            if len(chosen) == POPULATION:
                break
        weights = boltzmann_weights([preferred.height for preferred in chosen])
        failures = _children_without_success(archive, chosen)
        return [
            Individual(one.minimum, one.end, Fitness((weight / crowded * 2 ** (-failed / HALF_LIFE),)))
            for one, weight, crowded, failed in zip(chosen, weights, crowding, failures, strict=True)
        ]

    def shares(self, archive: Archive) -> dict[str, float]:
        """Return the probability of each operator; the sum is 1."""
        gains: dict[str, float] = defaultdict(float)
        for basin, height in archive.state.preferred():
            origin = archive.state.candidates[basin.found_by]
            if origin.source == self.name:
                gains[origin.operator] += math.exp(-height / NEAR)
        calls = {name: self._force_calls(archive, name) for name in self._operators}
        relaxed = max(archive.state.relaxations, 1)
        prior_calls = PRIOR * max(archive.state.cost.force_calls / relaxed, 1.0)
        average = (sum(gains[name] for name in calls) + PRIOR) / (sum(calls.values()) + 2 * prior_calls)
        yields = {
            name: weighted.prior * (average * prior_calls + gains[name]) / (prior_calls + calls[name])
            for name, weighted in self._operators.items()
        }
        total = sum(yields.values())
        rest = 1 - FLOOR * len(yields)
        return {name: FLOOR + rest * value / total for name, value in yields.items()}

    def _fraction_of_others(self, archive: Archive) -> float:
        """Return the fraction of all candidates that have no parents and come from other sources."""
        known = archive.state.candidates.values()
        others = [event for event in known if event.source != self.name and not event.parents]
        return len(others) / max(len(known), 1)

    def _force_calls(self, archive: Archive, operator: str) -> int:
        return archive.state.tally(self.name, operator).cost.force_calls

    def _breed(
        self, population: Sequence[Individual], shares: Mapping[str, float], context: Context
    ) -> Proposal | None:
        """Return one child, or ``None`` if none of the operators that were tried makes one."""
        rng = context.rng
        start = time.perf_counter()
        names, chances = list(shares), list(shares.values())
        for _ in range(TRIES):
            operator = self._operators[names[rng.choice(len(names), p=chances)]].operator
            if operator.n_parents > len(population):
                continue
            parents = select_parents(population, operator.n_parents, rng, self.toolbox)
            ids = tuple(parent.minimum.found_by.id for parent in parents)
            tag: dict[str, Any] = {}
            if operator.follows_modes:
                tag["mode"] = _children_by_parents(context.archive, operator.name)[ids]
                operator = operator.following(tag["mode"])
            atoms = operator([parent.end.atoms.copy() for parent in parents], self._problem, rng)
            if atoms is not None:
                cost = Cost(seconds=time.perf_counter() - start)
                return Proposal(
                    atoms=atoms, operator=operator.name, parents=ids, tag=tag, cost=cost, level=operator.level
                )
        return None

    def _fingerprint(self, preferred: PreferredMinimum) -> Floats:
        id_, end = preferred.minimum.id, preferred.end
        known = self._fingerprints.get(id_)
        if known is None or known[0] != end.sequence:
            known = self._fingerprints[id_] = end.sequence, compute_descriptors(end.atoms).fingerprint
        return known[1]


class Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    """Selection weight of a parent, which is maximised."""

    weights = (1.0,)


@dataclass(frozen=True, eq=False)
class Individual:
    """Represent a minimum as a possible parent.

    Attributes
    ----------
    minimum
        The minimum.
    end
        Relaxation whose structure children are made of: its last follow-up relaxation, or else its best one.
    fitness
        Selection weight, which DEAP reads.
    """

    minimum: Minimum
    end: Relaxed
    fitness: Fitness


def select_parents(
    population: Sequence[Individual], n: int, rng: np.random.Generator, toolbox: base.Toolbox
) -> list[Individual]:
    """Return ``n`` different individuals, each drawn by the selection of the toolbox from those that are left."""
    left = list(population)
    parents: list[Individual] = []
    with seeded_random(rng):
        for _ in range(n):
            (parent,) = toolbox.select(left)
            left.remove(parent)
            parents.append(parent)
    return parents


@contextmanager
def seeded_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global random numbers of Python, the only ones that DEAP can use, and restore their state afterwards."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)


def boltzmann_weights(levels: Sequence[float]) -> list[float]:
    """Return the weights of energies per atom in eV: 1 for the lowest and 1/e for the median."""
    if not levels:
        return []
    lowest = min(levels)
    temperature = max(float(np.median(levels)) - lowest, COLDEST)
    return [math.exp((lowest - level) / temperature) for level in levels]


def _similarity(first: Floats, second: Floats) -> float:
    """Return 1 for equal fingerprints, decreasing to 0 at the radius of a niche; the volumes are ignored."""
    distance = float(np.sqrt(np.mean((first[:-1] - second[:-1]) ** 2)))
    return max(0.0, 1 - distance / NICHE)


def _children_without_success(archive: Archive, minima: Sequence[PreferredMinimum]) -> list[int]:
    """Return for each minimum the number of children since the last that found a new minimum at or below it."""
    found = {basin.found_by: height for basin, height in archive.state.preferred()}
    levels = {one.minimum.found_by.id: one.height for one in minima}
    failures: Counter[int] = Counter()
    for id_, event in archive.state.candidates.items():
        for parent in event.parents:
            if found.get(id_, math.inf) <= levels.get(parent, -math.inf):
                failures[parent] = 0
            else:
                failures[parent] += 1
    return [failures[one.minimum.found_by.id] for one in minima]


def _children_by_parents(archive: Archive, operator: str) -> Counter[tuple[int, ...]]:
    """Return the number of children that an operator has made of each tuple of parents."""
    return Counter(event.parents for event in archive.state.candidates.values() if event.operator == operator)
