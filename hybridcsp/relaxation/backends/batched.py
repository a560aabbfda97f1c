"""Process pool in which each worker relaxes several structures at the same time."""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Job, Limits
from hybridcsp.relaxation.backends.base import Backend, RunningJob
from hybridcsp.relaxation.backends.pool import WorkerPool, check_capacity
from hybridcsp.relaxation.backends.worker_process import WorkerProcess
from hybridcsp.relaxation.runner import Batch
from hybridcsp.relaxation.worker import failed

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class _Place:
    """A job that belongs to a worker.

    Attributes
    ----------
    number
        Number of the job in the messages to the worker.
    job, message
        The job and its pickled form.
    sent
        Whether the worker has it.
    alone
        Whether no other job may run beside it, because it was running when the worker died.
    since
        When it was sent.
    step
        Last reported force calls and enthalpy per atom.
    """

    number: int
    job: Job
    message: bytes
    sent: bool = False
    alone: bool = False
    since: float = 0.0
    step: tuple[int, float] | None = None


class BatchedPool(WorkerPool):
    """Pool of processes, each of which relaxes a batch of jobs at the same time.

    It survives the failures that :class:`WorkerPool` survives. When a worker dies, hangs or uses too much memory, the
    job that is the reason cannot be told from the others of its batch: each of them is repeated alone, and only those
    that fail again have failed.

    After each step in which jobs have ended, a worker waits until the pool is full again or :meth:`completed` is
    called. With one worker, therefore, the jobs of each step, and all results, depend on the order of the calls only.

    Parameters
    ----------
    make_batch
        Function that builds the calculator and returns an empty batch; it is called once in each worker.
    workers
        Number of processes.
    size
        Largest number of jobs that one worker has at the same time.
    log_directory, start_timeout
        As of :class:`WorkerPool`.

    Raises
    ------
    InputError
        If ``workers`` or ``size`` is less than 1.
    BackendError
        If ``make_batch`` cannot be pickled or a process cannot be started.
    """

    def __init__(
        self,
        make_batch: Callable[[], Batch],
        *,
        workers: int,
        size: int,
        log_directory: Path | None = None,
        start_timeout: float = 300.0,
    ) -> None:
        self._size = check_capacity("batch", size)
        self._places: dict[int, list[_Place]] = {}  # by the number of the worker
        self._pausing: set[int] = set()
        self._number = 0
        self._returning = False  # whether the caller waits in completed()
        make: Any = make_batch  # the worker runs it in place of a runner
        super().__init__(make, workers=workers, log_directory=log_directory, start_timeout=start_timeout)
        self.capacity = workers * self._size

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Wait for at least one outcome and return all that have arrived; see :meth:`WorkerPool.completed`.

        Outcomes of one step of a worker are in the order in which the jobs were submitted.
        """
        self._returning = True
        try:
            for worker in list(self._workers):
                self._dispatch(worker)
            return super().completed(timeout)
        finally:
            self._returning = False

    def running(self) -> list[RunningJob]:
        """Return the jobs in progress."""
        now = time.monotonic()
        return [
            RunningJob.of(place.job, now - place.since, *(place.step or (None, None)))
            for places in self._places.values()
            for place in places
            if place.sent
        ]

    def _places_of(self, worker: WorkerProcess) -> list[_Place]:
        return self._places.setdefault(worker.number, [])

    def _has_jobs(self) -> bool:
        return bool(self._waiting) or any(self._places.values())

    def _is_working(self, worker: WorkerProcess) -> bool:
        return any(place.sent for place in self._places_of(worker))

    def _handle(self, worker: WorkerProcess, kind: str, payload: Any) -> None:
        worker.since = time.monotonic()  # it does not hang
        match kind:
            case "ready" | "pause":
                self._pausing.add(worker.number)
                if kind == "ready":
                    super()._handle(worker, kind, payload)
            case "step":
                for place in self._places_of(worker):
                    place.step = payload.get(place.number)
            case "outcome" | "failed":
                number, message = payload
                (place,) = (one for one in self._places_of(worker) if one.number == number)
                self._places_of(worker).remove(place)
                sound = self._accept(place.job, message, time.monotonic() - place.since)
                if not sound or kind == "failed":
                    self._replace(worker)
            case _:
                super()._handle(worker, kind, payload)

    def _dispatch(self, worker: WorkerProcess) -> None:
        """Let a worker that pauses go on, with its share of the jobs that wait."""
        held = sum(map(len, self._places.values())) + len(self._waiting)
        asked = self._returning and not self._done
        if worker.number not in self._pausing or not (asked or held >= self.capacity):
            return
        places = self._places_of(worker)
        share = min(self._size, math.ceil(held / len(self._workers)))
        while self._waiting and len(places) < share:
            self._number += 1
            job, message = self._waiting.popleft()
            places.append(_Place(number=self._number, job=job, message=message))
        has_jobs = any(place.sent for place in places)
        alone = [place for place in places if place.alone]
        due = alone[: not has_jobs] if alone else [place for place in places if not place.sent]
        if not due and not has_jobs:
            return
        for place in due:
            place.sent, place.since = True, time.monotonic()
        self._pausing.remove(worker.number)
        worker.since = time.monotonic()
        if not worker.send(pickle.dumps([(place.number, place.message) for place in due])):
            for place in due:  # it died while it paused, so that these were not started
                place.sent = False
            self._lost(worker)

    def _limits_of(self, worker: WorkerProcess) -> Limits:
        """Return the largest limits of the jobs of a worker; its time is that since its last message."""
        limits = [place.job.limits for place in self._places_of(worker) if place.sent]
        return Limits(
            seconds=max(one.seconds for one in limits),
            memory=max(one.memory for one in limits),
        )

    def _enforce_limits(self, worker: WorkerProcess, limits: Limits) -> None:
        if worker.number not in self._pausing:  # it waits for the search
            super()._enforce_limits(worker, limits)

    def _blame(self, worker: WorkerProcess, reason: FailureReason, detail: str) -> None:
        """Let the only job of a worker fail; of several, repeat each alone."""
        places = self._places_of(worker)
        running = [place for place in places if place.sent]
        if len(running) == 1:
            (place,) = running
            places.remove(place)
            self._done.append(failed(place.job, reason, detail, time.monotonic() - place.since))
            return
        for place in running:
            place.alone = True
        if running:
            log.info("%s with %d relaxations, which are repeated one at a time", detail, len(running))

    def _replace(self, worker: WorkerProcess, deaths: int = 0) -> None:
        self._pausing.discard(worker.number)
        for place in self._places_of(worker):
            place.sent, place.step = False, None
        super()._replace(worker, deaths)


class GenerationBackend(Backend):
    """Backend that hands over outcomes when all jobs have ended, in the order in which they were submitted.

    A search of which the jobs run at the same time in one worker is repeatable only in this way: if it is interrupted,
    all jobs of its generation are submitted again, none of them having ended.

    Parameters
    ----------
    backend
        The backend that runs the jobs; it is closed with this one.
    """

    def __init__(self, backend: Backend) -> None:
        self.capacity = backend.capacity
        self._backend = backend
        self._jobs: list[Job] = []
        self._ended: list[Relaxed | Failed] = []

    def submit(self, job: Job) -> None:
        """Pass a job on."""
        self._backend.submit(job)
        self._jobs.append(job)

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Wait until all jobs have ended and return their outcomes; after the timeout, return none."""
        end = None if timeout is None else time.monotonic() + timeout
        while len(self._ended) < len(self._jobs):
            found = self._backend.completed(None if end is None else max(0.0, end - time.monotonic()))
            self._ended += found
            if not found:
                return []
        order = {id(job.candidate): number for number, job in reversed(list(enumerate(self._jobs)))}
        outcomes = sorted(self._ended, key=lambda outcome: order[id(outcome.candidate)])
        self._jobs, self._ended = [], []
        return outcomes

    def running(self) -> list[RunningJob]:
        """Return the jobs in progress."""
        return self._backend.running()

    @property
    def starting(self) -> int:
        """Number of workers that are still building their calculators."""
        return self._backend.starting

    def labels(self) -> Sequence[str]:
        """Return the labels of the calculators."""
        return self._backend.labels()

    def close(self) -> None:
        """Close the other backend; outcomes that were not handed over are dropped."""
        self._backend.close()
