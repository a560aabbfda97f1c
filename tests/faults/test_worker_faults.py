"""Whatever a calculator does to its worker: one counted failure, and a fresh worker for the next job."""

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty
import psutil
import pytest
from faulty import NO_LIMITS, collect, make_job, process_of, wait_until

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Limits
from hybridcsp.errors import BackendError, CalculatorError, HybridCSPError
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.backends import pool as worker_pool

MiB = 2**20


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def pools(logs):
    """Pools of one worker, of which the last is in use."""
    with contextlib.ExitStack() as stack:
        pools = []

        def start():
            pool = WorkerPool(faulty.make_runner, workers=1, log_directory=logs, start_timeout=86400.0)
            pools.append(stack.enter_context(pool))

        start()
        yield pools, start


@pytest.fixture
def pool(pools):
    """One pool for most of these tests: each has to leave it in order, or the next one gets another."""
    started, start = pools
    pool = started[-1]
    yield pool
    try:
        is_idle = not pool.running() and not pool.completed(0.0)
    except HybridCSPError:
        is_idle = False
    if not is_idle:
        pool.close()
        start()


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(worker_pool, "GRACE_SECONDS", 0.3)


def log_of(directory, worker=1):
    return (directory / f"worker-{worker}.log").read_text()


def survive(pool, job):
    """Run a job between two good ones; return its only outcome, after a fresh worker did the second."""
    for one in (make_job(identity=1), job, make_job(identity=3)):
        pool.submit(one)
    before, outcome, after = collect(pool, 3)
    assert process_of(before) != process_of(after)
    assert pool.completed(0.05) == []
    assert outcome.candidate is job.candidate
    assert isinstance(outcome, Failed)
    assert outcome.level == job.level
    assert outcome.cost.seconds > 0
    return outcome


def is_gone(pid):
    """Whether a process has ended; an orphan's zombie may be left where nobody reaps it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("behaviour", "reason", "detail"),
    [
        ("raise", FailureReason.CALCULATOR, "ZeroDivisionError: no k-points"),
        ("sys_exit", FailureReason.CALCULATOR, "SystemExit: licence server not found"),
        ("keyboard_interrupt", FailureReason.CALCULATOR, "KeyboardInterrupt: "),
        ("return_a_number", FailureReason.CALCULATOR, "the runner returned float, which is not an outcome"),
        ("unpicklable", FailureReason.CALCULATOR, "the outcome cannot be sent: TypeError: cannot pickle 'generator'"),
        ("unreadable", FailureReason.CALCULATOR, "the outcome cannot be read: ValueError"),
        ("os_exit", FailureReason.WORKER_DIED, "worker 1 ended with exit status 3"),
        ("segfault", FailureReason.WORKER_DIED, "worker 1 was killed by SIGSEGV"),
        ("abort", FailureReason.WORKER_DIED, "worker 1 was killed by SIGABRT"),
        (
            "kill9",
            FailureReason.WORKER_DIED,
            "worker 1 was killed by SIGKILL (perhaps because memory ran out)",
        ),
        ("close_descriptors_and_hang", FailureReason.WORKER_DIED, "worker 1 closed its connection"),
    ],
)
def test_a_broken_job_is_one_failure_and_costs_one_worker(pool, behaviour, reason, detail):
    outcome = survive(pool, make_job(behaviour, identity=2))
    assert outcome.reason is reason
    assert outcome.detail.startswith(detail)


@pytest.mark.parametrize("behaviour", ["sleep", "busy", "leave_group_and_hang"])
def test_a_hang_is_killed_at_its_limit(pool, short_grace, behaviour):
    outcome = survive(pool, make_job(behaviour, identity=2, limits=Limits(seconds=0.2)))
    assert outcome.reason is FailureReason.TIME_LIMIT
    assert outcome.cost.seconds > 0.5
    assert outcome.detail.endswith("the limit is 0.2 s")


def test_the_grace_is_five_seconds_or_a_tenth_of_the_limit(pool):
    pool.submit(make_job(seconds=1.0, limits=Limits(seconds=0.1)))
    (outcome,) = collect(pool, 1)
    assert isinstance(outcome, Relaxed)  # late, and within the grace
    assert worker_pool.grace(Limits(seconds=1.0)) == 5.0
    assert worker_pool.grace(Limits(seconds=600.0)) == 60.0


def test_a_worker_that_nobody_kills_ends_itself(logs):
    """As one whose parent has died, where the hang blocks the thread that would notice."""

    def make_runner():
        sys.modules["__main__"].LAST_RESORT_SECONDS = 0.5
        return faulty.make_runner()

    with WorkerPool(make_runner, workers=1, log_directory=logs) as pool:
        pool.submit(make_job("busy", limits=Limits(seconds=0.1)))
        (outcome,) = collect(pool, 1)
    assert outcome.reason is FailureReason.WORKER_DIED
    assert outcome.cost.seconds >= 0.7
    assert "Timeout (0:00:00.7" in log_of(logs)


def test_memory_past_the_limit_is_killed(pool):
    outcome = survive(pool, make_job("eat_memory", identity=2, limits=Limits(memory=300 * MiB)))
    assert outcome.reason is FailureReason.MEMORY_LIMIT
    assert outcome.detail.startswith("killed at ")
    assert outcome.detail.endswith(" MiB, the limit is 300 MiB")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("segfault", ["Fatal Python error: Segmentation fault", "in string_at"]),
        ("raise", ["ZeroDivisionError: no k-points", "in raise_error"]),
        ("sleep", ["Fatal Python error: Aborted", "faulty.py"]),
        ("busy", ["Fatal Python error: Aborted", "faulty.py"]),
    ],
)
def test_the_log_says_where_it_crashed_raised_and_hung(pool, short_grace, logs, behaviour, words):
    before = len(log_of(logs))
    pool.submit(make_job(behaviour, limits=Limits(seconds=0.1) if behaviour in ("sleep", "busy") else NO_LIMITS))
    collect(pool, 1)
    new = log_of(logs)[before:]
    for word in words:
        assert word in new


def test_a_worker_that_dies_while_idle_is_replaced_silently(pool, caplog):
    pool.submit(make_job("relax", 1))
    (first,) = collect(pool, 1)
    assert process_of(first) in [child.pid for child in psutil.Process().children()]
    psutil.Process(process_of(first)).kill()
    time.sleep(0.1)
    with caplog.at_level(logging.WARNING):
        pool.submit(make_job("relax", 2))
        (second,) = collect(pool, 1)
    assert process_of(second) != process_of(first)
    assert "worker 1 was killed by SIGKILL" in caplog.text
    assert "while idle" in caplog.text


def test_the_terminal_stays_clean(pool, capfd, logs):
    pool.submit(make_job("say"))
    collect(pool, 1)
    assert capfd.readouterr() == ("", "")
    assert {"from Python", "from the descriptor", "from a program"} <= set(log_of(logs).splitlines())


def test_a_job_that_cannot_be_sent_is_a_failure(pool):
    job = make_job(identity=2)
    job.atoms.info["generator"] = (i for i in ())
    pool.submit(job)
    (outcome,) = collect(pool, 1)
    assert isinstance(outcome, Failed)
    assert outcome.detail.startswith("the job cannot be sent: TypeError")


@pytest.mark.parametrize("behaviour", ["start_program_and_hang", "start_program_and_crash"])
def test_programs_that_a_calculator_started_end_with_it(pool, short_grace, tmp_path, behaviour):
    file = tmp_path / "pid"
    pool.submit(make_job(behaviour, limits=Limits(seconds=2.0), pid_file=str(file)))
    collect(pool, 1)
    assert wait_until(lambda: is_gone(int(file.read_text())), 60)


def test_a_mixture_of_everything_comes_back_exactly_once(short_grace):
    rng = random.Random(7)
    faults = ["raise", "return_a_number", "unpicklable", "unreadable", "os_exit", "segfault", "kill9", "sleep"]
    behaviours = faults + ["relax"] * 80
    rng.shuffle(behaviours)
    jobs = [
        make_job(
            behaviour,
            number,
            limits=Limits(seconds=0.2) if behaviour == "sleep" else NO_LIMITS,
            seconds=rng.uniform(0.0, 0.03),
        )
        for number, behaviour in enumerate(behaviours)
    ]
    outcomes = []
    with WorkerPool(faulty.make_runner, workers=2) as pool:
        for job in jobs:
            pool.submit(job)
            if rng.random() < 0.3:
                outcomes += pool.completed(rng.uniform(0.0, 0.05))
        outcomes += collect(pool, len(jobs) - len(outcomes))
        assert pool.completed(None) == []
    assert sorted(outcome.candidate.id for outcome in outcomes) == list(range(len(jobs)))
    for outcome in outcomes:
        assert isinstance(outcome, Failed) == (outcome.candidate.operator in faults)


class TestStarting:
    """What keeps a worker from getting ready ends the pool; it does not restart for ever."""

    def test_a_calculator_error_is_raised_as_it_is(self):
        def make_runner():
            raise CalculatorError("mace: no such file: model.pt")

        with WorkerPool(make_runner, workers=2) as pool:
            pool.submit(make_job())
            with pytest.raises(CalculatorError, match=r"^mace: no such file: model.pt$"):
                pool.completed(60)
            with pytest.raises(CalculatorError):
                pool.submit(make_job())

    def test_any_other_exception_is_a_backend_error(self):
        def make_runner():
            raise RuntimeError("CUDA out of memory")

        pool = WorkerPool(make_runner, workers=1)
        with pytest.raises(BackendError, match="RuntimeError: CUDA out of memory"):
            pool.wait_ready()
        pool.close()

    def test_two_deaths_in_a_row_are_enough(self, tmp_path):
        def make_runner():
            sys.stdout.write("wrong version of libcalculator.so\n")
            os._exit(127)

        with WorkerPool(make_runner, workers=1, log_directory=tmp_path) as pool:
            pool.submit(make_job())
            with pytest.raises(BackendError, match=r"status 127 .*twice in a row(.|\n)*wrong version of lib"):
                pool.completed(60)
        assert log_of(tmp_path).count("wrong version") == 2

    def test_one_death_is_forgiven(self, tmp_path):
        marker = tmp_path / "died"

        def make_runner():
            if not marker.exists():
                marker.touch()
                os._exit(1)
            return faulty.relaxed

        with WorkerPool(make_runner, workers=1) as pool:
            pool.submit(make_job())
            process_of(collect(pool, 1)[0])

    def test_one_that_takes_for_ever(self):
        def make_runner():
            time.sleep(600)

        with WorkerPool(make_runner, workers=1, start_timeout=0.5) as pool:
            pool.submit(make_job())
            with pytest.raises(BackendError, match=r"worker 1 was not ready after 0\.5 s"):
                pool.completed(60)

    def test_outcomes_that_arrived_before_are_handed_out_first(self, tmp_path):
        marker = tmp_path / "built"

        def make_runner():
            if marker.exists():
                raise CalculatorError("the licence has expired")
            marker.touch()
            return faulty.make_runner()

        with WorkerPool(make_runner, workers=1) as pool:
            pool.submit(make_job("os_exit", 1))
            pool.submit(make_job("relax", 2))
            time.sleep(0.1)
            outcomes = []
            with pytest.raises(CalculatorError, match="expired"):
                while True:
                    outcomes += pool.completed(60)
        assert [outcome.candidate.id for outcome in outcomes] == [1]


class TestEnding:
    """No process, zombie or descriptor is left, whoever ends whom."""

    def test_closing(self):
        myself = psutil.Process()
        before = myself.num_fds(), len(myself.children(recursive=True))  # zombies are children, too
        pool = WorkerPool(faulty.make_runner, workers=4)
        pool.wait_ready()
        for number, behaviour in enumerate(("relax", "segfault", "sleep", "busy", "sleep")):
            pool.submit(make_job(behaviour, number))
        collect(pool, 2)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 60  # the jobs take 600 s or for ever
        assert (myself.num_fds(), len(myself.children(recursive=True))) == before
        pool.close()
        with pytest.raises(BackendError, match="closed"):
            pool.submit(make_job())

    def test_closing_ends_the_programs_that_calculators_started(self, tmp_path):
        file = tmp_path / "pid"
        pool = WorkerPool(faulty.make_runner, workers=1)
        pool.submit(make_job("start_program", pid_file=str(file)))
        collect(pool, 1)
        assert not is_gone(int(file.read_text()))
        pool.close()
        assert wait_until(lambda: is_gone(int(file.read_text())), 60)

    def test_closing_before_anything_has_started(self):
        children = len(psutil.Process().children(recursive=True))
        WorkerPool(faulty.make_runner, workers=2).close()
        assert len(psutil.Process().children(recursive=True)) == children

    def test_one_that_ignores_being_terminated_is_killed(self):
        def make_runner():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return faulty.make_runner()

        others = psutil.Process().children()
        pool = WorkerPool(make_runner, workers=1)
        pool.submit(make_job("sleep"))
        pool.wait_ready()
        (child,) = set(psutil.Process().children()) - set(others)
        started = time.monotonic()
        pool.close()
        assert 0.9 < time.monotonic() - started < 60  # the job takes 600 s
        assert not child.is_running()

    def test_killing_the_parent(self, script):
        parent, workers = script(("sleep", "busy", "relax"))
        parent.kill()
        parent.wait()
        assert wait_until(lambda: all(is_gone(worker) for worker in workers), 60)

    def test_killing_the_parent_that_started_them_in_a_passing_thread(self, script):
        """Without the kernel's help, which is tied to that thread, the workers notice by themselves."""
        parent, workers = script(("sleep", "relax", "relax"), in_thread=True)
        parent.kill()
        parent.wait()
        assert wait_until(lambda: all(is_gone(worker) for worker in workers), 60)

    @pytest.mark.parametrize("in_thread", [False, True])
    def test_killing_the_parent_ends_the_programs_of_calculators(self, script, tmp_path, in_thread):
        """Also of a worker that is busy in code which lets no other thread run."""
        file = tmp_path / "pid"
        parent, workers = script(("start_program_and_stay_busy", "busy", "sleep"), in_thread=in_thread, pid_file=file)
        assert wait_until(file.exists, 60)
        assert wait_until(file.read_text, 60)
        program = int(file.read_text())
        assert not is_gone(program)
        parent.kill()
        parent.wait()
        assert wait_until(lambda: all(is_gone(one) for one in (*workers, program)), 60)

    def test_killing_a_worker_ends_the_programs_of_its_calculator(self, tmp_path):
        file = tmp_path / "pid"
        with WorkerPool(faulty.make_runner, workers=1) as pool:
            pool.submit(make_job("start_program", pid_file=str(file)))
            (outcome,) = collect(pool, 1)
            psutil.Process(process_of(outcome)).kill()  # and the pool does not look at it meanwhile
            assert wait_until(lambda: is_gone(int(file.read_text())), 60)

    def test_an_interrupt_from_the_terminal(self, script, tmp_path):
        parent, workers = script(("sleep", "busy", "relax"))
        for worker in workers:
            os.kill(worker, signal.SIGINT)  # as if they shared the terminal's group
        os.killpg(parent.pid, signal.SIGINT)
        output, errors = parent.communicate(timeout=30)
        assert output == "stopped\n"
        assert errors == ""
        assert parent.returncode == 0
        assert all(is_gone(worker) for worker in workers)
        for number in (1, 2, 3):
            assert "Traceback" not in log_of(tmp_path, number)
            assert "KeyboardInterrupt" not in log_of(tmp_path, number)


# No `if __name__ == "__main__"`: a user's script needs none.
SCRIPT = """
import sys
import threading
from pathlib import Path
import psutil
from faulty import make_job, make_runner
from hybridcsp.relaxation.backends import WorkerPool

def start():
    global pool, workers
    pool = WorkerPool(make_runner, workers=3, log_directory=Path(sys.argv[1]))
    pool.wait_ready()
    workers = [child.pid for child in psutil.Process().children()]

if sys.argv[2] == "in-thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
for number, behaviour in enumerate(sys.argv[4:]):
    pool.submit(make_job(behaviour, number, pid_file=sys.argv[3]))
if "relax" in sys.argv[4:]:
    pool.completed(60)
try:
    print(*workers, flush=True)
    while True:
        pool.completed(None)
except KeyboardInterrupt:
    print("stopped")
finally:
    pool.close()
"""


@pytest.fixture
def script(tmp_path):
    """Run the script in a process group of its own; return it and the process ids of its three workers."""
    started = []

    def run(behaviours, in_thread=False, pid_file=""):
        thread = "in-thread" if in_thread else "in-main"
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), thread, str(pid_file), *behaviours],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(faulty.__file__).parent), *sys.path])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        line = process.stdout.readline()
        workers = [int(word) for word in line.split()]
        assert len(workers) == 3, line + process.stderr.read()
        assert not any(is_gone(worker) for worker in workers)
        return process, workers

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
