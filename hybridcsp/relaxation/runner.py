"""The function that runs jobs, with the labels of its calculators, and batches of jobs that run at the same time.

It has a module of its own, because that of a worker process is also its main program, whose classes would be others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class Batch(ABC):
    """Several jobs that run at the same time; a worker runs it instead of a runner.

    Attributes
    ----------
    labels
        Labels of the calculators by their numbers.
    """

    labels: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of jobs that have not ended."""

    @abstractmethod
    def add(self, number: int, job: Job) -> None:
        """Add a job, which begins with the next :meth:`advance`."""

    @abstractmethod
    def advance(self) -> list[tuple[int, Relaxed | Failed, bool]]:
        """Let every job do one step, and return number, outcome and soundness of those that have ended."""

    @abstractmethod
    def steps(self) -> dict[int, tuple[int, float]]:
        """Return force calls and enthalpy per atom (eV) of the jobs that have been evaluated, by number."""
