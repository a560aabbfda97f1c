"""Backend that runs jobs on any :class:`concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from typing import Any

import cloudpickle

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Job
from hybridcsp.errors import BackendError, CalculatorError, ExitRaisedError, HybridCSPError, message_of
from hybridcsp.relaxation.backends.base import Backend, RunningJob
from hybridcsp.relaxation.backends.pool import check_capacity, pickle_factory
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.relaxation.worker import failed, run_contained
from hybridcsp.utils.interrupts import exits_contained

# Time in s after which a signal of the terminal has reached all processes of its group.
_SIGNAL_SECONDS = 0.2


class ExecutorBackend(Backend):
    """Backend that runs jobs on an executor: threads, processes, or Dask's ``client.get_executor()``.

    The runner is built once in each thread that runs jobs, since ASE's calculators are not thread-safe; each thread
    keeps the runner that it used last. Inside the task, an exception is a failure of reason ``CALCULATOR``, and the
    runner checks the limits of the job at each force call; a late outcome is accepted. Hanging jobs, memory and the
    output of calculators are the responsibility of the executor. An error that the executor reports for one job (an
    outcome that cannot be pickled, a lost worker of a cluster) is a failure of reason ``WORKER_DIED``. If the executor
    breaks as a whole, the search ends and can be resumed.

    The executor belongs to the caller: closing the backend cancels the jobs that have not started and ignores the
    outcomes of those that run, but does not shut the executor down.

    Parameters
    ----------
    executor
        The executor.
    make_runner
        Function that builds the calculator and returns the runner; it is pickled and sent with each job.
    capacity
        Number of jobs that the executor runs at once.

    Raises
    ------
    InputError
        If ``capacity`` is less than 1.
    BackendError
        If ``make_runner`` cannot be pickled.
    """

    def __init__(self, executor: Executor, make_runner: Callable[[], JobRunner], *, capacity: int) -> None:
        self._capacity = check_capacity("capacity", capacity)
        self._executor = executor
        self._make_runner = pickle_factory(make_runner)
        self._jobs: dict[Future[Any], tuple[Job, float]] = {}
        self._finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._error: HybridCSPError | None = None

    @property
    def capacity(self) -> int:  # type: ignore[override]  # of a cluster, it changes
        """Number of jobs that the executor runs at once."""
        return self._capacity

    def submit(self, job: Job) -> None:
        """Submit a job to the executor.

        Raises
        ------
        BackendError
            If the backend is closed, or the executor accepts no more jobs.
        """
        if self._error is not None:
            raise self._error
        self._start(job, time.monotonic(), self._task(job))

    def _task(self, job: Job) -> tuple[Any, ...]:
        """Return the function that runs a job inside the executor, and its arguments."""
        return _run_in_executor, self._make_runner, job

    def _start(self, job: Job, submitted: float, task: tuple[Any, ...]) -> None:
        try:
            future = self._executor.submit(*task)
        except RuntimeError as error:  # broken, or shut down
            raise _broken(error) from error
        self._jobs[future] = (job, submitted)
        future.add_done_callback(self._finished.put)

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Wait for at least one outcome and return all that have arrived, in the order of completion.

        Parameters
        ----------
        timeout
            Longest time to wait in s; ``None`` to wait without a limit.

        Returns
        -------
        list of Relaxed or Failed
            Empty after the timeout, and immediately if no job is running.

        Raises
        ------
        CalculatorError
            If the runner cannot be built in the executor.
        BackendError
            If the executor is broken, its jobs were cancelled, or the backend is closed.
        """
        done: list[Relaxed | Failed] = []
        if self._error is not None:
            raise self._error
        end = math.inf if timeout is None else time.monotonic() + timeout
        with contextlib.suppress(queue.Empty):
            while self._jobs and self._error is None:
                remaining = None if timeout is None else max(0.0, end - time.monotonic())
                future = self._finished.get(block=not done, timeout=remaining)
                job, submitted = self._jobs.pop(future)
                try:
                    outcome = self._ended(job, future, submitted)
                except HybridCSPError as error:
                    self._error = error
                else:
                    done += [] if outcome is None else [outcome]
        if self._error is not None and not done:
            raise self._error
        return done

    def running(self) -> list[RunningJob]:
        """Return the jobs that the executor has not finished; their progress is not known."""
        now = time.monotonic()
        return [RunningJob.of(job, now - since) for future, (job, since) in self._jobs.items() if not future.done()]

    def close(self) -> None:
        """Cancel the jobs that have not started; the executor is not shut down."""
        if self._error is None:
            self._error = BackendError("this backend is closed")
        for future in self._jobs:
            with contextlib.suppress(NotImplementedError):  # Parsl cannot cancel what it has accepted
                future.cancel()
        self._jobs.clear()

    def _ended(self, job: Job, future: Future[Any], submitted: float) -> Relaxed | Failed | None:
        """Return the outcome of a job whose future has ended; ``None`` if the job was submitted again."""
        try:
            with exits_contained():
                result = future.result()
        except HybridCSPError:  # of the building of the runner
            raise
        except (BrokenExecutor, CancelledError) as error:
            raise _broken(error) from error
        except Exception as error:  # noqa: BLE001 - each kind of executor raises its own errors for a lost job
            if isinstance(error, ExitRaisedError):
                time.sleep(_SIGNAL_SECONDS)  # Ctrl-C may reach the executor's processes before this one
            return self._lost(job, error, submitted)
        return self._outcome(job, result, submitted)

    def _outcome(self, job: Job, result: Any, submitted: float) -> Relaxed | Failed | None:
        """Return the outcome that a task has returned."""
        outcome: Relaxed | Failed = replace(result, candidate=job.candidate)
        return outcome

    def _lost(self, job: Job, error: Exception, submitted: float) -> Relaxed | Failed | None:
        """Return the outcome of a job for which the executor has reported an error."""
        detail = f"the executor returned no outcome: {message_of(error)}"
        return failed(job, FailureReason.WORKER_DIED, detail, time.monotonic() - submitted)


_this_thread = threading.local()


def _run_in_executor(make_runner: bytes, job: Job) -> Relaxed | Failed:
    """Run a job inside the executor, with the runner of this thread."""
    if getattr(_this_thread, "built_from", None) != make_runner:
        try:
            with exits_contained():
                _this_thread.runner = cloudpickle.loads(make_runner)()
        except Exception as error:  # noqa: BLE001 - third-party calculators raise anything
            # A new error with one argument: an error that cannot be unpickled would break a process pool.
            raise CalculatorError(_explain(error)) from None
        _this_thread.built_from = make_runner
    outcome, sound = run_contained(_this_thread.runner, job)
    if not sound:
        _this_thread.built_from = None  # the next job builds another runner
    return outcome


def _explain(error: BaseException) -> str:
    return str(error) if isinstance(error, HybridCSPError) else f"cannot build the calculator: {message_of(error)}"


def _broken(error: BaseException) -> BackendError:
    return BackendError(f"the executor broke ({message_of(error)}); the run directory can be resumed")
