"""The function that the workers of a cluster run for each job.

It keeps the calculator in a process of its own, a :class:`~hybridcsp.relaxation.backends.WorkerPool` of one worker.
A calculator that crashes, hangs or uses too much memory thus ends that process and not the worker of the cluster, and
is the same failure as on one machine.
"""

from __future__ import annotations

import atexit
import contextlib
import pickle
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cloudpickle
from ase import Atoms

from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.errors import HybridCSPError, message_of
from hybridcsp.relaxation.backends.pool import WorkerPool

#: Kinds of answers: an outcome, the labels of the calculators only, that the factory of the runner is not known here
#: and has to be sent along, and that the runner cannot be built.
OUTCOME, LABELS, UNKNOWN, BROKEN = "outcome", "labels", "unknown", "broken"

#: Time in s after which a calculator that no job has used is ended, so that its memory is free.
IDLE_SECONDS = 600.0

# Number of factories that a process remembers, those of the searches that it has worked for last.
_MOST_FACTORIES = 16

#: Candidate of the outcomes on their way back: the search knows the candidate of the job.
NOBODY = Candidate(proposal=Proposal(atoms=Atoms(), operator="none"), id=0, source="none")


@dataclass(frozen=True)
class Answer:
    """Answer of a worker of the cluster to one task.

    Attributes
    ----------
    kind
        One of the kinds of answers.
    payload
        The pickled outcome or error.
    labels
        Labels of the calculators, by their numbers.
    text
        Message of the error.
    """

    kind: str
    payload: bytes = b""
    labels: Sequence[str] = ()
    text: str = ""


@dataclass
class _Kept:
    """A calculator process that waits for the next job of its factory."""

    key: str
    pool: WorkerPool
    since: float = field(default_factory=time.monotonic)


class CalculatorProcesses:
    """The calculator processes of one worker of a cluster, each of which one job uses at a time.

    A process is kept after its job for the next one with the same factory. There is at most one more than the number of
    jobs that have run at once, so that two searches with different calculators can share the worker.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._factories: OrderedDict[str, bytes] = OrderedDict()
        self._kept: list[_Kept] = []
        self._busy = self._most_busy = 0
        self._logs: Path | None = None
        self._number = 0

    def learn(self, key: str, factory: bytes | None) -> bool:
        """Remember a pickled factory, if one is given, and return whether that of the key is known."""
        with self._lock:
            if factory is not None:
                self._factories[key] = factory
                while len(self._factories) > _MOST_FACTORIES:
                    self._factories.popitem(last=False)
            if key in self._factories:
                self._factories.move_to_end(key)
            return key in self._factories

    def take(self, key: str) -> WorkerPool:
        """Return a process with the calculators of a factory, a new one if none waits."""
        surplus: list[_Kept] = []
        with self._lock:
            self._busy += 1
            self._most_busy = max(self._most_busy, self._busy)
            for kept in reversed(self._kept):
                if kept.key == key:
                    self._kept.remove(kept)
                    return kept.pool
            while self._kept and self._busy + len(self._kept) > self._most_busy + 1:
                surplus.append(self._kept.pop(0))
            factory = self._factories[key]
            if self._logs is None:
                self._logs = Path(tempfile.mkdtemp(prefix="hybridcsp-"))
            self._number += 1
            logs = self._logs / str(self._number)
        for kept in surplus:
            kept.pool.close()
        try:
            return WorkerPool(cloudpickle.loads(factory), workers=1, log_directory=logs)
        except BaseException:
            self.give_back(key, None)
            raise

    def give_back(self, key: str, pool: WorkerPool | None) -> None:
        """Keep a process after its job; ``None`` if it was closed."""
        with self._lock:
            self._busy -= 1
            if pool is not None:
                self._kept.append(_Kept(key, pool))
        if pool is not None:
            timer = threading.Timer(IDLE_SECONDS, self.end_idle, [IDLE_SECONDS])
            timer.daemon = True
            timer.start()

    def end_idle(self, seconds: float) -> None:
        """End the processes that have waited for a time in s."""
        with self._lock:
            latest = time.monotonic() - 0.99 * seconds
            idle = [kept for kept in self._kept if kept.since <= latest]
            self._kept = [kept for kept in self._kept if kept.since > latest]
        for kept in idle:
            kept.pool.close()

    def close(self) -> None:
        """End all processes that wait, and remove their logs."""
        self.end_idle(0.0)
        if self._logs is not None:
            shutil.rmtree(self._logs, ignore_errors=True)


_processes = CalculatorProcesses()
atexit.register(_processes.close)


def run_task(key: str, factory: bytes | None, message: bytes | None) -> Answer:
    """Run a job in a calculator process of this worker, and return the answer to the search.

    Parameters
    ----------
    key
        Hash of the pickled factory of the runner.
    factory
        The pickled factory; ``None`` if the worker should know it.
    message
        The pickled job; ``None`` if only the labels of the calculators are wanted.
    """
    if not _processes.learn(key, factory):
        return Answer(UNKNOWN)
    pool: WorkerPool | None = None
    sound = False
    try:
        pool = _processes.take(key)
        labels = pool.labels()
        if message is None:
            answer = Answer(LABELS, labels=labels)
        else:
            job: Job = cloudpickle.loads(message)
            pool.submit(job)
            (outcome,) = pool.completed(None)
            answer = Answer(OUTCOME, cloudpickle.dumps(replace(outcome, candidate=NOBODY)), labels)
        sound = True
    except HybridCSPError as error:  # the calculators cannot be built, or their process dies when it starts
        answer = Answer(BROKEN, _pickled(error), text=str(error))
    except Exception as error:  # noqa: BLE001 - the factory is of other code, whose unpickling may raise anything
        answer = Answer(BROKEN, text=message_of(error))
    finally:
        if pool is not None:
            if not sound:
                pool.close()
            _processes.give_back(key, pool if sound else None)
    return answer


def _pickled(error: HybridCSPError) -> bytes:
    """Return a pickled error; nothing if it cannot be pickled and unpickled."""
    with contextlib.suppress(Exception):
        message: bytes = cloudpickle.dumps(error)
        pickle.loads(message)  # noqa: S301 - made on the line above
        return message
    return b""
