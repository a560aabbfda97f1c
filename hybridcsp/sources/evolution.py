"""Provide the evolutionary source, which breeds the best diverse minima of all sources."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Cost, Proposal
from hybridcsp.operators import OPERATORS, Operator, WeightedOperator
from hybridcsp.operators.registry import operators_named, weighted_operators
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.operator_shares import children_by_parents, operator_shares
from hybridcsp.sources.population import Population
from hybridcsp.sources.random import RandomSource
from hybridcsp.sources.selection import Individual, roulette, select_parents

#: Number of minima that are needed before the first child.
ENOUGH = 6

#: Fraction of candidates without parents that a search needs.
FRESH = 0.2

#: Largest number of operators and parents that are tried for one proposal.
TRIES = 8


class EvolutionSource(BaseSource):
    """Steady-state evolution on the minima of all sources.

    The population is derived from the archive at every call (:class:`~hybridcsp.sources.population.Population`): the
    lowest minima of different niches, with weights that follow their heights, their visits and the success of their
    children. Parents are drawn by the roulette of DEAP, operators by their yields per force call
    (:func:`~hybridcsp.sources.operator_shares.operator_shares`).

    Minima are compared by their heights above the best: by the last follow-up calculator that has relaxed a minimum, or
    else by the calculator of the search. A parent is the structure in which the last follow-up relaxation ended.

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
        self.toolbox = roulette()
        self._operators = {one.operator.name: one for one in weighted if one.operator.applies_to(problem)}
        self._population = Population(self.name)
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
        """Return the minima that may become parents, with their weights."""
        return self._population.members(archive)

    def shares(self, archive: Archive) -> dict[str, float]:
        """Return the probability of each operator; the sum is 1."""
        return operator_shares(archive, self.name, self._operators)

    def _fraction_of_others(self, archive: Archive) -> float:
        """Return the fraction of all candidates that have no parents and come from other sources."""
        known = archive.state.candidates.values()
        others = [event for event in known if event.source != self.name and not event.parents]
        return len(others) / max(len(known), 1)

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
                tag["mode"] = children_by_parents(context.archive, operator.name)[ids]
                operator = operator.following(tag["mode"])
            atoms = operator([parent.end.atoms.copy() for parent in parents], self._problem, rng)
            if atoms is not None:
                cost = Cost(seconds=time.perf_counter() - start)
                return Proposal(
                    atoms=atoms, operator=operator.name, parents=ids, tag=tag, cost=cost, level=operator.level
                )
        return None
