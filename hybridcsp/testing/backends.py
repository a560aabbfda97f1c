"""Conformance suite of backends."""

from __future__ import annotations

import time
from collections.abc import Callable

from ase.build import bulk

from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Relaxed
from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.relaxation.backends import Backend, JobRunner
from hybridcsp.testing.requirements import conformance_suite, require

#: Longest wait for an outcome in s.
PATIENCE = 120.0

_RAISE = "raise"


def run_job(job: Job) -> Relaxed | Failed:
    """Return a job's structure with an energy of zero, or raise if the operator of its candidate is "raise"."""
    if job.candidate.operator == _RAISE:
        raise RuntimeError("a calculator that raises")
    evaluation = Evaluation(
        level=job.level, calculator="test 1", energy=0.0, enthalpy=0.0, max_force=0.0, max_stress_residual=0.0
    )
    return Relaxed(candidate=job.candidate, atoms=job.atoms, evaluation=evaluation, converged=True)


def make_runner() -> JobRunner:
    """Return the function that runs the jobs of the suite."""
    return run_job


@conformance_suite
def check_backend(make: Callable[[Callable[[], JobRunner]], Backend], *, jobs: int = 8) -> None:
    """Check that a backend returns exactly one outcome for each job, also if a job raises, and closes twice.

    Parameters
    ----------
    make
        Function that returns a new backend. Its argument is a function without arguments which returns the function
        that runs a job.
    jobs
        Number of jobs; every third one raises.

    Raises
    ------
    AssertionError
        If the backend breaks a rule; the message names it.
    """
    backend = make(make_runner)
    name = type(backend).__name__
    try:
        require(isinstance(backend, Backend), f"{name} must inherit hybridcsp.relaxation.backends.Backend.")
        require(backend.capacity >= 1, f"The capacity of {name} is {backend.capacity}; it must be at least one.")
        start = time.monotonic()
        require(backend.completed(timeout=60.0) == [], f"{name} returned outcomes before any job was submitted.")
        require(time.monotonic() - start < 30, f"{name} waits for outcomes although no job is running.")
        for number in range(1, jobs + 1):
            backend.submit(_job(number, _RAISE if number % 3 == 0 else "relax"))
        outcomes: list[Relaxed | Failed] = []
        while len(outcomes) < jobs and time.monotonic() - start < PATIENCE:
            outcomes += backend.completed(timeout=1.0)
        found = sorted(outcome.candidate.id for outcome in outcomes)
        require(
            found == list(range(1, jobs + 1)),
            f"{name} returned outcomes of the candidates {found}; each of 1 to {jobs} must come back exactly once.",
        )
        for outcome in outcomes:
            raises = outcome.candidate.operator == _RAISE
            require(
                isinstance(outcome, Failed) == raises,
                f"{name} returned {type(outcome).__name__} for candidate {outcome.candidate.id}; an exception must be "
                "a failure, and a result must be kept.",
            )
            if isinstance(outcome, Failed):
                require(
                    outcome.reason is FailureReason.CALCULATOR and "a calculator that raises" in outcome.detail,
                    f"{name} gave the reason {outcome.reason} with {outcome.detail!r} for an exception of the "
                    "calculator; the reason must be CALCULATOR with the message of the exception.",
                )
        require(backend.completed(timeout=0.0) == [], f"{name} returned an outcome twice.")
    finally:
        backend.close()
    backend.close()


def _job(number: int, operator: str) -> Job:
    proposal = Proposal(atoms=bulk("Cu", cubic=True), operator=operator)
    candidate = Candidate(proposal=proposal, id=number, source="test")
    return Job(candidate=candidate, atoms=candidate.atoms)
