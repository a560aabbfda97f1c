"""Replay recorded searches with other allocations: how many force calls until the problem is solved?

    python benchmarks/allocation_replay.py                          # all development systems
    python benchmarks/allocation_replay.py --families chgnet

The relaxations that each default source made in the searches of :mod:`allocation_runs` are a pool of outcomes. An
allocation draws from these pools: of sources that sample independently (random, wyckoff, flow) in random order, of the
others in the order recorded, the searches of a system one after the other, and up to twice more from the beginning when
all are used up. Each system is replayed many times; the allocation sees costs, enthalpies, minima and parents as in a
search. The priors are fitted without the system that is replayed. Systems are the unit of the intervals (bootstrap,
95 %).

What a replay cannot show: a source that depends on others is replayed with the population of equal shares.

Allocations: ``equal``; ``credit``, the former default (Thompson sampling of credit for new minima); ``success``, the
default; ``priors``, the default without credit and rising floors; ``no credit`` and ``no rising floors``, the default
without one of them; ``best source``, an oracle that knows the source with the lowest mean cost on each system and uses
it alone.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from allocation_priors import SOLVED, Attempt, attempts_in, fit, lowest_by_system, single_attempts
from allocation_runs import RecordedSearch, recorded_searches
from ase.build import bulk

from hybridcsp import Problem
from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Outcome, Relaxed
from hybridcsp.core.records import Candidate, Cost, Proposal
from hybridcsp.search import success_allocation
from hybridcsp.search.allocation import Allocation, EqualAllocation
from hybridcsp.search.success_allocation import WEIGHT_OF_CREDIT, SuccessAllocation
from hybridcsp.search.success_priors import Difficulty, SuccessPriors
from hybridcsp.sources.registry import DEFAULT_SOURCES

INDEPENDENT = ("random", "wyckoff", "flow")

#: Enthalpies of one system that differ by less than this (eV/atom) are one minimum.
SAME_MINIMUM = 3e-4

#: Largest number of times that the pool of a source is used; prototypes are not proposed twice.
PASSES = 3

PROBLEM = Problem("Cu")
ATOMS = bulk("Cu")


@dataclass(frozen=True)
class Result:
    """What one relaxation of a pool cost and brought; minima by number, 0 if it reached none."""

    force_calls: int
    enthalpy: float | None
    minimum: int
    parents: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pools:
    """The recorded results of each source on one system, by search, and the enthalpy at which it is solved."""

    name: str
    difficulty: Difficulty
    goal: float
    by_source: Mapping[str, Sequence[Sequence[Result]]]


def pools_of(searches: Sequence[RecordedSearch]) -> list[Pools]:
    """Return the pools of every system."""
    lowest = lowest_by_system(searches)
    by_system: dict[str, list[RecordedSearch]] = {}
    for search in searches:
        by_system.setdefault(search.system, []).append(search)
    found = []
    for name, own in by_system.items():
        enthalpies = sorted({step.enthalpy for search in own for step in search.steps if step.enthalpy is not None})
        is_another = np.diff(enthalpies, prepend=enthalpies[0]) > SAME_MINIMUM
        numbers = dict(zip(enthalpies, 1 + np.cumsum(is_another), strict=True))
        by_source: defaultdict[str, list[list[Result]]] = defaultdict(list)
        for search in own:
            minima = [0 if step.enthalpy is None else int(numbers[step.enthalpy]) for step in search.steps]
            results: defaultdict[str, list[Result]] = defaultdict(list)
            for step, minimum in zip(search.steps, minima, strict=True):
                parents = tuple(minima[number] for number in step.parents)
                results[step.source].append(Result(step.force_calls, step.enthalpy, minimum, parents))
            for source in DEFAULT_SOURCES:
                if results[source]:
                    by_source[source].append(results[source])
        goal = lowest[name] + SOLVED
        found.append(Pools(name=name, difficulty=own[0].difficulty, goal=goal, by_source=dict(by_source)))
    return found


class Draws:
    """The results of the sources of one system in the order in which a replay gets them."""

    def __init__(self, pools: Pools, rng: np.random.Generator) -> None:
        self._pools, self._rng = pools, rng
        self._passes: Counter[str] = Counter()
        self._left: dict[str, list[Result]] = {source: [] for source in pools.by_source}
        for source in self._left:
            self._refill(source)

    def _refill(self, source: str) -> None:
        if self._passes[source] >= (1 if source == "prototypes" else PASSES):
            return
        self._passes[source] += 1
        searches = self._pools.by_source[source]
        results = [result for i in self._rng.permutation(len(searches)) for result in searches[i]]
        if source in INDEPENDENT:
            results = [results[i] for i in self._rng.permutation(len(results))]
        self._left[source] = results[::-1]

    @property
    def available(self) -> list[str]:
        return [source for source, results in self._left.items() if results]

    def next(self, source: str) -> Result:
        result = self._left[source].pop()
        if not self._left[source]:
            self._refill(source)
        return result


#: Priors of the former rule: a, b and c of the yield exp(a + b ln(atoms) + c (elements - 2)); fitted to the systems of
#: the family chgnet, 4 to 19 atoms and 2 to 4 elements.
FORMER_YIELDS = {
    "random": (-4.836, -0.472, -0.809),
    "prototypes": (-4.487, -0.356, -0.756),
    "evolution": (-5.265, -0.268, -0.676),
    "swarm": (-4.868, -0.209, -0.364),
    "basin-hopping": (-5.181, -0.169, -0.429),
    "wyckoff": (-3.516, -0.611, -0.732),
    "flow": (-4.844, -0.457, -0.64),
    "shake": (-4.108, -0.54, -0.428),
}


class CreditAllocation(Allocation):
    """The former rule: Thompson sampling of the credit for new minima, exp(-ΔH / 20 meV), per force call."""

    SCALE, HALF_LIFE, PRIOR_FORCE_CALLS, FLOOR = 0.02, 5000.0, 600.0, 0.04

    def __init__(self, difficulty: Difficulty, rng: np.random.Generator) -> None:
        atoms, elements = np.clip(difficulty.atoms, 4, 19), np.clip(difficulty.elements, 2, 4)
        self._priors = {
            name: float(np.exp(a + b * np.log(atoms) + c * (elements - 2))) for name, (a, b, c) in FORMER_YIELDS.items()
        }
        self._rng = rng
        self._given: Counter[str] = Counter()
        self._earned: defaultdict[str, float] = defaultdict(float)
        self._paid: defaultdict[str, float] = defaultdict(float)
        self._lowest = math.inf

    def choose(self, available: Sequence[str]) -> str:
        """Return a source below its minimum share, or the largest draw's."""
        if untried := [name for name in available if not self._given[name]]:
            return max(untried, key=self._priors.__getitem__)
        total = sum(self._given[name] for name in available) + 1
        if neglected := [name for name in available if self._given[name] < self.FLOOR * total - 1]:
            return min(neglected, key=lambda name: self._given[name])
        weight = self.PRIOR_FORCE_CALLS
        draws = {
            name: self._rng.gamma(self._priors[name] * weight + self._earned[name]) / (weight + self._paid[name])
            for name in available
        }
        return max(draws, key=draws.__getitem__)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Book costs and credit."""
        for outcome in outcomes:
            name = outcome.candidate.source
            self._given[name] += 1
            discount = 0.5 ** (outcome.cost.force_calls / self.HALF_LIFE)
            for known in self._given:
                self._earned[known] *= discount
                self._paid[known] *= discount
            self._paid[name] += outcome.cost.force_calls
            if not isinstance(outcome, Relaxed):
                continue
            enthalpy = outcome.enthalpy_per_atom
            if enthalpy < self._lowest:
                for known in self._earned:
                    self._earned[known] *= math.exp((enthalpy - self._lowest) / self.SCALE)
                self._lowest = enthalpy
            if outcome.is_new_minimum:
                self._earned[name] += math.exp((self._lowest - enthalpy) / self.SCALE)


class OneSource(Allocation):
    """Use one source alone as long as it has results."""

    def __init__(self, name: str) -> None:
        self._name = name

    def choose(self, available: Sequence[str]) -> str:
        """Return the source."""
        return self._name if self._name in available else available[0]


def replay(pools: Pools, allocation: Allocation, rng: np.random.Generator) -> int:
    """Return the force calls until the system is solved, or until all results are used up."""
    draws = Draws(pools, rng)
    spent, number = 0, 0
    candidates: dict[int, int] = {}  # that first reached each minimum
    while available := draws.available:
        source = allocation.choose(available)
        result = draws.next(source)
        spent += result.force_calls
        number += 1
        outcome = _outcome(source, result, number, candidates)
        allocation.proposed([outcome.candidate])
        allocation.observe([outcome])
        if result.minimum:
            candidates.setdefault(result.minimum, number)
        if result.enthalpy is not None and result.enthalpy <= pools.goal:
            break
    return spent


def _outcome(source: str, result: Result, number: int, candidates: Mapping[int, int]) -> Relaxed | Failed:
    parents = tuple(candidates[minimum] for minimum in result.parents if minimum in candidates)
    candidate = Candidate(
        proposal=Proposal(atoms=ATOMS, operator="recorded", parents=parents), id=number, source=source
    )
    cost = Cost(force_calls=result.force_calls)
    if result.enthalpy is None:
        return Failed(candidate=candidate, reason=FailureReason.REPORTED, cost=cost)
    evaluation = Evaluation(
        level="relax",
        calculator="recorded",
        energy=result.enthalpy,
        enthalpy=result.enthalpy * len(ATOMS),
        max_force=None,
        max_stress_residual=None,
    )
    return Relaxed(
        candidate=candidate,
        atoms=ATOMS,
        evaluation=evaluation,
        converged=True,
        cost=cost,
        minimum=result.minimum,
        is_new_minimum=result.minimum not in candidates,
    )


Maker = Callable[[Difficulty, SuccessPriors, np.random.Generator], Allocation]


def success(_: Difficulty, priors: SuccessPriors, __: np.random.Generator) -> Allocation:
    """Return the default allocation."""
    return SuccessAllocation(PROBLEM, priors=priors)


#: Allocations by name, and changes of constants of the default allocation.
ALLOCATIONS: dict[str, tuple[Maker, dict[str, object]]] = {
    "credit": (lambda difficulty, _, rng: CreditAllocation(difficulty, rng), {}),
    "equal": (lambda *_: EqualAllocation(), {}),
    "success": (success, {}),
    "no credit": (success, {"WEIGHT_OF_CREDIT": 0.0}),
    "no rising floors": (success, {"RISING_FLOORS": {}}),
    "priors": (success, {"WEIGHT_OF_CREDIT": 0.0, "RISING_FLOORS": {}}),
}


def costs(
    pools: Pools,
    attempts: Sequence[Attempt],
    replays: int,
    allocations: Mapping[str, tuple[Maker, dict[str, object]]],
) -> dict[str, float]:
    """Return the mean force calls to solve a system by allocation."""
    priors = fit(attempts).priors(pools.difficulty)
    found: dict[str, float] = {}
    for name, (make, constants) in allocations.items():
        with patch.multiple(success_allocation, **{"WEIGHT_OF_CREDIT": WEIGHT_OF_CREDIT, **constants}):
            streams = [np.random.default_rng([1, number]) for number in range(replays)]
            found[name] = float(np.mean([replay(pools, make(pools.difficulty, priors, rng), rng) for rng in streams]))
    alone = []
    for source in pools.by_source:
        streams = [np.random.default_rng([1, number]) for number in range(replays)]
        alone.append(np.mean([replay(pools, OneSource(source), rng) for rng in streams]))
    found["best source"] = float(min(alone))
    return found


def ratio_with_interval(first: np.ndarray, second: np.ndarray) -> str:
    """Return the ratios of sums and of geometric means with 95 % intervals, systems drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, len(first), (4000, len(first)))
    sums = first[draws].sum(axis=1) / second[draws].sum(axis=1)
    logarithms = np.log(first / second)
    means = np.exp(logarithms[draws].mean(axis=1))
    texts = []
    for value, sample in ((first.sum() / second.sum(), sums), (np.exp(logarithms.mean()), means)):
        low, high = np.quantile(sample, (0.025, 0.975))
        texts.append(f"{value:5.2f} ({low:.2f}-{high:.2f})")
    return "   ".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", help="beginnings of names of systems: chgnet, emt, binary-lj, ionic")
    parser.add_argument("--replays", type=int, default=20)
    arguments = parser.parse_args()
    searches = recorded_searches()
    systems = pools_of(searches)
    if arguments.families:
        systems = [pools for pools in systems if pools.name.startswith(tuple(arguments.families))]
    rows = []
    for pools in systems:
        others = attempts_in([search for search in searches if search.system != pools.name])
        rows.append(costs(pools, [*others, *single_attempts()], arguments.replays, ALLOCATIONS))
        print(f"{pools.name:24s}", *(f"{name} {calls:.0f}" for name, calls in rows[-1].items()), flush=True)
    print(f"{len(systems)} systems; force calls to solve as ratios, of sums and of geometric means over systems")
    for base in ("credit", "equal"):
        for name in rows[0]:
            ratio = ratio_with_interval(*(np.array([row[one] for row in rows]) for one in (name, base)))
            print(f"{name:18s} / {base:8s} {ratio}")


if __name__ == "__main__":
    main()
