"""Evolution: children of the best diverse minima, by operators that are used the more, the more they earn."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from deap import base, tools

from hybridcsp.archive.archive import Archive
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost, Outcome, Proposal, Relaxed
from hybridcsp.operators import OPERATORS, WeightedOperator
from hybridcsp.operators.registry import operators_named
from hybridcsp.similarity import compute_descriptors
from hybridcsp.similarity.fingerprint import Floats
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.random import RandomSource

#: Minima that it takes to breed.
ENOUGH = 6

#: Share of newcomers, crystals without parents, that a search needs.
FRESH = 0.2

#: Size of the population, and how many minima are looked at to fill it.
POPULATION = 24
LOOKED_AT = 100

#: Minima whose fingerprints differ by less (root of the mean square) share a niche: fitness, and places in the
#: population. Displacements of 0.1 to 0.2 Å make such a difference; rutile and anatase are 0.08 apart, and 1 % of pairs
#: of random TiO₂ crystals are nearer than 0.07.
NICHE = 0.05
PLACES = 3

#: Children without success after which a parent has half its weight.
HALF_LIFE = 8

#: Least selection temperature in eV/atom.
COLDEST = 0.002

#: The worth of a basin falls by a factor e for each so many eV/atom that it lies above the best.
NEAR = 0.05

#: Least share of every operator, and how many relaxations a prior share is worth.
FLOOR = 0.02
PRIOR = 5.0

#: Operators and parents tried for one proposal.
TRIES = 8


class EvolutionSource(BaseSource):
    """Steady-state evolution on the minima of all sources.

    The population is made anew from the archive at every call: minima from the lowest enthalpy on, of each niche of
    like fingerprints at most three, so that the best of every niche stays, and no basin and no family of distorted
    relatives or supercells can fill it. A parent's fitness is a Boltzmann factor at a temperature that gives the median
    of the population 1/e of the weight of the best. It is shared with its niche (Goldberg, Richardson 1987) and halves
    with every eight children that did not open a basin at or below the parent. DEAP's stochastic universal sampling
    draws the parents.

    Operators are drawn by probability matching with a floor: in proportion to their yield per force call, where a basin
    that an operator's child reached first counts 1/e less for each 50 meV/atom above the best one, and rediscovery
    nothing. A prior worth five relaxations keeps early luck in bounds.

    Newcomers are the business of other sources: it is not ready before there are six minima. Where no other source has
    any, as when it searches alone, it proposes random symmetric crystals (operator "random") until then, and afterwards
    one in five, unless a fifth of all candidates are newcomers from others. All of it is a function of the archive.

    Parameters
    ----------
    problem
        What is searched.
    argument
        Names of the operators to use, joined by commas; see :func:`~hybridcsp.operators.registry.operators_named`.
    operators
        The same with prior shares, where no names are given; by default :data:`~hybridcsp.operators.OPERATORS`.

    Raises
    ------
    UnknownNameError, InputError, RegistrationError
        If the argument does not name operators.

    References
    ----------
    Oganov, Glass, J. Chem. Phys. 124, 244704 (2006), doi:10.1063/1.2210932; steady state: Lonie, Zurek, Comput. Phys.
    Commun. 182, 372 (2011), doi:10.1016/j.cpc.2010.07.048; DEAP: Fortin et al., J. Mach. Learn. Res. 13, 2171 (2012).
    """

    name = "evolution"
    waiting_for = f"it starts after {ENOUGH} minima"

    def __init__(
        self, problem: Problem, argument: str | None = None, *, operators: Sequence[WeightedOperator] = OPERATORS
    ) -> None:
        if argument is not None:
            operators = operators_named(argument)
        self._problem = problem
        self._random = RandomSource(problem)
        self._offers = {offer.operator.name: offer for offer in operators if offer.operator.applies_to(problem)}
        self._fingerprints: dict[int, tuple[int, Floats]] = {}  # a cache: by minimum, of its best relaxation
        self._minima = 0

    def status(self) -> SourceStatus:
        """Return WAITING before there are enough minima to breed."""
        return SourceStatus.READY if self._minima >= ENOUGH else SourceStatus.WAITING

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Breed ``n`` children; some of them are fresh random crystals where others bring too few newcomers.

        ``parents`` of each are the candidates that reached the parent minima first. The tag of a child of a soft
        mutation holds its ``mode``.
        """
        population = self.population(context.archive)
        shares = self.shares(context.archive)
        fresh = 0.0 if self._newcomers(context.archive) >= FRESH else FRESH
        proposals: list[Proposal] = []
        for _ in range(n):
            child = None
            if len(population) >= ENOUGH and shares and context.rng.random() >= fresh:
                child = self._breed(population, shares, context)
            proposals += [child] if child is not None else self._random.propose(1, context)
        return proposals

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Count minima; what else outcomes add up to is in the archive."""
        self._minima += sum(isinstance(outcome, Relaxed) and outcome.is_new_minimum for outcome in outcomes)

    def population(self, archive: Archive) -> list[Individual]:
        """Return the best diverse minima with their fitness."""
        chosen: list[Minimum] = []
        prints: list[Floats] = []
        neighbours: list[float] = []
        for minimum in archive.minima(LOOKED_AT):
            own = self._fingerprint(minimum)
            crowd = [_nearness(own, other) for other in prints]
            if sum(near > 0 for near in crowd) < PLACES:
                neighbours = [near + more for near, more in zip(neighbours, crowd, strict=True)]
                neighbours.append(1 + sum(crowd))
                chosen.append(minimum)
                prints.append(own)
            if len(chosen) == POPULATION:
                break
        levels = [self._problem.fitness(minimum) for minimum in chosen]
        weights = boltzmann(levels)
        ages = _ages(archive, chosen)
        return [
            Individual(minimum, weight / crowding * 2 ** (-age / HALF_LIFE))
            for minimum, weight, crowding, age in zip(chosen, weights, neighbours, ages, strict=True)
        ]

    def shares(self, archive: Archive) -> dict[str, float]:
        """Return the chances of each operator; they add up to 1."""
        lowest = archive.state.lowest()
        gains: dict[str, float] = defaultdict(float)
        for basin in archive.state.ranked():
            origin = archive.state.candidates[basin.found_by]
            if origin.source == self.name and lowest is not None:
                gains[origin.operator] += math.exp((lowest - basin.enthalpy_per_atom) / NEAR)
        calls = {name: self._force_calls(archive, name) for name in self._offers}
        relaxed = max(archive.state.relaxations, 1)
        prior_calls = PRIOR * max(archive.state.cost.force_calls / relaxed, 1.0)
        average = (sum(gains[name] for name in calls) + PRIOR) / (sum(calls.values()) + 2 * prior_calls)
        yields = {
            name: offer.prior * (average * prior_calls + gains[name]) / (prior_calls + calls[name])
            for name, offer in self._offers.items()
        }
        total = sum(yields.values())
        rest = 1 - FLOOR * len(yields)
        return {name: FLOOR + rest * value / total for name, value in yields.items()}

    def _newcomers(self, archive: Archive) -> float:
        """Share of all candidates that have no parents and come from other sources."""
        known = archive.state.candidates.values()
        newcomers = [event for event in known if event.source != self.name and not event.parents]
        return len(newcomers) / max(len(known), 1)

    def _force_calls(self, archive: Archive, operator: str) -> int:
        return archive.state.tally(self.name, operator).cost.force_calls

    def _breed(
        self, population: Sequence[Individual], shares: Mapping[str, float], context: Context
    ) -> Proposal | None:
        """Make one child, or ``None`` where no operator that was tried can."""
        rng = context.rng
        start = time.perf_counter()
        names, chances = list(shares), list(shares.values())
        for _ in range(TRIES):
            operator = self._offers[names[rng.choice(len(names), p=chances)]].operator
            if operator.n_parents > len(population):
                continue
            parents = select(population, operator.n_parents, rng)
            ids = tuple(parent.minimum.found_by.id for parent in parents)
            tag: dict[str, Any] = {}
            if operator.follows_modes:
                tag["mode"] = _children(context.archive, operator.name)[ids]
                operator = operator.following(tag["mode"])
            atoms = operator([parent.minimum.best.atoms.copy() for parent in parents], self._problem, rng)
            if atoms is not None:
                cost = Cost(seconds=time.perf_counter() - start)
                return Proposal(
                    atoms=atoms, operator=operator.name, parents=ids, tag=tag, cost=cost, level=operator.level
                )
        return None

    def _fingerprint(self, minimum: Minimum) -> Floats:
        known = self._fingerprints.get(minimum.id)
        if known is None or known[0] != minimum.best.sequence:
            known = minimum.best.sequence, compute_descriptors(minimum.best.atoms).fingerprint
            self._fingerprints[minimum.id] = known
        return known[1]


class _Fitness(base.Fitness):  # type: ignore[misc]  # DEAP has no types
    weights = (1.0,)


@dataclass(frozen=True, eq=False)
class Individual:
    """A minimum as a parent; ``weight`` is its chance to be one, up to a factor."""

    minimum: Minimum
    weight: float

    @property
    def fitness(self) -> Any:
        """What DEAP selects by."""
        return _Fitness((self.weight,))


def select(population: Sequence[Individual], n: int, rng: np.random.Generator) -> list[Individual]:
    """Draw ``n`` different parents."""
    toolbox = base.Toolbox()
    toolbox.register("select", tools.selStochasticUniversalSampling, k=1)
    left = list(population)
    parents: list[Individual] = []
    with seeded_random(rng):
        for _ in range(n):
            parents += toolbox.select(left)
            left.remove(parents[-1])
    return parents


@contextmanager
def seeded_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's global random numbers, which DEAP draws from, and put them back as they were."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)


def boltzmann(levels: Sequence[float]) -> list[float]:
    """Weights of energies per atom (eV): 1 for the lowest, 1/e for the median."""
    if not levels:
        return []
    lowest = min(levels)
    temperature = max(float(np.median(levels)) - lowest, COLDEST)
    return [math.exp((lowest - level) / temperature) for level in levels]


def _nearness(first: Floats, second: Floats) -> float:
    """1 for equal fingerprints, falling to 0 at the edge of a niche; volumes do not matter."""
    distance = float(np.sqrt(np.mean((first[:-1] - second[:-1]) ** 2)))
    return max(0.0, 1 - distance / NICHE)


def _ages(archive: Archive, minima: Sequence[Minimum]) -> list[int]:
    """How many children of each were made since the last that opened a basin at or below it."""
    opened = {basin.found_by: basin.enthalpy_per_atom for basin in archive.state.comparable()}
    levels = {minimum.found_by.id: minimum.enthalpy_per_atom for minimum in minima}
    ages: Counter[int] = Counter()
    for id_, event in archive.state.candidates.items():
        for parent in event.parents:
            if opened.get(id_, math.inf) <= levels.get(parent, -math.inf):
                ages[parent] = 0
            else:
                ages[parent] += 1
    return [ages[minimum.found_by.id] for minimum in minima]


def _children(archive: Archive, operator: str) -> Counter[tuple[int, ...]]:
    """How many children an operator has made of the same parents."""
    return Counter(event.parents for event in archive.state.candidates.values() if event.operator == operator)
