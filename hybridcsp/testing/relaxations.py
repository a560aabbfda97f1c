"""Relaxations of the conformance suites, which several searches repeat."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, replace

from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Cost, Job
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.runner import LabelledRunner


@dataclass(frozen=True)
class RememberingRelaxer:
    """Factory of a runner that relaxes each job once, and gives an equal job the same outcome.

    The suites compare searches that ask for the same relaxations. What is checked is the plug-in, not the calculator.

    Attributes
    ----------
    relaxer
        Factory of the runner that relaxes.
    """

    relaxer: Relaxer

    def __call__(self) -> LabelledRunner:
        """Build the calculators and return the runner."""
        relax = self.relaxer()
        outcomes: dict[bytes, Relaxed | Failed] = {}

        def run(job: Job) -> Relaxed | Failed:
            contents = pickle.dumps(_without_cost(job))
            if contents not in outcomes:
                outcomes[contents] = relax(job)
            return copy.deepcopy(outcomes[contents])

        return LabelledRunner(run, relax.labels)


def _without_cost(job: Job) -> Job:
    """Leave out the seconds that proposing took, which differ from search to search."""
    candidate = job.candidate
    return replace(job, candidate=replace(candidate, proposal=replace(candidate.proposal, cost=Cost())))
