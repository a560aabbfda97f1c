"""The main program of a worker process, ``python -m hybridcsp.relaxation.worker``, which runs jobs.

Jobs run in succession, or several at the same time if the runner is a :class:`~hybridcsp.relaxation.runner.Batch`.

The worker and its parent, :class:`~hybridcsp.relaxation.backends.WorkerPool`, communicate over a socket. Each message
of the worker is a pair ``(kind, payload)``:

========== ==================================== ==========================================
kind       payload                              answer of the parent
========== ==================================== ==========================================
hello      empty                                the set-up from which the runner is built
broken     reason why the runner is not built   none; the pool fails
ready      labels of the calculators            a job
outcome    the pickled outcome                  the next job
step       force calls, enthalpy per atom       none; the job continues
servers    process ids of calculator servers    none; their memory counts as that of the worker
failed     the pickled outcome of a runner that none; a new worker replaces this one
           has raised, returned no outcome, or
           lost its calculator server
========== ==================================== ==========================================

If the runner is a :class:`~hybridcsp.relaxation.runner.Batch`, jobs have numbers. The parent sends lists of pairs of a
number and a job, which may be empty. The payloads of outcomes and failures are pairs of a number and the pickled
outcome, and that of a step is a dictionary by numbers. When jobs have ended, the batch waits: the worker sends
``pause`` after their outcomes, and goes on after the next list.

This module imports no heavy package; the calculator imports what it needs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import cloudpickle

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Cost, Job
from hybridcsp.errors import HybridCSPError, message_of
from hybridcsp.relaxation.runner import Batch, JobRunner, LabelledRunner
from hybridcsp.utils.activity import servers, steps
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.process_watch import end_with
from hybridcsp.utils.resources import forbid_core_dumps, prefer_for_oom_kill

# Time in s beyond twice the time limit of a job after which the worker ends itself, if its parent has not ended it.
LAST_RESORT_SECONDS = 60.0
# Shortest time in s between two reports of progress.
SECONDS_BETWEEN_STEPS = 1.0


def failed(job: Job, reason: FailureReason, detail: str, seconds: float) -> Failed:
    """Return the outcome of a job that has failed."""
    return Failed(candidate=job.candidate, cost=Cost(seconds=seconds), detail=detail, reason=reason, level=job.level)


def run_contained(runner: JobRunner, job: Job) -> tuple[Relaxed | Failed, bool]:
    """Run one job and convert every error of the runner into an outcome.

    Returns
    -------
    outcome
        The outcome from the runner; a failure of reason ``CALCULATOR`` if the runner raised or returned something else.
    sound
        Whether the runner returned an outcome and has not lost a calculator server, so that it may run another job.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts the job; one that the calculator raises is a failure like any other exception.
    """
    started = time.monotonic()
    try:
        with exits_contained():
            outcome = runner(job)
    except Exception as error:  # noqa: BLE001 - third-party calculators raise anything
        traceback.print_exc()
        return failed(job, FailureReason.CALCULATOR, message_of(error), time.monotonic() - started), False
    if not isinstance(outcome, Relaxed | Failed):
        detail = f"the runner returned {type(outcome).__name__}, which is not an outcome (Relaxed or Failed)"
        return failed(job, FailureReason.CALCULATOR, detail, time.monotonic() - started), False
    lost = isinstance(outcome, Failed) and outcome.reason is FailureReason.WORKER_DIED
    return outcome, not lost


def answer(runner: JobRunner, message: bytes, report: Callable[[int, float], None]) -> tuple[str, bytes]:
    """Run the pickled job in ``message`` and return the kind and payload of the message to the parent.

    During the job ``report`` is called about once a second, with the force calls and the enthalpy per atom (eV).
    """
    started = time.monotonic()
    job: Job = cloudpickle.loads(message)
    # This timer works without the interpreter: it ends a hang that blocks all threads when no parent is left to end it.
    seconds = 2 * job.limits.seconds + LAST_RESORT_SECONDS
    faulthandler.dump_traceback_later(min(seconds, threading.TIMEOUT_MAX / 2), exit=True)
    with steps(_throttled(report)):
        outcome, sound = run_contained(runner, job)
    faulthandler.cancel_dump_traceback_later()
    return _message(job, outcome, time.monotonic() - started, sound=sound)


def _message(job: Job, outcome: Relaxed | Failed, seconds: float, *, sound: bool) -> tuple[str, bytes]:
    """Return the kind and payload of the message with an outcome."""
    try:
        payload = cloudpickle.dumps(outcome)
    except Exception as error:  # noqa: BLE001 - the pickling of third-party objects raises anything
        detail = f"the outcome cannot be sent: {message_of(error)}"
        payload = cloudpickle.dumps(failed(job, FailureReason.CALCULATOR, detail, seconds))
        sound = False
    return ("outcome" if sound else "failed"), payload


def _throttled(report: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """Return a function that calls ``report`` only if a second has passed since its last call."""
    last = time.monotonic()

    def pass_on(force_calls: int, enthalpy_per_atom: float) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_STEPS:
            last = time.monotonic()
            report(force_calls, enthalpy_per_atom)

    return pass_on


def build_runner(setup: bytes) -> JobRunner | Batch:
    """Build the runner from the set-up of the parent, with the parent's ``sys.path`` and ``PYTHONPATH``."""
    sys.path[:], python_path, make_runner = cloudpickle.loads(setup)
    os.environ.pop("PYTHONPATH", None)
    if python_path is not None:  # programs of a calculator get the value of the parent, not that of the worker
        os.environ["PYTHONPATH"] = python_path
    runner: JobRunner | Batch = cloudpickle.loads(make_runner)()
    return runner


def serve(connection: Connection) -> None:
    """Run the jobs of the parent until it closes the connection.

    Raises
    ------
    EOFError, OSError
        If the parent has ended.
    """
    connection.send(("hello", b""))
    setup = connection.recv_bytes()
    with servers(lambda processes: connection.send(("servers", processes))):
        _serve(connection, setup)


def _serve(connection: Connection, setup: bytes) -> None:
    try:
        with exits_contained():
            runner = build_runner(setup)
    except Exception as error:  # noqa: BLE001 - third-party calculators raise anything
        traceback.print_exc()
        connection.send(("broken", (message_of(error), _pickled(error) if isinstance(error, HybridCSPError) else None)))
        return

    if isinstance(runner, Batch):
        connection.send(("ready", runner.labels))
        _serve_batch(connection, runner)
        return

    def report(force_calls: int, enthalpy_per_atom: float) -> None:
        connection.send(("step", (force_calls, enthalpy_per_atom)))

    connection.send(("ready", runner.labels if isinstance(runner, LabelledRunner) else ()))
    kind, payload = answer(runner, connection.recv_bytes(), report)
    while kind != "failed":
        connection.send((kind, payload))
        kind, payload = answer(runner, connection.recv_bytes(), report)
    connection.send((kind, payload))


def _serve_batch(connection: Connection, batch: Batch) -> None:
    """Run jobs at the same time, until one of them has damaged the batch."""
    jobs: dict[int, Job] = {}
    sound, reported = True, time.monotonic()
    while sound:
        for number, message in pickle.loads(connection.recv_bytes()):  # noqa: S301 - from the parent
            jobs[number] = cloudpickle.loads(message)
            batch.add(number, jobs[number])
        ended: list[tuple[int, Relaxed | Failed, bool]] = []
        while len(batch) and not ended:
            # Each step is watched like a whole job that is alone, see answer().
            seconds = 2 * max(job.limits.seconds for job in jobs.values()) + LAST_RESORT_SECONDS
            faulthandler.dump_traceback_later(min(seconds, threading.TIMEOUT_MAX / 2), exit=True)
            ended = batch.advance()
            if time.monotonic() - reported >= SECONDS_BETWEEN_STEPS:
                reported = time.monotonic()
                connection.send(("step", batch.steps()))
        faulthandler.cancel_dump_traceback_later()
        messages = []
        for number, outcome, is_sound in ended:
            job = jobs.pop(number)
            messages.append((number, *_message(job, outcome, outcome.cost.seconds, sound=is_sound)))
        # What follows a failure is not read.
        for number, kind, payload in sorted(messages, key=lambda message: message[1] == "failed"):
            connection.send((kind, (number, payload)))
            sound &= kind == "outcome"
        if sound:
            connection.send(("pause", None))


def main(descriptor: int, parent: int, death_signal: int) -> None:
    """Run a worker.

    Parameters
    ----------
    descriptor
        File descriptor of the socket to the parent.
    parent
        Process id of the parent.
    death_signal
        Signal that the kernel sends, on Linux, when the thread that started this worker ends; 0 for none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.set_inheritable(descriptor, False)  # so that programs of a calculator do not keep the socket open
    faulthandler.enable()  # writes the stack to the log on a crash, and on the SIGABRT of the parent
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    forbid_core_dumps()  # a segmentation fault must not write a file for each job
    prefer_for_oom_kill()  # if memory runs out, the kernel should kill a worker and not the search
    end_with(parent, death_signal)
    with contextlib.suppress(EOFError, OSError):
        serve(Connection(descriptor))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread of a calculator must not keep the process alive


def _pickled(error: HybridCSPError) -> bytes | None:
    """Return a pickled error, or ``None`` if it cannot be pickled and unpickled."""
    try:
        message: bytes = cloudpickle.dumps(error)
        pickle.loads(message)  # noqa: S301 - made on the line above
    except Exception:  # noqa: BLE001 - an error of more than one argument fails in its own way
        return None
    return message


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
