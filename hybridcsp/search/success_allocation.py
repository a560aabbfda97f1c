"""The default allocation: the source with the highest expected rate of success proposes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hybridcsp.archive.credit import EXPECTED_FORCE_CALLS, CreditTracker
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Rejected, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import REFINE, Candidate
from hybridcsp.objectives.goals import Goals
from hybridcsp.search.allocation import Allocation
from hybridcsp.search.success_priors import Difficulty, SuccessPriors, success_priors

#: Number of solved problems that a unit of credit counts as.
WEIGHT_OF_CREDIT = 0.05

#: Force calls that a rejected candidate counts as, so that a source whose candidates are all rejected falls back.
PRICE_OF_REJECTION = 1.0

#: Minimum share of the jobs of every source, so that none is abandoned.
FLOOR = 0.04

#: Minimum shares of the sources that need other minima to begin with and get better as the search goes on: after many
#: relaxations if no known prototype is the solution, and the number of relaxations after which it is half of that.
RISING_FLOORS: Mapping[str, tuple[float, float]] = {"evolution": (0.3, 30.0), "swarm": (0.1, 30.0)}


@dataclass
class _Jobs:
    given: int = 0  # candidates that were not rejected
    running: int = 0  # candidates without an outcome
    rejected: int = 0

    @property
    def tried(self) -> int:
        return self.given + self.rejected


class SuccessAllocation(Allocation):
    """Choose the source that is most likely to solve the problem with its next force call.

    A problem is solved by the relaxation that first reaches its ground state; nothing that is done later matters, so
    that the allocation assumes that it is not solved yet. The rate at which a source solves problems differs from
    problem to problem. Before the search it has a Gamma distribution, fitted to searches of development problems
    (:mod:`hybridcsp.search.success_priors`), which for some sources depends on whether a known prototype is the
    solution. The longer a source has searched in vain, the lower its expected rate, and the longer sources of known
    prototypes have, the lower the probability of one: if it is high at first, prototypes and generators come first, and
    others follow when these have had their chance. For independent sources whose rates fall in this way, the highest
    present rate is the best choice.

    Results modify the rates: the credit of a source, the low niches that it alone has reached, is added to the shape of
    its distribution with a small weight; see :class:`~hybridcsp.archive.credit.CreditTracker`. Running relaxations
    count as paid, so that many workers do not all relax candidates of one source. A source below its minimum share
    comes first; the minimum shares of evolution and swarm rise with the number of relaxations, because they improve on
    what a search has found, and as the probability of a known prototype falls.

    Parameters
    ----------
    problem
        The problem, whose properties determine the default priors.
    seed
        Not used; every allocation is built with a problem and a seed.
    priors
        Priors by source; by default those of the package.
    """

    def __init__(self, problem: Problem, seed: int = 0, priors: SuccessPriors | None = None) -> None:
        self._priors = success_priors(Difficulty.of(problem)) if priors is None else priors
        self._jobs: dict[str, _Jobs] = {}
        self._credit = CreditTracker()

    def pursue(self, goals: Goals) -> None:
        """Let sources earn credit with the hypervolume of the Pareto front instead of the height."""
        self._credit = CreditTracker(goals)

    def choose(self, available: Sequence[str]) -> str:
        """Return the source furthest below its minimum share, or else the one with the highest expected rate."""
        total = sum(self._job_counts(name).given for name in available)
        spent = self._all_spent()
        chance = self._priors.chance_left(spent)
        missing = {
            name: _minimum_share(name, total, chance) * (total + 1) - 1 - self._jobs[name].tried for name in available
        }
        neglected = max(available, key=missing.__getitem__)
        if missing[neglected] > 0:
            return neglected
        return max(available, key=lambda name: self._rate(name, spent))

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Count the candidates of each source."""
        for candidate in candidates:
            counts = self._job_counts(candidate.source)
            counts.given += 1
            counts.running += 1

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Book the costs and the credit of outcomes."""
        for outcome in outcomes:
            counts = self._job_counts(outcome.candidate.source)
            if isinstance(outcome, Rejected):
                counts.given -= 1
                counts.running -= 1
                counts.rejected += 1
            elif outcome.level != REFINE:
                counts.running = max(0, counts.running - 1)
                self._credit.observe(outcome, outcome.candidate.source)
            elif isinstance(outcome, Relaxed):
                self._credit.note_suspects(outcome)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Replace the credit of niches by what their follow-up relaxations are worth."""
        self._credit.observe_follow_ups(outcomes)

    def rate(self, name: str) -> float:
        """Return the expected probability that the next force call of a source solves the problem."""
        return self._rate(name, self._all_spent())

    @property
    def chance_of_known(self) -> float:
        """Probability that a known prototype is the solution, after what was tried in vain."""
        return self._priors.chance_left(self._all_spent())

    def _rate(self, name: str, spent: Mapping[str, float]) -> float:
        return self._priors.rate(name, spent, WEIGHT_OF_CREDIT * self._credit.credit(name))

    def _all_spent(self) -> dict[str, float]:
        return {
            name: self._credit.account(name).paid
            + EXPECTED_FORCE_CALLS * counts.running
            + PRICE_OF_REJECTION * counts.rejected
            for name, counts in self._jobs.items()
        }

    def _job_counts(self, name: str) -> _Jobs:
        return self._jobs.setdefault(name, _Jobs())


def _minimum_share(name: str, total: int, chance_of_known: float) -> float:
    """Return the minimum share of a source, by the relaxations so far and the chance that a prototype is known."""
    share, half = RISING_FLOORS.get(name, (0.0, 1.0))
    return max(FLOOR, (1 - chance_of_known) * share * total / (total + half))
