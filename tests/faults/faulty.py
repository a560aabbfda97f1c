"""A runner that does to its worker what calculators do: a job's operator names how it behaves.

Imported by the workers, so nothing heavy here.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ase.build import bulk

from hybridcsp.records import Candidate, Evaluation, Failed, Job, Limits, Proposal, Relaxed
from hybridcsp.relaxation.backends import Backend, JobRunner


def make_job(behaviour: str = "relax", identity: int = 1, limits: Limits | None = None, **tag: object) -> Job:
    atoms = bulk("Cu")
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator=behaviour, tag=tag), id=identity, source="test")
    return Job(candidate=candidate, atoms=atoms, level="evaluate", limits=limits or Limits())


def relaxed(job: Job, **objectives: object) -> Relaxed:
    """A relaxation that says which process did it."""
    evaluation = Evaluation(
        level=job.level, calculator=f"{os.getpid()}", energy=-1.0, enthalpy=-1.0, max_force=0.0, max_stress_residual=0.0
    )
    return Relaxed(
        candidate=job.candidate, atoms=job.atoms, evaluation=evaluation, converged=True, objectives=objectives
    )


def process_of(outcome: Relaxed | Failed) -> int:
    assert isinstance(outcome, Relaxed), outcome.detail
    return int(outcome.evaluation.calculator)


def collect(backend: Backend, count: int, seconds: float = 60.0) -> list[Relaxed | Failed]:
    outcomes: list[Relaxed | Failed] = []
    end = time.monotonic() + seconds
    while len(outcomes) < count:
        assert time.monotonic() < end, f"{len(outcomes)} of {count} outcomes after {seconds} s"
        outcomes += backend.completed(1.0)
    return outcomes


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
    os.closerange(3, 100)
    time.sleep(600)


BEHAVIOURS = {
    "relax": relaxed,
    "slow": lambda job: time.sleep(job.candidate.proposal.tag["seconds"]) or relaxed(job),
    "say": say,
    "raise": raise_error,
    "sys.exit": lambda job: sys.exit("licence server not found"),
    "return a number": lambda job: 42.0,
    "unpicklable": lambda job: relaxed(job, generator=(i for i in ())),
    "unreadable": lambda job: relaxed(job, thing=Unreadable()),
    "os._exit": lambda job: os._exit(3),
    "segfault": lambda job: ctypes.string_at(8),
    "abort": lambda job: os.abort(),
    "kill -9": lambda job: os.kill(os.getpid(), signal.SIGKILL),
    "eat memory": eat_memory,
    "sleep": lambda job: time.sleep(600),
    "busy": lambda job: any(iter(int, 1)),  # an endless loop in C that lets no other thread run
    "start program": start_program,
    "start program and hang": start_program_and_hang,
    "start program and crash": start_program_and_crash,
    "leave group and hang": leave_group_and_hang,
    "close descriptors and hang": close_descriptors_and_hang,
}


def make_runner() -> JobRunner:
    return lambda job: BEHAVIOURS[job.candidate.operator](job)
