"""What runs inside a worker: one job after another, as ``python -m hybridcsp.relaxation.worker``.

The parent, :class:`~hybridcsp.relaxation.backends.WorkerPool`, and the worker talk over a socket, and each message of
the worker is a pair ``(kind, payload)`` that asks for the next thing:

========== ==================================== ==========================================
kind       payload                              the parent answers with
========== ==================================== ==========================================
hello      nothing                              the set-up: how to build the runner
broken     why the runner could not be built    nothing, the pool has failed
ready      nothing                              a job
outcome    the pickled outcome                  the next job
step       force calls, enthalpy per atom       nothing, it goes on with its job
failed     the same, when the runner misbehaved nothing, a fresh worker takes this one's place
========== ==================================== ==========================================

Nothing heavy is imported here: what the calculator needs comes with it.
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

from hybridcsp.core.records import Cost, Failed, FailureReason, Job, Relaxed
from hybridcsp.errors import HybridCSPError, message_of
from hybridcsp.utils.activity import steps
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.process_watch import end_with
from hybridcsp.utils.resources import forbid_core_dumps, prefer_for_oom_kill

JobRunner = Callable[[Job], Relaxed | Failed]

# Past twice its time limit, a worker gives its parent this long to end it.
LAST_RESORT_SECONDS = 60.0
# How far a job is, is told no more often than this.
SECONDS_BETWEEN_STEPS = 1.0


def failed(job: Job, reason: FailureReason, detail: str, seconds: float) -> Failed:
    """Return the outcome of a job that was started and came to nothing."""
    return Failed(candidate=job.candidate, cost=Cost(seconds=seconds), detail=detail, reason=reason, level=job.level)


def run_contained(runner: JobRunner, job: Job) -> tuple[Relaxed | Failed, bool]:
    """Run one job.

    Returns
    -------
    outcome
        What the runner returned; a failure of reason ``CALCULATOR`` where it raised or returned something else.
    sound
        Whether the runner kept its promise, so that it can be trusted with another job.

    Raises
    ------
    KeyboardInterrupt
        If a person interrupts it; one that the calculator raises is a failure like any other exception.
    """
    started = time.monotonic()
    try:
        with exits_contained():
            outcome = runner(job)
    except Exception as error:  # noqa: BLE001 - third-party calculators raise anything
        traceback.print_exc()
        return failed(job, FailureReason.CALCULATOR, message_of(error), time.monotonic() - started), False
    if not isinstance(outcome, Relaxed | Failed):
        detail = f"the runner returned {type(outcome).__name__}, which is not an outcome"
        return failed(job, FailureReason.CALCULATOR, detail, time.monotonic() - started), False
    return outcome, True


def answer(runner: JobRunner, message: bytes, tell: Callable[[int, float], None]) -> tuple[str, bytes]:
    """Run the pickled job in ``message`` and return the message that tells the parent its outcome.

    On the way ``tell`` is called with force calls and enthalpy per atom, about once a second.
    """
    started = time.monotonic()
    job: Job = cloudpickle.loads(message)
    # This clock needs no interpreter: it ends a hang that nobody is left to end, and that blocks the watching thread.
    seconds = 2 * job.limits.seconds + LAST_RESORT_SECONDS
    faulthandler.dump_traceback_later(min(seconds, threading.TIMEOUT_MAX / 2), exit=True)
    with steps(_now_and_then(tell)):
        outcome, sound = run_contained(runner, job)
    faulthandler.cancel_dump_traceback_later()
    try:
        payload = cloudpickle.dumps(outcome)
    except Exception as error:  # noqa: BLE001 - the pickling of third-party objects raises anything
        detail = f"the outcome cannot be sent: {message_of(error)}"
        payload = cloudpickle.dumps(failed(job, FailureReason.CALCULATOR, detail, time.monotonic() - started))
        sound = False
    return ("outcome" if sound else "failed"), payload


def _now_and_then(tell: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """Return a function that passes its arguments on if a second has passed since it last did."""
    told = time.monotonic()

    def pass_on(force_calls: int, enthalpy_per_atom: float) -> None:
        nonlocal told
        if time.monotonic() - told >= SECONDS_BETWEEN_STEPS:
            told = time.monotonic()
            tell(force_calls, enthalpy_per_atom)

    return pass_on


def build_runner(setup: bytes) -> JobRunner:
    """Build the runner that the parent describes, with the parent's ``sys.path`` and ``PYTHONPATH``."""
    sys.path[:], python_path, make_runner = cloudpickle.loads(setup)
    os.environ.pop("PYTHONPATH", None)
    if python_path is not None:  # what the worker itself was started with is not for a calculator's own programs
        os.environ["PYTHONPATH"] = python_path
    runner: JobRunner = cloudpickle.loads(make_runner)()
    return runner


def serve(connection: Connection) -> None:
    """Answer the parent until it closes the connection.

    Raises
    ------
    EOFError, OSError
        When the parent is gone.
    """
    connection.send(("hello", b""))
    setup = connection.recv_bytes()
    try:
        with exits_contained():
            runner = build_runner(setup)
    except Exception as error:  # noqa: BLE001 - third-party calculators raise anything
        traceback.print_exc()
        connection.send(("broken", (message_of(error), _pickled(error) if isinstance(error, HybridCSPError) else None)))
        return

    def tell(force_calls: int, enthalpy_per_atom: float) -> None:
        connection.send(("step", (force_calls, enthalpy_per_atom)))

    kind, payload = "ready", b""
    while kind != "failed":
        connection.send((kind, payload))
        kind, payload = answer(runner, connection.recv_bytes(), tell)
    connection.send((kind, payload))


def main(descriptor: int, parent: int, death_signal: int) -> None:
    """Run a worker.

    Parameters
    ----------
    descriptor
        File descriptor of the socket to the parent.
    parent
        The parent's process id.
    death_signal
        Signal to get when the thread that started this worker ends, on Linux; 0 for none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to decide about
    os.set_inheritable(descriptor, False)  # or a program that a calculator starts would keep the socket open
    faulthandler.enable()  # the stack goes to the log at a crash, and at the SIGABRT of a parent that loses patience
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    forbid_core_dumps()  # a segmentation fault is one failed job, not a file per job
    prefer_for_oom_kill()  # where memory runs out, the kernel had better take a worker than the search
    end_with(parent, death_signal)
    with contextlib.suppress(EOFError, OSError):
        serve(Connection(descriptor))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that a calculator left behind must not keep the process


def _pickled(error: HybridCSPError) -> bytes | None:
    """Return the error as bytes that can be read again, or ``None`` where it does not survive that."""
    try:
        message: bytes = cloudpickle.dumps(error)
        pickle.loads(message)  # noqa: S301 - made on the line above
    except Exception:  # noqa: BLE001 - an error of more than one argument fails in its own way
        return None
    return message


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
