"""A runner that does to its worker what calculators do: a job's operator names how it behaves, its tag with what.

Imported by the workers, so nothing heavy here.
"""

import asyncio
import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cloudpickle
from ase.build import bulk

from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Relaxed
from hybridcsp.core.records import Candidate, Cost, Job, Limits, Proposal
from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends import JobRunner
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.runner import Batch, LabelledRunner
from hybridcsp.relaxation.worker import run_contained

#: Limits that no job of a test reaches, even if the machine is suspended meanwhile and its clocks go on.
NO_LIMITS = Limits(seconds=86400.0)


def make_job(behaviour: str = "relax", identity: int = 1, limits: Limits | None = None, **tag: object) -> Job:
    """A job; the tags ``touch`` (a file), ``until`` (a file) and ``seconds`` go before any behaviour."""
    atoms = bulk("Cu")
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator=behaviour, tag=tag), id=identity, source="test")
    return Job(candidate=candidate, atoms=atoms, level="evaluate", limits=limits or NO_LIMITS)


def relaxed(job: Job, **values: object) -> Relaxed:
    """A relaxation whose detail says where it was done, and other values, as JSON."""
    evaluation = Evaluation(
        level=job.level, calculator="test", energy=-2.5, enthalpy=-2.0, max_force=0.01, max_stress_residual=None
    )
    where = {"process": os.getpid(), "thread": threading.get_ident()}
    return Relaxed(
        candidate=job.candidate,
        cost=Cost(force_calls=7, seconds=0.5),
        atoms=job.atoms,
        evaluation=evaluation,
        converged=True,
        detail=json.dumps({**where, **values}),
    )


def carrying(outcome: Relaxed, thing: object) -> Relaxed:
    """Put an object into the structure of a relaxation, so that it is sent along with it."""
    atoms = outcome.atoms.copy()
    atoms.info["thing"] = thing
    return replace(outcome, atoms=atoms)


def values_of(outcome: Relaxed | Failed) -> dict[str, int]:
    assert isinstance(outcome, Relaxed), outcome.detail
    return json.loads(outcome.detail)


def process_of(outcome: Relaxed | Failed) -> int:
    return values_of(outcome)["process"]


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition; return whether it is met.

    Pauses are counted instead of seconds: a machine that was suspended, or has no time for this process, does not use
    up the time.
    """
    pause = 0.02
    for _ in range(round(seconds / pause)):
        if condition():
            return True
        time.sleep(pause)
    return bool(condition())


def wait_for(file: Path) -> None:
    assert wait_until(file.exists, 60), f"no {file}"


@contextmanager
def sent_by_value() -> Iterator[None]:
    """Send this module by value, for workers that cannot import it; other tests of the process send it by name."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def collect(backend: Backend, count: int, patience: int = 60) -> list[Relaxed | Failed]:
    """Return the next outcomes; fail after so many seconds in which none came, of which a suspension is one."""
    outcomes: list[Relaxed | Failed] = []
    idle = 0
    while len(outcomes) < count:
        new = backend.completed(1.0)
        idle = 0 if new else idle + 1
        assert idle < patience, f"{len(outcomes)} of {count} outcomes"
        outcomes += new
    return outcomes


class MuteError(Exception):
    """Can be neither shown nor sent to another process."""

    def __init__(self, first, second):
        super().__init__(first)

    def __str__(self):
        raise RuntimeError("no message")

    __repr__ = __str__


def raising(make_error):
    def do(job: Job) -> None:
        raise make_error()

    return do


def recurse(job: Job) -> None:
    recurse(job)


class Unreadable:
    def __reduce__(self):
        return int, ("not a number",)


def say(job: Job) -> Relaxed:
    sys.stdout.write("from Python\n")
    os.write(1, b"from the descriptor\n")
    os.system("echo from a program >&2")
    return relaxed(job)


def start_program(job: Job) -> Relaxed:
    """Leave a program running, and tell its process id through a file."""
    program = subprocess.Popen(["sleep", "600"])
    Path(job.candidate.proposal.tag["pid_file"]).write_text(str(program.pid))
    return relaxed(job)


def start_program_and_hang(job: Job) -> None:
    start_program(job)
    time.sleep(600)


def start_program_and_crash(job: Job) -> None:
    start_program(job)
    ctypes.string_at(8)


def stay_busy(job: Job) -> None:
    any(iter(int, 1))  # an endless loop in C that lets no other thread run


def start_program_and_stay_busy(job: Job) -> None:
    start_program(job)
    stay_busy(job)


def leave_group_and_hang(job: Job) -> None:
    os.setpgid(0, os.getpgid(os.getppid()))
    time.sleep(600)


def eat_memory(job: Job) -> None:
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1)) * (8 * 2**20))
        time.sleep(0.01)


def raise_error(job: Job) -> None:
    raise ZeroDivisionError("no k-points")


def close_descriptors_and_hang(job: Job) -> None:
    os.closerange(3, 4096)
    time.sleep(600)


BEHAVIOURS = {
    "relax": relaxed,
    "fail": lambda job: Failed(
        candidate=job.candidate, reason=FailureReason.OVERLAP, level=job.level, cost=Cost(force_calls=3)
    ),
    "say": say,
    "raise": raise_error,
    "keyboard_interrupt": raising(KeyboardInterrupt),
    "generator_exit": raising(GeneratorExit),
    "cancelled": raising(asyncio.CancelledError),
    "memory_error": raising(MemoryError),
    "recursion": recurse,
    "mute": raising(lambda: MuteError(1, 2)),
    "sys_exit": lambda job: sys.exit("licence server not found"),
    "return_a_number": lambda job: 42.0,
    "unpicklable": lambda job: carrying(relaxed(job), (i for i in ())),
    "unreadable": lambda job: carrying(relaxed(job), Unreadable()),
    "os_exit": lambda job: os._exit(3),
    "segfault": lambda job: ctypes.string_at(8),
    "abort": lambda job: os.abort(),
    "kill9": lambda job: os.kill(os.getpid(), signal.SIGKILL),
    "eat_memory": eat_memory,
    "sleep": lambda job: time.sleep(600),
    "busy": stay_busy,
    "start_program_and_stay_busy": start_program_and_stay_busy,
    "start_program": start_program,
    "start_program_and_hang": start_program_and_hang,
    "start_program_and_crash": start_program_and_crash,
    "leave_group_and_hang": leave_group_and_hang,
    "close_descriptors_and_hang": close_descriptors_and_hang,
}


def make_runner() -> JobRunner:
    counter = itertools.count(1)

    def run(job: Job) -> Relaxed | Failed:
        number, tag = next(counter), job.candidate.proposal.tag
        if "touch" in tag:
            Path(tag["touch"]).touch()
        if "until" in tag:
            wait_for(Path(tag["until"]))
        time.sleep(tag.get("seconds", 0.0))
        if job.candidate.operator == "count":
            return relaxed(job, count=number)
        return BEHAVIOURS[job.candidate.operator](job)

    return run


def make_labelled() -> JobRunner:
    return LabelledRunner(make_runner(), ("emt 1",))


MEETING = threading.Barrier(2, timeout=60.0)
BUILT_IN: list[int] = []


def make_meeting_runner() -> JobRunner:
    """Of two threads, so that each gets jobs."""
    BUILT_IN.append(threading.get_ident())
    run = make_runner()

    def meet(job: Job) -> Relaxed | Failed:
        MEETING.wait()
        return run(job)

    return meet


def refuse() -> JobRunner:
    raise RuntimeError("no such device")


def refuse_politely() -> JobRunner:
    raise InputError("calculator", "mace:x.pt", "a file that exists")


class FaultyBatch(Batch):
    """Jobs whose behaviours come one after the other in each step; ``steps`` in the tag of a job delays its own."""

    labels = ("test",)

    def __init__(self) -> None:
        self._run, self._jobs, self._left = make_runner(), {}, {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, number: int, job: Job) -> None:
        self._jobs[number], self._left[number] = job, job.candidate.proposal.tag.get("steps", 0)

    def advance(self) -> list[tuple[int, Relaxed | Failed, bool]]:
        due = [number for number in self._jobs if not self._left[number]]
        self._left = {number: max(0, left - 1) for number, left in self._left.items()}
        return [(number, *run_contained(self._run, self._jobs.pop(number))) for number in due]

    def steps(self) -> dict[int, tuple[int, float]]:
        return dict.fromkeys(self._jobs, (3, -1.5))
