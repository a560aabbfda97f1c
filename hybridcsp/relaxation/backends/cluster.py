"""Backend that runs jobs on the workers of a cluster, each in a calculator process that survives every failure."""

from __future__ import annotations

import hashlib
import logging
import pickle
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Job
from hybridcsp.errors import BackendError, message_of
from hybridcsp.relaxation.backends.cluster_task import BROKEN, NOBODY, OUTCOME, UNKNOWN, Answer, run_task
from hybridcsp.relaxation.backends.executor import ExecutorBackend
from hybridcsp.relaxation.backends.executors.base import JobExecutor
from hybridcsp.relaxation.backends.pool import build_error, check_capacity, pickle_factory
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.relaxation.worker import failed
from hybridcsp.utils.interrupts import exits_contained

log = logging.getLogger(__name__)

#: Number of times that a job is submitted again whose worker was lost.
RETRIES = 2

# Time in s between two questions for the number of workers.
_BETWEEN_COUNTS = 1.0


class ClusterExecutor(JobExecutor):
    """Base class of the executors whose workers are those of a cluster.

    A subclass defines :meth:`start`, :meth:`workers` and :meth:`stop`. Its constructor checks the argument, without
    connecting to anything.

    Attributes
    ----------
    retries
        Number of times that a job is submitted again whose worker was lost; 0 if the cluster does so itself.
    """

    retries: int = RETRIES

    @abstractmethod
    def start(self, directory: Path | None) -> Executor:
        """Connect to the cluster, or start it, and return its executor.

        Parameters
        ----------
        directory
            Folder for files of the cluster, such as the output of its jobs; ``None`` for none.

        Raises
        ------
        BackendError
            If that is not possible.
        """

    @abstractmethod
    def workers(self) -> int:
        """Return the number of jobs that the workers run at once which the cluster has now."""

    def wanted(self) -> int:
        """Return the number of jobs that are given to the cluster at once; by default one for each worker.

        A cluster that grows when it has more jobs than workers returns more.
        """
        return self.workers()

    @abstractmethod
    def stop(self) -> None:
        """Disconnect from the cluster, and end what :meth:`start` has started; called once."""

    def open(
        self, make_runner: Callable[[], JobRunner], *, workers: int | None, log_directory: Path | None
    ) -> ClusterBackend:
        """Return a backend that runs jobs on the cluster, at most ``workers`` at once if that is given."""
        return ClusterBackend(self, make_runner, most=workers, directory=log_directory)


class ClusterBackend(ExecutorBackend):
    """Backend that runs jobs on the workers of a cluster.

    In each worker, a process of its own builds the calculators once and runs the jobs, so that every failure of a
    calculator is what it is in a :class:`~hybridcsp.relaxation.backends.WorkerPool`. The factory of the runner is sent
    to each worker once; a task carries the job and a hash. A job whose worker is lost is submitted again, and is a
    failure of reason ``WORKER_DIED`` after :attr:`ClusterExecutor.retries` times. The capacity follows the number of
    workers.

    Parameters
    ----------
    cluster
        The cluster, which is started here and stopped by :meth:`close`.
    make_runner
        Function that builds the calculator and returns the runner.
    most
        Largest number of jobs at once; by default that of the cluster's workers.
    directory
        Folder for files of the cluster.

    Raises
    ------
    InputError
        If ``most`` is less than 1.
    BackendError
        If ``make_runner`` cannot be pickled, or the cluster cannot be started.
    """

    def __init__(
        self,
        cluster: ClusterExecutor,
        make_runner: Callable[[], JobRunner],
        *,
        most: int | None = None,
        directory: Path | None = None,
    ) -> None:
        self._most = None if most is None else check_capacity("workers", most)
        self._factory = pickle_factory(make_runner)
        self._key = hashlib.sha256(self._factory).hexdigest()
        self._cluster = cluster
        self._stopped = False
        self._labels: Sequence[str] = ()
        self._times_lost: Counter[int] = Counter()
        self._workers = self._wanted = 0
        self._next_count = 0.0
        super().__init__(cluster.start(directory), make_runner, capacity=1)

    @property
    def capacity(self) -> int:  # type: ignore[override]  # it changes
        """Number of jobs that are given to the cluster at once; at least 1, so that it can grow from none."""
        if time.monotonic() >= self._next_count and self._error is None:
            self._workers, self._wanted = self._cluster.workers(), self._cluster.wanted()
            self._next_count = time.monotonic() + _BETWEEN_COUNTS
        return max(1, self._wanted if self._most is None else min(self._most, self._wanted))

    @property
    def parallel(self) -> bool:
        """Whether several jobs may run at once: always, unless ``most`` is 1."""
        return self._most != 1

    @property
    def waiting_for(self) -> str:
        """Text that names what the backend waits for: the first worker, if the cluster has none."""
        return "" if self._workers or not self._jobs else f"a worker of {self._cluster.name}"

    def submit(self, job: Job) -> None:
        """Submit a job to the cluster; one that cannot be pickled is a failure.

        Raises
        ------
        BackendError
            If the backend is closed, or the cluster accepts no more jobs.
        """
        try:
            with exits_contained():
                super().submit(job)
        except pickle.PicklingError as error:
            unsent: Future[Any] = Future()
            outcome = failed(job, FailureReason.CALCULATOR, str(error), 0.0)
            unsent.set_result(Answer(OUTCOME, cloudpickle.dumps(replace(outcome, candidate=NOBODY))))
            self._jobs[unsent] = (job, time.monotonic())
            self._finished.put(unsent)

    def labels(self) -> Sequence[str]:
        """Return the labels of the calculators; if no job has ended, a worker builds them first.

        Raises
        ------
        CalculatorError, BackendError
            As :meth:`completed`.
        """
        lost: Exception | None = None
        for _ in range(1 + self._cluster.retries):
            if self._labels:
                return self._labels
            try:
                answer = self._executor.submit(run_task, self._key, self._factory, None).result()
            except Exception as error:  # noqa: BLE001 - each kind of executor raises its own errors for a lost worker
                lost = error
            else:
                return self._checked(answer).labels
        message = "" if lost is None else f": {message_of(lost)}"
        raise BackendError(f"no worker of {self._cluster.name} built the calculators{message}")

    def close(self) -> None:
        """Drop all jobs, and disconnect from the cluster, or end it if it was started for this backend."""
        super().close()
        if not self._stopped:
            self._stopped = True
            self._cluster.stop()

    def _task(self, job: Job, *, with_factory: bool = False) -> tuple[Any, ...]:
        try:
            message = cloudpickle.dumps(job)
        except Exception as error:
            raise pickle.PicklingError(f"the job cannot be sent: {message_of(error)}") from error
        return run_task, self._key, self._factory if with_factory else None, message

    def _outcome(self, job: Job, result: Any, submitted: float) -> Relaxed | Failed | None:
        answer = self._checked(result)
        if answer.kind == UNKNOWN:
            self._start(job, submitted, self._task(job, with_factory=True))
            return None
        del self._times_lost[job.candidate.id]
        try:
            with exits_contained():
                outcome: Relaxed | Failed = cloudpickle.loads(answer.payload)
        except Exception as error:  # noqa: BLE001 - unpickling third-party objects may raise anything
            detail = f"the outcome cannot be read: {message_of(error)}"
            return failed(job, FailureReason.CALCULATOR, detail, time.monotonic() - submitted)
        return replace(outcome, candidate=job.candidate)

    def _lost(self, job: Job, error: Exception, submitted: float) -> Relaxed | Failed | None:
        if isinstance(error, ImportError):
            raise BackendError(
                f"the workers of {self._cluster.name} cannot import what a job needs ({message_of(error)}): install "
                f"the same version of hybridcsp in their environment"
            )
        self._times_lost[job.candidate.id] += 1
        times = self._times_lost[job.candidate.id]
        if times <= self._cluster.retries:
            log.warning(
                "candidate %d: its worker was lost (%s); it is submitted again", job.candidate.id, message_of(error)
            )
            self._start(job, submitted, self._task(job))
            return None
        del self._times_lost[job.candidate.id]
        detail = f"its worker was lost {times} time{'s' * (times > 1)}: {message_of(error)}"
        return failed(job, FailureReason.WORKER_DIED, detail, time.monotonic() - submitted)

    def _checked(self, answer: Answer) -> Answer:
        """Return an answer, and note its labels.

        Raises
        ------
        CalculatorError, BackendError
            If the worker could not build the runner.
        """
        if answer.kind == BROKEN:
            raise build_error(answer.text, answer.payload)
        self._labels = answer.labels or self._labels
        return answer
