"""Whatever a calculator does to its server: one counted failure, and a fresh worker for the next job."""

import sys
from pathlib import Path

import odd_calculators
import psutil
import pytest
from ase.build import bulk
from faulty import wait_until
from test_worker_faults import is_gone

from hybridcsp.core.outcomes import FailureReason, Relaxed
from hybridcsp.core.records import EVALUATE, Candidate, Job, Limits, Proposal
from hybridcsp.errors import CalculatorError
from hybridcsp.relaxation.backends import ExecutorBackend, WorkerPool
from hybridcsp.relaxation.backends import pool as worker_pool
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.relax import Relaxer

MiB = 2**20


@pytest.fixture(scope="module", autouse=True)
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(odd_calculators.__file__).parent))
        yield


def relaxer(factory="OddCalculator"):
    return Relaxer(calculator=CalculatorChoice(calculator=f"odd_calculators:{factory}", python=sys.executable))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with WorkerPool(relaxer(), workers=1, log_directory=tmp_path_factory.mktemp("logs")) as pool:
        yield pool


def job(behaviour="", identity=1, **limits):
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    atoms.info["behaviour"] = behaviour
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=identity, source="test")
    return Job(candidate=candidate, atoms=atoms, level=EVALUATE, limits=Limits(**limits))


def collect(backend, *jobs):
    outcomes = []
    for one in jobs:
        backend.submit(one)
        outcomes += backend.completed(60)
    return outcomes


def servers():
    """The servers of the workers of this process."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any("server/__main__.py" in word for word in process.cmdline())
    ]


@pytest.mark.parametrize(
    ("behaviour", "reason", "detail"),
    [
        ("division", FailureReason.CALCULATOR, "ZeroDivisionError: no k-points"),
        ("exit", FailureReason.CALCULATOR, "SystemExit: licence server not found"),
        ("interrupt", FailureReason.CALCULATOR, "KeyboardInterrupt: "),
        ("memory", FailureReason.MEMORY_LIMIT, "MemoryError: 4 GiB"),
        ("isolated", FailureReason.ISOLATED_ATOMS, "1 of 4 atoms"),
        ("complex forces", FailureReason.WRONG_RESULTS, "forces are complex numbers"),
        ("undefined energy", FailureReason.NON_FINITE, "energy is not finite"),
        ("os exit", FailureReason.WORKER_DIED, "ended with exit status 3"),
        ("abort", FailureReason.WORKER_DIED, "was killed by SIGABRT"),
        ("kill", FailureReason.WORKER_DIED, "was killed by SIGKILL (perhaps because memory ran out)"),
        ("close", FailureReason.WORKER_DIED, "closed its connection"),
        ("garbage", FailureReason.WORKER_DIED, "sent bytes that are no answer"),
        ("fork and die", FailureReason.WORKER_DIED, "ended with exit status 4"),
    ],
)
def test_broken_job_is_one_failure_and_the_next_job_succeeds(pool, behaviour, reason, detail):
    failed, after = collect(pool, job(behaviour), job(identity=2))
    assert failed.reason is reason
    assert detail in failed.detail
    assert failed.cost.force_calls == 1
    assert isinstance(after, Relaxed)
    assert len(servers()) == 1


@pytest.mark.parametrize("behaviour", ["hang", "program"])
def test_hang_is_killed_at_its_limit_together_with_the_server(pool, monkeypatch, behaviour):
    monkeypatch.setattr(worker_pool, "GRACE_SECONDS", 0.3)
    collect(pool, job())
    (server,) = servers()
    (failed,) = collect(pool, job(behaviour, seconds=0.2))
    assert failed.reason is FailureReason.TIME_LIMIT
    assert wait_until(lambda: is_gone(server.pid), 60)
    running = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert odd_calculators.PROGRAM not in running


def test_memory_of_the_server_counts_as_that_of_its_worker(pool):
    collect(pool, job())
    (server,) = servers()
    (failed,) = collect(pool, job("memory hog", memory=600 * MiB))
    assert failed.reason is FailureReason.MEMORY_LIMIT
    assert wait_until(lambda: is_gone(server.pid), 60)


def test_output_of_the_server_is_in_the_log_of_the_worker(tmp_path):
    with WorkerPool(relaxer(), workers=1, log_directory=tmp_path) as pool:
        collect(pool, job("printing"), job("division"), job("abort"))
        log = (tmp_path / "worker-1.log").read_text()
    assert "not a message" in log
    assert "nor this" in log
    assert "ZeroDivisionError: no k-points" in log
    assert "Fatal Python error: Aborted" in log
    assert wait_until(lambda: not servers(), 60)


@pytest.mark.parametrize(("factory", "words"), [("fail", "no licence found"), ("crash", "was killed by SIGABRT")])
def test_calculator_that_cannot_be_built_there_ends_the_search(factory, words):
    with WorkerPool(relaxer(factory), workers=1) as pool, pytest.raises(CalculatorError, match=words):
        collect(pool, job())


def test_server_ends_with_a_worker_that_is_killed(pool):
    collect(pool, job())
    (server,) = servers()
    server.parent().kill()
    assert wait_until(lambda: is_gone(server.pid), 60)
    assert isinstance(collect(pool, job())[0], Relaxed)


def test_executor_has_a_fresh_server_after_a_lost_one():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor, ExecutorBackend(executor, relaxer(), capacity=1) as backend:
        failed, after = collect(backend, job("os exit"), job(identity=2))
    assert failed.reason is FailureReason.WORKER_DIED
    assert isinstance(after, Relaxed)
