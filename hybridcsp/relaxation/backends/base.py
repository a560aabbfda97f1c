"""The interface of the backends that run jobs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hybridcsp.core.records import Failed, Job, Relaxed
from hybridcsp.utils.activity import Running


class Backend(Protocol):
    """Works on jobs, several at once.

    Every job that was submitted comes back as exactly one outcome, a failure included, unless the backend is closed
    or raises :class:`~hybridcsp.errors.BackendError` before.
    """

    capacity: int
    """How many jobs it can work on at once."""

    def submit(self, job: Job) -> None:
        """Take a job; jobs beyond ``capacity`` wait their turn, first in, first out."""

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Wait for at least one outcome and return all that have arrived, in the order of completion.

        Returns an empty list after ``timeout`` seconds, and at once where no job is out.
        """

    def close(self) -> None:
        """End everything at once; jobs in flight are lost. Closing twice is closing once."""


@runtime_checkable
class ReportsProgress(Protocol):
    """A backend that can also tell how far its jobs are."""

    @property
    def starting(self) -> int:
        """Number of workers that are still building their calculators."""

    def running(self) -> list[Running]:
        """Return the jobs that it is working on."""
