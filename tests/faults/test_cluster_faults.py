"""Whatever a calculator does to a worker of a cluster: the same failures as in a pool, and the cluster goes on."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import faulty
import psutil
import pytest
from faulty import collect, make_job, make_runner, process_of

from hybridcsp.core.outcomes import FailureReason, Relaxed
from hybridcsp.core.records import Limits
from hybridcsp.relaxation.backends.executors.registry import open_backend

pytestmark = pytest.mark.slow

FAULTS = {
    "raise": (FailureReason.CALCULATOR, "ZeroDivisionError: no k-points"),
    "sys_exit": (FailureReason.CALCULATOR, "SystemExit: licence server not found"),
    "keyboard_interrupt": (FailureReason.CALCULATOR, "KeyboardInterrupt: "),
    "return_a_number": (FailureReason.CALCULATOR, "the runner returned float, which is not an outcome"),
    "unpicklable": (FailureReason.CALCULATOR, "the outcome cannot be sent: TypeError: cannot pickle 'generator'"),
    "unreadable": (FailureReason.CALCULATOR, "the outcome cannot be read: ValueError"),
    "os_exit": (FailureReason.WORKER_DIED, "worker 1 ended with exit status 3"),
    "segfault": (FailureReason.WORKER_DIED, "worker 1 was killed by SIGSEGV"),
    "kill9": (FailureReason.WORKER_DIED, "worker 1 was killed by SIGKILL"),
    "sleep": (FailureReason.TIME_LIMIT, "killed after "),
    "eat_memory": (FailureReason.MEMORY_LIMIT, "killed at "),
}
LIMITS = {"sleep": Limits(seconds=0.2), "eat_memory": Limits(seconds=600, memory=300 * 2**20)}


@pytest.fixture(scope="module", autouse=True)
def _faulty_by_value():
    with faulty.sent_by_value():
        yield


class DaskCluster:
    """A scheduler and workers of Dask on this machine, as a user starts them."""

    def __init__(self, folder, workers):
        file = folder / "scheduler.json"
        self.processes = [
            self._start("scheduler", "--scheduler-file", str(file), "--port", "0", "--host", "127.0.0.1", "--no-show")
        ]
        self.processes += [
            self._start("worker", "--scheduler-file", str(file), "--nthreads", "1", "--nworkers", str(workers))
        ]
        self.executor = f"dask:{file}"
        assert faulty.wait_until(file.exists, 60)

    def _start(self, what, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, "--no-dashboard"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"), workers=4)
    yield cluster.executor
    cluster.close()


@pytest.fixture(scope="module", params=["dask", "parsl", "executorlib"])
def backend(request, tmp_path_factory):
    name = request.param
    if find_spec("distributed" if name == "dask" else name) is None:
        pytest.skip(f"the package of the executor {name} is not installed")
    if name == "dask":
        executor = request.getfixturevalue("dask")
    else:
        file = tmp_path_factory.mktemp(name) / "workers.toml"
        count = {"parsl": "processes", "executorlib": "workers"}[name]
        file.write_text(f'scheduler = "local"\n{count} = 2\n')
        executor = f"{name}:{file}"
    with open_backend(executor, make_runner, log_directory=tmp_path_factory.mktemp(f"{name}-logs")) as opened:
        yield opened


def test_every_fault_is_one_failure(backend):
    for number, behaviour in enumerate(FAULTS):
        backend.submit(make_job(behaviour, number, limits=LIMITS.get(behaviour)))
    outcomes = {outcome.candidate.operator: outcome for outcome in collect(backend, len(FAULTS), patience=300)}
    assert outcomes.keys() == FAULTS.keys()
    for behaviour, (reason, detail) in FAULTS.items():
        assert outcomes[behaviour].reason is reason, behaviour
        assert outcomes[behaviour].detail.startswith(detail), behaviour
    backend.submit(make_job("relax", 99))
    assert isinstance(collect(backend, 1, patience=300)[0], Relaxed)


def test_the_jobs_of_a_killed_worker_are_done_by_others(backend):
    for number in range(20):
        backend.submit(make_job("relax", number, seconds=0.3))
    outcomes = collect(backend, 3, patience=300)
    worker = psutil.Process(process_of(outcomes[-1])).parent()
    assert worker.pid != psutil.Process().pid
    worker.kill()
    outcomes += collect(backend, 20 - len(outcomes), patience=300)
    assert sorted(outcome.candidate.id for outcome in outcomes) == list(range(20))
    assert all(isinstance(outcome, Relaxed) for outcome in outcomes)
    assert backend.completed(0.1) == []


def test_several_searches_share_a_cluster_of_dask(dask):
    with open_backend(dask, make_runner) as first, open_backend(dask, make_runner, workers=2) as second:
        deadline = time.monotonic() + 60
        while first.capacity < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert first.capacity >= 2
        assert second.capacity <= 2
        for number in range(4):
            first.submit(make_job("relax", number))
            second.submit(make_job("relax", 10 + number))
        for backend, numbers in ((first, range(4)), (second, range(10, 14))):
            assert sorted(outcome.candidate.id for outcome in collect(backend, 4)) == list(numbers)


@pytest.mark.skipif(find_spec("parsl") is None, reason="parsl is not installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_kill_end_a_search_with_parsl_and_all_its_processes(number, tmp_path):
    """Ctrl-C in a terminal reaches all processes of the group, and ``kill -9`` the search alone."""
    (tmp_path / "one.toml").write_text('scheduler = "local"\nprocesses = 1\n')
    options = ["--calculator", "emt", "--relaxations", "100000", "--executor", "parsl:one.toml", "--source", "random"]
    search = subprocess.Popen(
        [sys.executable, "-m", "hybridcsp", "search", "Cu", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert search.stdout is not None
        assert any("/100000 relaxations" in line and not line.startswith("0/") for line in search.stdout)
        children = psutil.Process(search.pid).children(recursive=True)
        assert children
        if number == signal.SIGINT:
            os.killpg(search.pid, number)
            output, _ = search.communicate(timeout=60)
            assert search.returncode == 130
            assert "hybridcsp resume Cu --trust" in output
        else:
            search.kill()
        assert psutil.wait_procs(children, timeout=60)[1] == []
    finally:
        search.kill()
        search.wait()
        assert search.stdout is not None
        search.stdout.close()
