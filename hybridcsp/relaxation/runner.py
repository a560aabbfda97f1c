"""The function that runs jobs, with the labels of its calculators.

It has a module of its own, because that of a worker process is also its main program, whose classes would be others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Job

JobRunner = Callable[[Job], Relaxed | Failed]


@dataclass(frozen=True)
class LabelledRunner:
    """Represent a runner that knows the labels of its calculators, by their numbers."""

    run: JobRunner
    labels: tuple[str, ...]

    def __call__(self, job: Job) -> Relaxed | Failed:
        """Run a job."""
        return self.run(job)
