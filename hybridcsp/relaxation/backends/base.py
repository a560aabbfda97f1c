"""The interface of the backends that run jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Job


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job in progress, as the live display shows it.

    Attributes
    ----------
    candidate
        Number of the candidate.
    source, operator
        The source and the operator that proposed the candidate.
    level
        Level of the job, such as "relax".
    seconds
        Time since the job started, or since it was handed to an executor, in s.
    force_calls
        Force calls made so far; ``None`` if the worker has not reported any yet, or cannot report.
    enthalpy_per_atom
        Enthalpy per atom of the structure evaluated last, in eV; ``None`` if it is not known.
    """

    candidate: int
    source: str
    operator: str
    level: str
    seconds: float
    force_calls: int | None = None
    enthalpy_per_atom: float | None = None

    @classmethod
    def of(
        cls, job: Job, seconds: float, force_calls: int | None = None, enthalpy_per_atom: float | None = None
    ) -> Self:
        """Return the progress of a job that has been running for a number of seconds."""
        return cls(
            candidate=job.candidate.id,
            source=job.candidate.source,
            operator=job.candidate.operator,
            level=job.level,
            seconds=seconds,
            force_calls=force_calls,
            enthalpy_per_atom=enthalpy_per_atom,
        )


class Backend(ABC):
    """Base class of the backends that run jobs, several at once.

    Every submitted job comes back from :meth:`completed` as exactly one outcome, a failure included, unless the backend
    is closed or raises :class:`~hybridcsp.errors.BackendError` first. A search calls all methods from one thread, in
    this order: :meth:`submit` whenever fewer than ``capacity`` jobs are running, :meth:`completed` whenever no job can
    be submitted, and :attr:`starting` and :meth:`running` about once a second to show the progress. The backend belongs
    to the code that created it; this code calls :meth:`close`, usually with a ``with`` statement.

    A subclass defines :meth:`submit` and :meth:`completed`; the other methods have defaults.

    Attributes
    ----------
    capacity
        Number of jobs that the backend takes at once, at least 1. It may change, as that of a cluster does: a search
        reads it before each submission and about twice a second, and submits more jobs when it has grown.

    Examples
    --------
    >>> class InlineBackend(Backend):
    ...     '''Run each job in this process.'''
    ...
    ...     capacity = 1
    ...
    ...     def __init__(self, runner):
    ...         self.runner, self.jobs = runner, []
    ...
    ...     def submit(self, job):
    ...         self.jobs.append(job)
    ...
    ...     def completed(self, timeout):
    ...         if not self.jobs:
    ...             return []
    ...         job = self.jobs.pop(0)
    ...         try:
    ...             return [self.runner(job)]
    ...         except Exception as error:
    ...             reason = FailureReason.CALCULATOR
    ...             return [Failed(candidate=job.candidate, reason=reason, detail=str(error), level=job.level)]
    """

    capacity: int

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Accept a job and return without waiting for its outcome.

        Called for each job as soon as fewer than ``capacity`` jobs are running. Further jobs are queued and start in
        the order in which they were submitted.

        Parameters
        ----------
        job
            The job; it must not be changed.

        Raises
        ------
        BackendError
            If the backend is closed or can run no more jobs; the search then stops and can be resumed.
        """

    @abstractmethod
    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Wait for at least one outcome and return all outcomes that have arrived, in the order of completion.

        Called whenever the search has submitted all the jobs that it can.

        Parameters
        ----------
        timeout
            Longest time to wait, in s; ``None`` to wait without a limit.

        Returns
        -------
        list of Relaxed or Failed
            Empty after the timeout, and immediately if no job is running or queued.

        Raises
        ------
        CalculatorError
            If the calculator cannot be built.
        BackendError
            If the backend is closed or can run no more jobs; the search then stops and can be resumed.
        """

    @property
    def parallel(self) -> bool:
        """Whether several jobs may run at once at some time; by default whether the capacity exceeds 1.

        Read when a search is opened: with one job at a time, a search waits for trainings and external programs, so
        that every run of a seed is the same.
        """
        return self.capacity > 1

    def running(self) -> list[RunningJob]:
        """Return the jobs in progress; by default none are reported.

        Called about once a second while somebody watches the search.
        """
        return []

    @property
    def starting(self) -> int:
        """Number of workers that are still building their calculators; by default 0.

        Read together with :meth:`running`.
        """
        return 0

    @property
    def waiting_for(self) -> str:
        """Text that names what the backend waits for, such as ``"a worker of dask"``; by default empty.

        Read together with :meth:`running`.
        """
        return ""

    def labels(self) -> Sequence[str]:
        """Return the labels of the calculators that the workers have built, by their numbers, the search's first.

        Called before the first follow-up relaxation. A backend that does not know them, which is the default, returns
        none; the labels are then those of the results.
        """
        return ()

    def close(self) -> None:  # noqa: B027  # a backend that holds nothing needs no other
        """Stop all work at once and drop the jobs in progress; by default nothing is to be done.

        Called once at the end, also after an error; a second call has no effect.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
