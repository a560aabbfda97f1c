"""Provide the source that makes structures of one composition of a chemical system from minima of the others."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost, Proposal
from hybridcsp.errors import UnknownNameError
from hybridcsp.operators import Operator, WeightedOperator
from hybridcsp.operators.composition_heredity import CompositionCrossover, CompositionHeredity, lever_share
from hybridcsp.operators.registry import weighted_operators
from hybridcsp.operators.variable_composition import (
    AdditionRemoval,
    CompositionOperator,
    Substitution,
    Transmutation,
    reduced_composition,
)
from hybridcsp.sources.base import BaseSource, Context
from hybridcsp.sources.operator_shares import operator_shares
from hybridcsp.sources.population import children_without_success
from hybridcsp.sources.survivors import boltzmann_weights

#: The operators with their priors.
COMPOSITION_OPERATORS: tuple[WeightedOperator, ...] = (
    WeightedOperator(Transmutation(), prior=1.5),
    WeightedOperator(AdditionRemoval()),
    WeightedOperator(CompositionHeredity()),
    WeightedOperator(CompositionCrossover()),
    WeightedOperator(Substitution()),
)

#: Number of lowest minima above the hull that are looked at, largest number of parents, and of parents of different
#: niches of each composition.
LOOKED_AT, POPULATION, PLACES = 200, 40, 4

#: Fraction of atoms that differ between two compositions over which the weight of a parent decreases by a factor of e.
CLOSENESS = 0.2

#: Number of children without success that halves the weight of a parent.
HALF_LIFE = 8

#: Largest number of operators and parents that are tried for one proposal.
TRIES = 8

_Composition = Mapping[str, int]


class VariableCompositionSource(BaseSource):
    """Children of a composition of a chemical system, made of low minima of its other compositions.

    The parents are the minima lowest above the convex hull, up to four of different niches of each composition. The
    weight of one has three factors: a Boltzmann factor of its height above the hull, as in evolution; a factor of e for
    each fifth of the atoms by which its composition differs from that of the problem; and 1/2 for every eight children
    without success. A pair of parents is weighted by the mixture of both that is closest to the composition instead, so
    that the phases into which it decomposes are combined above all. Operators are drawn by their yields per force call
    in the whole system (:func:`~hybridcsp.sources.operator_shares.operator_shares`).

    Everything is read from the archive. While there are no minima of other compositions, nothing is proposed.

    Parameters
    ----------
    problem
        The problem of one composition of a chemical system.
    argument
        Names of the operators to use, joined by commas.
    operators
        The operators, if no names are given; by default :data:`COMPOSITION_OPERATORS`.

    Raises
    ------
    UnknownNameError, InputError
        If the argument does not name operators of this source, or ``operators`` holds anything else.

    References
    ----------
    Oganov, Ma, Lyakhov, Valle, Gatti (USPEX), Rev. Mineral. Geochem. 71, 271 (2010), doi:10.2138/rmg.2010.71.13; Zhu,
    Li, Oganov, Allen, Phys. Rev. B 87, 195317 (2013), doi:10.1103/PhysRevB.87.195317; Tipton, Hennig (GASP), J. Phys.:
    Condens. Matter 25, 495401 (2013), doi:10.1088/0953-8984/25/49/495401; Wang et al. (MAGUS), Natl. Sci. Rev. 10,
    nwad128 (2023), doi:10.1093/nsr/nwad128.
    """

    name = "variable-composition"
    needs_others = True
    needs_system = True
    waiting_for = "it starts after minima of other compositions"

    def __init__(
        self,
        problem: Problem,
        argument: str | None = None,
        *,
        operators: Iterable[Operator | WeightedOperator] = COMPOSITION_OPERATORS,
    ) -> None:
        weighted = weighted_operators(operators) if argument is None else _named(argument)
        self._problem = problem
        self._operators = {one.operator.name: one for one in weighted if one.operator.applies_to(problem)}

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return at most ``n`` children; ``parents`` of each are the candidates that reached the parent minima first.

        There are fewer if no parent is suitable, or no operator that was tried makes a child.
        """
        whole: Archive | None = getattr(context.archive, "whole", None)  # only an archive of a composition has it
        parents = [] if whole is None else population(whole)
        if whole is None or not parents or not self._operators:
            return []
        return self._children(n, parents, operator_shares(whole, self.name, self._operators), context)

    def _children(
        self, n: int, parents: Sequence[PreferredMinimum], shares: Mapping[str, float], context: Context
    ) -> list[Proposal]:
        pool = _Pool(parents, self._problem, context.archive, self.name)
        chances = {
            name: chosen
            for name in shares
            if (chosen := pool.chances(_composition_operator(self._operators[name]))) is not None
        }
        proposals: list[Proposal] = []
        while chances and len(proposals) < n:
            child = self._breed(pool, shares, chances, context.rng)
            if child is None:
                break
            proposals.append(child)
        return proposals

    def _breed(
        self,
        pool: _Pool,
        shares: Mapping[str, float],
        chances: Mapping[str, tuple[list[tuple[int, ...]], NDArray[np.float64]]],
        rng: np.random.Generator,
    ) -> Proposal | None:
        """Return one child, or ``None`` if none of the operators that were tried makes one."""
        start = time.perf_counter()
        names = list(chances)
        weights = np.array([shares[name] for name in names])
        for _ in range(TRIES):
            name = names[rng.choice(len(names), p=weights / weights.sum())]
            groups, probabilities = chances[name]
            chosen = [pool.parents[index] for index in groups[rng.choice(len(groups), p=probabilities)]]
            atoms = self._operators[name].operator([one.end.atoms.copy() for one in chosen], self._problem, rng)
            if atoms is not None:
                ids = tuple(one.minimum.found_by.id for one in chosen)
                cost = Cost(seconds=time.perf_counter() - start)
                return Proposal(atoms=atoms, operator=name, parents=ids, cost=cost)
        return None


def population(whole: Archive) -> list[PreferredMinimum]:
    """Return the minima of a chemical system that may become parents, the lowest above the hull first."""
    chosen: list[PreferredMinimum] = []
    places: Counter[tuple[tuple[str, int], ...]] = Counter()
    niches: set[int] = set()
    for preferred in whole.preferred_minima(LOOKED_AT):
        key = tuple(sorted(_composition_of(preferred).items()))
        if places[key] < PLACES and preferred.niche not in niches and math.isfinite(preferred.height):
            places[key] += 1
            niches.add(preferred.niche)
            chosen.append(preferred)
        if len(chosen) == POPULATION:
            break
    return chosen


class _Pool:
    """The possible parents of one composition, and the probabilities with which operators take them."""

    def __init__(self, parents: Sequence[PreferredMinimum], problem: Problem, archive: Archive, source: str) -> None:
        self.parents = parents
        self._problem = problem
        self._compositions = [_composition_of(parent) for parent in parents]
        failures = children_without_success(archive, source, parents)
        weights = boltzmann_weights([parent.height for parent in parents])
        self._weights = [weight * 2 ** (-failed / HALF_LIFE) for weight, failed in zip(weights, failures, strict=True)]
        self._children = Counter((event.operator, event.parents) for event in archive.state.candidates_of(source))

    def chances(self, operator: CompositionOperator) -> tuple[list[tuple[int, ...]], NDArray[np.float64]] | None:
        """Return the groups of parents that an operator can have and their probabilities; ``None`` without any."""
        suitable = [index for index in range(len(self.parents)) if self._is_suitable(index, operator)]
        groups: list[tuple[int, ...]] = [(index,) for index in suitable]
        if operator.n_parents == 2:
            groups = [
                (first, second)
                for first in suitable
                for second in suitable
                if first < second and self._compositions[first] != self._compositions[second]
            ]
        if not groups:
            return None
        weights = np.array([self._weight(group) for group in groups])
        if not weights.sum() > 0:
            return None
        return groups, weights / weights.sum()

    def _is_suitable(self, index: int, operator: CompositionOperator) -> bool:
        composition = self._compositions[index]
        if not operator.accepts(composition, self._problem):
            return False
        most = operator.most_children(composition, self._problem)
        ids = (self.parents[index].minimum.found_by.id,)
        return most is None or self._children[operator.name, ids] < most

    def _weight(self, group: tuple[int, ...]) -> float:
        distance = _distance([self._compositions[index] for index in group], self._problem.composition)
        return math.prod(self._weights[index] for index in group) * math.exp(-distance / CLOSENESS)


def _distance(compositions: Sequence[_Composition], wanted: _Composition) -> float:
    """Return the fraction of atoms by which the closest mixture of one or two compositions differs from another."""
    share = lever_share(compositions[0], compositions[-1], wanted) if len(compositions) > 1 else 1.0
    symbols = sorted({*wanted, *(symbol for composition in compositions for symbol in composition)})
    fractions = [
        np.array([counts.get(symbol, 0) for symbol in symbols]) / sum(counts.values())
        for counts in (compositions[0], compositions[-1], wanted)
    ]
    mixture = share * fractions[0] + (1 - share) * fractions[1]
    return float(np.abs(mixture - fractions[2]).sum() / 2)


def _composition_of(parent: PreferredMinimum) -> dict[str, int]:
    return reduced_composition(Counter(parent.end.atoms.get_chemical_symbols()))


def _composition_operator(weighted: WeightedOperator) -> CompositionOperator:
    assert isinstance(weighted.operator, CompositionOperator)
    return weighted.operator


def _named(names: str) -> tuple[WeightedOperator, ...]:
    known = {one.operator.name: one for one in COMPOSITION_OPERATORS}
    for name in names.split(","):
        if name not in known:
            raise UnknownNameError("operator", name, known)
    return weighted_operators([known[name] for name in names.split(",")])
