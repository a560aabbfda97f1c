"""Allocations: the rules that decide which source proposes the next candidate."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from zlib import crc32

import numpy as np

from hybridcsp.archive.credit import EXPECTED_FORCE_CALLS, CreditTracker
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Candidate, Failed, FollowUpOutcome, Outcome, Rejected, Relaxed
from hybridcsp.errors import UnknownNameError

#: Share of an offspring's credit that goes to the sources of its parents.
SHARE_OF_PARENTS = 0.3

#: Half-life of credit and costs in force calls: yields change during a search.
HALF_LIFE = 5000.0

#: Weight of the prior in force calls.
PRIOR_FORCE_CALLS = 600.0

#: Minimum share of the jobs of every source, so that none is abandoned.
FLOOR = 0.04


class Allocation(ABC):
    """Base class of the rules that divide relaxations between the sources.

    The state of an allocation may change in :meth:`proposed` and :meth:`observe` only. When a search is resumed these
    two are called again as they were before, in the same order, and :meth:`choose` is not.
    """

    @abstractmethod
    def choose(self, available: Sequence[str]) -> str:
        """Return the source that proposes next.

        Called whenever a candidate is needed. A source that then has nothing to propose is left out of ``available``
        until the next candidate is needed.

        Parameters
        ----------
        available
            Names of the sources that can propose now, at least one, in the order in which the user named them.
        """

    def proposed(self, candidates: Sequence[Candidate]) -> None:  # noqa: B027  # a hook that may be left out
        """Take note of the candidates of one call of a source; called after each call, before any of their outcomes."""

    def observe(self, outcomes: Sequence[Outcome]) -> None:  # noqa: B027  # a hook that may be left out
        """Learn from outcomes; called with those of all sources, in order.

        When a search is resumed, outcomes that arrived together may be passed one by one, so that the result must not
        depend on their grouping.
        """

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:  # noqa: B027  # may be left out
        """Learn from follow-up relaxations; called like :meth:`observe`, but only in a search in which they count.

        They are no relaxations of the search: none of them ends a candidate.
        """


class EqualAllocation(Allocation):
    """Give every source the same number of relaxations; of sources that have the same, the one named first is chosen.

    Parameters
    ----------
    problem, seed
        Not used; every allocation is built with these two.
    """

    def __init__(self, problem: Problem | None = None, seed: int = 0) -> None:
        self._given: Counter[str] = Counter()

    def choose(self, available: Sequence[str]) -> str:
        """Return the source with the fewest relaxations."""
        return min(available, key=lambda name: self._given[name])

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Count the candidates of each source."""
        self._given.update(candidate.source for candidate in candidates)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Subtract the candidates that were rejected before their relaxation."""
        self._given.subtract(outcome.candidate.source for outcome in outcomes if isinstance(outcome, Rejected))


@dataclass
class _Jobs:
    given: int = 0  # candidates that were not rejected
    running: int = 0  # candidates without an outcome


class ThompsonAllocation(Allocation):
    """Choose the next source by Thompson sampling of the credit that sources earn per force call.

    A source earns credit when a relaxation of its candidate is the first to reach a minimum: ``exp(-ΔH / 20 meV)``,
    where ΔH is the enthalpy per atom above the best minimum known now. When a better minimum is found, all earlier
    credit shrinks accordingly, so that an early lead among poor structures does not last. A known minimum earns
    nothing. Part of the credit goes to the sources of the candidate's parents. Credit and costs are discounted with the
    force calls spent since, because yields change: random structures earn early, evolution once there are parents.
    Where follow-up relaxations count, their results replace the credit of the minima that they started from; see
    :class:`~hybridcsp.archive.credit.CreditTracker`.

    The yield of each source has a Gamma posterior with a prior that weighs as much as a few relaxations; the card in
    ``data/allocation_priors.json`` describes the data it was fitted to. The source with the largest draw comes next
    (Thompson sampling, doi:10.1093/biomet/25.3-4.285; discounting: doi:10.48550/arXiv.1707.09727). At the beginning
    every source proposes once, in the order of their priors; later a source below its minimum share comes first.

    Parameters
    ----------
    problem
        The problem, whose numbers of atoms and elements determine the default priors.
    seed
        Random seed; the same seed and history lead to the same choice.
    priors
        Expected yield (credit per force call) by source; by default the priors of the package.
    """

    def __init__(self, problem: Problem, seed: int, priors: Mapping[str, float] | None = None) -> None:
        self._seed = seed
        self._priors = _default_priors(problem) if priors is None else dict(priors)
        self._jobs: dict[str, _Jobs] = {}
        self._sources: dict[int, str] = {}
        self._credit = CreditTracker(HALF_LIFE)
        self._choices = 0

    def choose(self, available: Sequence[str]) -> str:
        """Return a source that has not proposed yet or is below its minimum share, or else the largest draw's."""
        jobs = {name: self._job_counts(name) for name in available}
        if self._choices < 2 * len(available):  # a source without proposals is not called first for ever
            tried = set(self._sources.values())
            if untried := [name for name in available if name not in tried]:
                # The first proposals of generators and prototypes are their best and should not depend on a draw.
                return max(untried, key=self._prior)
        total = sum(counts.given for counts in jobs.values()) + 1
        neglected = [name for name, counts in jobs.items() if counts.given < FLOOR * total - 1]
        if neglected:
            return min(neglected, key=lambda name: jobs[name].given)
        rng = np.random.default_rng([self._seed, crc32(b"allocation"), self._choices, len(available)])
        draws = {name: self._draw(name, rng) for name in available}
        return max(draws, key=draws.__getitem__)

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Count the candidates of each source."""
        for candidate in candidates:
            self._sources[candidate.id] = candidate.source
            counts = self._job_counts(candidate.source)
            counts.given += 1
            counts.running += 1
            self._choices += 1

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Book the costs and the credit of outcomes."""
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                counts = self._job_counts(outcome.candidate.source)
                counts.given -= 1
                counts.running -= 1
            elif outcome.level != REFINE:
                self._settle(outcome)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Replace the credit of minima by what their follow-up relaxations are worth."""
        self._credit.observe_follow_ups(outcomes)

    def yields(self) -> dict[str, float]:
        """Return the posterior mean of the yield (credit per force call) by source."""
        return {name: self._shape(name) / (PRIOR_FORCE_CALLS + self._credit.account(name).paid) for name in self._jobs}

    def _settle(self, outcome: Relaxed | Failed) -> None:
        name = outcome.candidate.source
        counts = self._job_counts(name)
        counts.running = max(0, counts.running - 1)
        credit = self._credit.charge(outcome, name)
        if not (isinstance(outcome, Relaxed) and credit):
            return
        parents = [self._sources[id_] for id_ in outcome.candidate.proposal.parents if id_ in self._sources]
        for parent in parents:
            self._credit.grant(outcome, parent, SHARE_OF_PARENTS * credit / len(parents))
        self._credit.grant(outcome, name, credit * (1 - SHARE_OF_PARENTS if parents else 1.0))

    def _job_counts(self, name: str) -> _Jobs:
        return self._jobs.setdefault(name, _Jobs())

    def _prior(self, name: str) -> float:
        return self._priors.get(name.partition("-")[0], self._priors.get(name, _typical(self._priors)))

    def _shape(self, name: str) -> float:
        return self._prior(name) * PRIOR_FORCE_CALLS + self._credit.account(name).earned

    def _draw(self, name: str, rng: np.random.Generator) -> float:
        # Running relaxations count as paid, so that many workers do not all relax candidates of one source.
        paid = (
            PRIOR_FORCE_CALLS + self._credit.account(name).paid + EXPECTED_FORCE_CALLS * self._job_counts(name).running
        )
        return float(rng.gamma(self._shape(name)) / paid)


#: Allocations by the names that run directories hold.
ALLOCATIONS: dict[str, Callable[[Problem, int], Allocation]] = {
    "earnings": ThompsonAllocation,
    "equal": EqualAllocation,
}

#: Further names of allocations.
_SYNONYMS = {"thompson": "earnings"}

#: Name of the allocation of a search whose settings name none.
DEFAULT_ALLOCATION = "earnings"


def find_allocation(name: str) -> str:
    """Return the name under which an allocation is recorded.

    Raises
    ------
    UnknownNameError
        If there is no such allocation.
    """
    name = _SYNONYMS.get(name, name)
    if name not in ALLOCATIONS:
        raise UnknownNameError("allocation", name, [*ALLOCATIONS, *_SYNONYMS])
    return name


def _typical(priors: Mapping[str, float]) -> float:
    return float(np.median(list(priors.values()))) if priors else 1 / EXPECTED_FORCE_CALLS


@cache
def _prior_table() -> Mapping[str, Any]:
    return dict(json.loads(files("hybridcsp").joinpath("data/allocation_priors.json").read_text(encoding="utf-8")))


def _default_priors(problem: Problem) -> dict[str, float]:
    """Return yields ``exp(a + b ln(atoms) + c (elements - 2))`` for the mean number of atoms in the problem's cells.

    Sizes are clipped to the range of the systems that the coefficients were fitted to.
    """
    table = _prior_table()
    atoms = np.clip(float(np.mean(problem.units)) * problem.atoms_per_unit, *table["card"]["atoms"])
    elements = np.clip(len(problem.composition), *table["card"]["elements"])
    return {name: math.exp(a + b * math.log(atoms) + c * (elements - 2)) for name, (a, b, c) in table["yields"].items()}
