"""Process pool that survives failures of calculators; :mod:`hybridcsp.relaxation.backends` lists them."""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import cloudpickle

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Job, Limits
from hybridcsp.errors import BackendError, HybridCSPError, InputError, message_of
from hybridcsp.relaxation.backends.base import Backend, RunningJob
from hybridcsp.relaxation.backends.worker_process import WorkerProcess
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.relaxation.worker import failed
from hybridcsp.utils.files import folder_within, make_folder
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.processes import end_processes, reap, send_signal

log = logging.getLogger(__name__)

# Time in s, and as a fraction of the time limit, after which a job that exceeds its limit is treated as hanging: a
# runner checks the limit only between force calls.
GRACE_SECONDS = 5.0
GRACE_SHARE = 0.1
# Time in s between two checks of the memory and the run time of the workers.
_CHECK_INTERVAL = 0.2


class WorkerPool(Backend):
    """Backend that runs jobs in a pool of processes and survives every failure of a calculator.

    Each worker is a new interpreter: a script needs no ``if __name__ == "__main__"``, no state of the parent is forked,
    and functions defined in a script, a notebook or another function are sent by value. A worker uses one thread for
    numerical libraries, has its own process group, and ignores Ctrl-C. It ends when this process ends, even by
    ``kill -9``, and so do the programs that its calculator has started.

    Workers start asynchronously: the constructor returns at once, and an error of the building of the runner is raised
    by the first :meth:`completed`, or by :meth:`wait_ready`. A worker is replaced when it dies, when it is killed at a
    limit, or when its runner has raised an exception or returned no outcome. Limits are enforced, and queued jobs are
    started, only inside ``submit`` and ``completed``; between these calls workers may be idle. A pool must be used by
    one thread at a time. POSIX only.

    Parameters
    ----------
    make_runner
        Function that builds the calculator and returns the runner; it is called once in each worker.
    workers
        Number of processes.
    log_directory
        Folder of the output of the workers, appended to ``worker-<n>.log``; by default the output is discarded.
    start_timeout
        Longest time in s in which a worker must start and build its runner.

    Raises
    ------
    InputError
        If ``workers`` is less than 1.
    BackendError
        If ``make_runner`` cannot be pickled or a process cannot be started.

    Examples
    --------
    >>> from hybridcsp.core.records import Job
    >>> with WorkerPool(make_runner, workers=2) as pool:  # doctest: +SKIP
    ...     pool.submit(job)
    ...     outcomes = pool.completed(timeout=None)
    """

    def __init__(
        self,
        make_runner: Callable[[], JobRunner],
        *,
        workers: int,
        log_directory: Path | None = None,
        start_timeout: float = 300.0,
    ) -> None:
        self.capacity = check_capacity("workers", workers)
        self._make_runner = pickle_factory(make_runner)
        self._log_directory = log_directory
        self._start_timeout = start_timeout
        self._waiting: deque[tuple[Job, bytes]] = deque()
        self._done: list[Relaxed | Failed] = []
        self._labels: Sequence[str] = ()
        self._retired: list[subprocess.Popen[bytes]] = []
        self._error: HybridCSPError | None = None
        self._next_check = 0.0
        self._workers: list[WorkerProcess] = []
        if log_directory is not None:
            make_folder(log_directory.parent)
            folder_within(log_directory.parent, log_directory.name)
        try:
            for number in range(1, workers + 1):
                self._workers.append(WorkerProcess(number, log_directory))
        except OSError as error:
            self.close()
            raise BackendError(f"cannot start worker {number} of {workers}: {error}") from error

    def submit(self, job: Job) -> None:
        """Start a job on an idle worker, or queue it.

        Raises
        ------
        BackendError
            If the pool is closed or has failed.
        """
        self._check()
        try:
            with exits_contained():
                message = cloudpickle.dumps(job)
        except Exception as error:  # noqa: BLE001 - atoms hold third-party objects, whose pickling may raise anything
            detail = f"the job cannot be sent: {message_of(error)}"
            self._done.append(failed(job, FailureReason.CALCULATOR, detail, 0.0))
            return
        self._waiting.append((job, message))
        self._step(0.0)

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Wait for at least one outcome and return all that have arrived, in the order of completion.

        Parameters
        ----------
        timeout
            Longest time to wait in s; ``None`` to wait without a limit.

        Returns
        -------
        list of Relaxed or Failed
            Empty after the timeout, and immediately if no job is running or queued.

        Raises
        ------
        CalculatorError
            If the calculator cannot be built; other errors of hybridcsp are raised as they are.
        BackendError
            If the runner cannot be built for another reason, a worker cannot be started, or the pool is closed.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        if self._done:
            self._step(0.0)
        while not self._done:
            self._check()
            remaining = end - time.monotonic()
            if not self._has_jobs():
                return []
            self._step(remaining)
            if remaining <= 0:
                break
        done, self._done = self._done, []
        return done

    def running(self) -> list[RunningJob]:
        """Return the jobs in progress."""
        return [job for worker in self._workers if (job := worker.running()) is not None]

    @property
    def starting(self) -> int:
        """Number of workers that are still building their runner."""
        return sum(not worker.ready for worker in self._workers)

    def wait_ready(self) -> None:
        """Wait until every worker has built its runner.

        Raises
        ------
        CalculatorError, BackendError
            As :meth:`completed`.
        """
        self._check()
        while not all(worker.ready for worker in self._workers):
            self._step(_CHECK_INTERVAL)
            self._check()

    def labels(self) -> Sequence[str]:
        """Return the labels of the calculators, after the first worker has built them.

        Raises
        ------
        CalculatorError, BackendError
            As :meth:`completed`.
        """
        self._check()
        while not self._labels and not any(worker.ready for worker in self._workers):
            self._step(_CHECK_INTERVAL)
            self._check()
        return self._labels

    def close(self) -> None:
        """End all workers and the programs that they have started, within about a second; all jobs are dropped."""
        self._done.clear()
        self._fail(self._error or BackendError("this worker pool is closed"))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _fail(self, error: HybridCSPError) -> None:
        """End the workers; the error is raised after the outcomes that have arrived are returned."""
        self._error = error
        self._waiting.clear()
        processes = [worker.process for worker in self._workers]
        for worker in self._workers:
            worker.connection.close()
        end_processes(processes)
        for process in self._retired:
            reap(process)
        self._workers.clear()
        self._retired.clear()

    def _step(self, timeout: float) -> None:
        """Wait for messages and handle them, until ``timeout`` or the next check of the workers."""
        timeout = max(0.0, min(timeout, self._next_check - time.monotonic()))
        by_connection = {worker.connection: worker for worker in self._workers}
        for ready in connection.wait(list(by_connection), timeout):
            self._receive(by_connection[ready])  # type: ignore[index]
            if self._error is not None:
                return
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + _CHECK_INTERVAL
            self._check_workers()
        for worker in list(self._workers):
            self._dispatch(worker)

    def _receive(self, worker: WorkerProcess) -> None:
        try:
            kind, payload = worker.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self._lost(worker)
        else:
            self._handle(worker, kind, payload)

    def _handle(self, worker: WorkerProcess, kind: str, payload: Any) -> None:
        """Act on a message of a worker."""
        match kind:
            case "hello":
                setup = cloudpickle.dumps((sys.path, os.environ.get("PYTHONPATH"), self._make_runner))
                if not worker.send(setup):
                    self._lost(worker)
            case "ready":
                worker.ready = True
                self._labels = payload
            case "broken":
                self._fail(build_error(*payload))
            case "step":
                worker.step = payload
            case "servers":
                worker.set_servers(payload)
            case "outcome" | "failed":
                self._finish(worker, payload, sound=kind == "outcome")

    def _finish(self, worker: WorkerProcess, payload: bytes, *, sound: bool) -> None:
        job = worker.job
        assert job is not None  # a worker sends one outcome for each job
        sound &= self._accept(job, payload, worker.elapsed())
        worker.job = None
        if not sound:
            self._replace(worker)

    def _accept(self, job: Job, payload: bytes, elapsed: float) -> bool:
        """Add the outcome of a job to those that are returned; return whether it could be read."""
        try:
            with exits_contained():
                outcome: Relaxed | Failed = cloudpickle.loads(payload)
        except Exception as error:  # noqa: BLE001 - unpickling third-party objects may raise anything
            detail = f"the outcome cannot be read: {message_of(error)}"
            self._done.append(failed(job, FailureReason.CALCULATOR, detail, elapsed))
            return False
        self._done.append(replace(outcome, candidate=job.candidate))
        return True

    def _has_jobs(self) -> bool:
        """Return whether there are jobs without an outcome."""
        return bool(self._waiting) or any(worker.job is not None for worker in self._workers)

    def _is_working(self, worker: WorkerProcess) -> bool:
        """Return whether a worker has work that is lost when it ends."""
        return worker.job is not None

    def _blame(self, worker: WorkerProcess, reason: FailureReason, detail: str) -> None:
        """Let the work of a worker that has died, or is about to be killed, fail."""
        assert worker.job is not None
        self._done.append(failed(worker.job, reason, detail, worker.elapsed()))

    def _dispatch(self, worker: WorkerProcess) -> None:
        if not self._waiting or not worker.ready or worker.job is not None:
            return
        job, message = self._waiting.popleft()
        worker.job, worker.step, worker.since = job, None, time.monotonic()
        if not worker.send(message):  # it died while idle, so that the job was not started
            self._waiting.appendleft((job, message))
            worker.job = None
            self._lost(worker)

    def _check_workers(self) -> None:
        """Reap workers that have died, and end those that exceed their limits."""
        self._retired = [process for process in self._retired if process.poll() is None]
        for worker in list(self._workers):
            if worker.process.poll() is not None and not worker.connection.poll():
                self._lost(worker)  # while one of its children holds the connection open
            elif self._is_working(worker):
                self._enforce_limits(worker, self._limits_of(worker))
            elif not worker.ready and worker.elapsed() > self._start_timeout:
                self._fail(BackendError(f"{worker.name} was not ready after {self._start_timeout:g} s{worker.tail()}"))
            if self._error is not None:
                return

    def _limits_of(self, worker: WorkerProcess) -> Limits:
        """Return the limits of the work of a worker."""
        assert worker.job is not None
        return worker.job.limits

    def _enforce_limits(self, worker: WorkerProcess, limits: Limits) -> None:
        elapsed, memory = worker.elapsed(), worker.memory()
        if elapsed > limits.seconds + grace(limits):
            reason = FailureReason.TIME_LIMIT
            detail = f"killed after {elapsed:.1f} s, the limit is {limits.seconds:g} s"
        elif memory > limits.memory:
            reason = FailureReason.MEMORY_LIMIT
            detail = f"killed at {memory / 2**20:.0f} MiB, the limit is {limits.memory / 2**20:.0f} MiB"
        else:
            return
        self._blame(worker, reason, detail)
        worker.abort()
        self._replace(worker)

    def _lost(self, worker: WorkerProcess) -> None:
        """Handle the unexpected death of a worker."""
        ending = worker.ending()
        deaths = 0
        if self._is_working(worker):
            self._blame(worker, FailureReason.WORKER_DIED, ending)
        elif worker.ready:
            log.warning("%s while idle; replaced", ending)
        else:
            deaths = worker.deaths + 1
            log.warning("%s while starting", ending)
        if deaths == 2:
            self._fail(BackendError(f"{ending} while starting, twice in a row{worker.tail()}"))
        else:
            self._replace(worker, deaths)

    def _replace(self, worker: WorkerProcess, deaths: int = 0) -> None:
        worker.connection.close()
        send_signal(worker.process, signal.SIGKILL)
        self._retired.append(worker.process)
        try:
            fresh = WorkerProcess(worker.number, self._log_directory, deaths)
        except OSError as error:
            self._fail(BackendError(f"cannot start another {worker.name}: {error}"))
        else:
            self._workers[self._workers.index(worker)] = fresh


def grace(limits: Limits) -> float:
    """Return the time in s beyond its limit after which a job is treated as hanging."""
    return max(GRACE_SECONDS, GRACE_SHARE * limits.seconds)


def check_capacity(key: str, value: int) -> int:
    """Check and return a number of jobs that run at once."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(key, value, "a whole number from 1")
    return value


def pickle_factory(make_runner: Callable[[], JobRunner]) -> bytes:
    """Return a pickled factory of runners that can be loaded in any process, also for functions of a script."""
    try:
        message: bytes = cloudpickle.dumps(make_runner)
    except Exception as error:
        raise BackendError(f"make_runner cannot be pickled for another process: {message_of(error)}") from error
    return message


def build_error(text: str, pickled: bytes | None) -> HybridCSPError:
    """Return the error of hybridcsp that a worker raised, or a BackendError with its message."""
    error = pickle.loads(pickled) if pickled else None  # noqa: S301 - from a worker that this process has set up
    return error if isinstance(error, HybridCSPError) else BackendError(f"cannot build the calculator: {text}")
