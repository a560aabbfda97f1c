"""Backends return each job exactly once, in the order of completion."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import faulty
import pytest
from faulty import collect, make_job, make_labelled, make_meeting_runner, make_runner, refuse, refuse_politely, wait_for

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import Cost
from hybridcsp.errors import BackendError, CalculatorError, InputError
from hybridcsp.relaxation.backends import ExecutorBackend, WorkerPool
from hybridcsp.relaxation.relax import Relaxer


def processes(count):
    return ProcessPoolExecutor(count, mp_context=get_context("forkserver"))


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(make_runner, workers=2) as pool:
        pool.wait_ready()
        yield pool


@pytest.fixture(scope="module")
def in_threads():
    with ThreadPoolExecutor(2) as executor, ExecutorBackend(executor, make_runner, capacity=2) as backend:
        yield backend


@pytest.fixture(scope="module")
def in_processes():
    with processes(2) as executor, ExecutorBackend(executor, make_runner, capacity=2) as backend:
        yield backend


@pytest.fixture(params=["pool", "in_threads", "in_processes"])
def backend(request):
    return request.getfixturevalue(request.param)


def ids(outcomes):
    return [outcome.candidate.id for outcome in outcomes]


class TestEveryBackend:
    def test_returns_outcomes_of_the_runner(self, backend):
        jobs = [make_job("relax", 1), make_job("fail", 2)]
        for job in jobs:
            backend.submit(job)
        relaxed, failed = sorted(collect(backend, 2), key=lambda outcome: outcome.candidate.id)
        assert isinstance(relaxed, Relaxed)
        assert relaxed.atoms == jobs[0].atoms
        assert (relaxed.level, relaxed.evaluation.energy, relaxed.cost) == (
            "evaluate",
            -2.5,
            Cost(force_calls=7, seconds=0.5),
        )
        assert isinstance(failed, Failed)
        assert (failed.level, failed.reason, failed.cost) == ("evaluate", FailureReason.OVERLAP, Cost(force_calls=3))
        assert relaxed.candidate is jobs[0].candidate
        assert failed.candidate is jobs[1].candidate

    @pytest.mark.parametrize(
        ("action", "detail"),
        [
            ("raise", "ZeroDivisionError: no k-points"),
            ("return_a_number", "the runner returned float, which is not an outcome"),
            ("sys_exit", "SystemExit: licence server not found"),
            ("keyboard_interrupt", "KeyboardInterrupt: "),
            ("generator_exit", "GeneratorExit: "),
            ("cancelled", "CancelledError: "),
            ("memory_error", "MemoryError: "),
            ("recursion", "RecursionError: maximum recursion depth exceeded"),
            ("mute", "MuteError: (its message cannot be shown)"),
        ],
    )
    def test_faulty_runner_gives_a_failure(self, backend, action, detail):
        backend.submit(make_job(action, 4, seconds=0.01))
        (outcome,) = collect(backend, 1)
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.level) == (FailureReason.CALCULATOR, "evaluate")
        assert outcome.detail.startswith(detail)
        assert 0.01 <= outcome.cost.seconds < 60

    def test_returns_immediately_without_jobs(self, backend):
        started = time.monotonic()
        assert backend.completed(None) == []
        assert backend.completed(60) == []
        assert time.monotonic() - started < 30

    def test_returns_nothing_after_the_timeout(self, backend, tmp_path):
        backend.submit(make_job("relax", 1, until=str(tmp_path / "go")))
        started = time.monotonic()
        assert backend.completed(0.0) == []
        assert backend.completed(0.2) == []
        assert time.monotonic() - started >= 0.2
        (tmp_path / "go").touch()
        assert ids(collect(backend, 1)) == [1]

    def test_runs_capacity_jobs_and_returns_them_in_order_of_completion(self, backend, tmp_path):
        """The first job waits, and the others, one after the other, all pass it."""
        backend.submit(make_job("relax", 0, until=str(tmp_path / "go")))
        for identity in range(1, 7):
            backend.submit(make_job("relax", identity))
        assert ids(collect(backend, 6)) == [1, 2, 3, 4, 5, 6]
        (tmp_path / "go").touch()
        assert ids(collect(backend, 1)) == [0]

    def test_builds_the_runner_once_for_each_process_and_thread(self, backend):
        for identity in range(40):
            backend.submit(make_job("count", identity, seconds=0.002))
        counts = {}
        for outcome in collect(backend, 40):
            values = faulty.values_of(outcome)
            counts.setdefault((values["process"], values["thread"]), []).append(values["count"])
        assert 1 <= len(counts) <= backend.capacity
        for numbers in counts.values():
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_invalid_capacity_is_refused(value):
    with pytest.raises(InputError, match=r"workers = .*whole number from 1"):
        WorkerPool(make_runner, workers=value)
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="capacity"):
        ExecutorBackend(executor, make_runner, capacity=value)


def test_unpicklable_factory_is_refused():
    lock = threading.Lock()
    with pytest.raises(BackendError, match="make_runner cannot be pickled for another process: TypeError"):
        WorkerPool(lambda: lock, workers=1)


class TestWorkerPool:
    def test_queued_jobs_start_when_others_are_submitted(self, tmp_path):
        """The owner need not collect outcomes for the worker to go on."""
        started = [tmp_path / str(number) for number in range(3)]
        with WorkerPool(make_runner, workers=1) as pool:
            pool.wait_ready()
            pool.submit(make_job("relax", 0, touch=str(started[0])))
            pool.submit(make_job("relax", 1, touch=str(started[1])))
            wait_for(started[0])
            time.sleep(0.2)
            assert not started[1].exists()
            pool.submit(make_job("relax", 2, touch=str(started[2])))
            wait_for(started[1])
            assert ids(collect(pool, 3)) == [0, 1, 2]

    def test_a_worker_is_light_and_has_one_thread(self, monkeypatch):
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.setenv(name, "3")
        heavy = {"torch", "scipy", "pymatgen", "chgnet", "mace", "pyxtal", "matplotlib", "pydantic", "psutil"}

        def make_curious():
            def run(job):
                threads = [os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
                raise LookupError(f"{sorted(heavy & set(sys.modules))} {threads}")

            return run

        with WorkerPool(make_curious, workers=1) as pool:
            pool.submit(make_job())
            (outcome,) = collect(pool, 1)
        assert outcome.detail == "LookupError: [] ['1', '1']"

    def test_worker_imports_from_the_path_of_the_parent(self, tmp_path, monkeypatch):
        (tmp_path / "my_calculator.py").write_text("NAME = 'mine'\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", "/of/the/parent")
        path = list(sys.path)

        def make_importing():
            import my_calculator

            def run(job):
                raise LookupError(f"{my_calculator.NAME} {sys.path == path} {os.environ['PYTHONPATH']}")

            return run

        with WorkerPool(make_importing, workers=1) as pool:
            pool.submit(make_job())
            (outcome,) = collect(pool, 1)
        assert outcome.detail == "LookupError: mine True /of/the/parent"

    def test_script_needs_no_main_guard(self, tmp_path):
        """Nothing of the script is imported again, and what it defines travels by value."""
        script = tmp_path / "script.py"
        script.write_text(
            "from ase.build import bulk\n"
            "from hybridcsp.core.outcomes import Failed, FailureReason\n"
            "from hybridcsp.core.records import Candidate, Job, Proposal\n"
            "from hybridcsp.relaxation.backends import WorkerPool\n"
            "class Mine(Exception): pass\n"
            "def run(job): raise Mine(job.atoms.get_chemical_formula())\n"
            "print('once')\n"
            "pool = WorkerPool(lambda: run, workers=1)\n"
            "candidate = Candidate(proposal=Proposal(atoms=bulk('Cu'), operator='made'), id=1, source='test')\n"
            "pool.submit(Job(candidate=candidate, atoms=candidate.atoms))\n"
            "print(pool.completed(60)[0].detail)\n"
            "pool.close()\n"
        )
        result = subprocess.run(
            [sys.executable, "-X", "dev", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.stdout, result.stderr) == ("once\nMine: Cu\n", "")

    def test_labels_are_those_of_the_calculators(self):
        with WorkerPool(make_labelled, workers=1) as pool:
            assert pool.labels() == ("emt 1",)

    def test_reports_progress_of_running_jobs(self, tmp_path):
        def make_telling():
            sys.modules["__main__"].SECONDS_BETWEEN_STEPS = 0.0
            from hybridcsp.utils.activity import report_step

            run = make_runner()

            def tell(job):
                report_step(7, -3.5)
                return run(job)

            return tell

        with WorkerPool(make_telling, workers=1) as pool:
            assert pool.starting == 1
            pool.submit(make_job("relax", 5, until=str(tmp_path / "go")))
            deadline = time.monotonic() + 60
            while not ((running := pool.running()) and running[0].force_calls):
                assert pool.completed(0.05) == []
                assert time.monotonic() < deadline
            assert pool.starting == 0
            (job,) = running
            assert (job.candidate, job.source, job.level) == (5, "test", "evaluate")
            assert (job.force_calls, job.enthalpy_per_atom) == (7, -3.5)
            assert job.seconds > 0
            (tmp_path / "go").touch()
            collect(pool, 1)
            assert pool.running() == []


class TestExecutorBackend:
    def test_broken_executor_ends_the_search(self):
        with processes(1) as executor, ExecutorBackend(executor, make_runner, capacity=1) as backend:
            backend.submit(make_job("relax", 1))
            assert ids(collect(backend, 1)) == [1]
            backend.submit(make_job("kill9", 2))
            with pytest.raises(BackendError, match="the run directory can be resumed"):
                backend.completed(60)
            with pytest.raises(BackendError):
                backend.submit(make_job("relax", 3))

    def test_earlier_outcomes_are_returned_before_the_error(self):
        class Scripted(ThreadPoolExecutor):
            """Gives futures to the test, which ends them as it likes."""

            def submit(self, function, *arguments):
                futures.append(Future())
                return futures[-1]

        futures = []
        backend = ExecutorBackend(Scripted(1), make_runner, capacity=2)
        jobs = [make_job("relax", 1), make_job("relax", 2)]
        for job in jobs:
            backend.submit(job)
        futures[1].set_result(make_runner()(jobs[1]))
        futures[0].cancel()
        assert ids(backend.completed(1)) == [2]
        with pytest.raises(BackendError, match="CancelledError"):
            backend.completed(1)

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), OSError("the worker is gone")])
    def test_lost_job_of_an_executor_is_a_failure(self, error):
        class Losing(ThreadPoolExecutor):
            def submit(self, function, *arguments):
                future = Future()
                future.set_exception(error)
                return future

        with Losing(1) as executor, ExecutorBackend(executor, make_runner, capacity=1) as backend:
            backend.submit(make_job("relax", 1))
            (outcome,) = backend.completed(1)
        assert outcome.reason is FailureReason.WORKER_DIED
        assert type(error).__name__ in outcome.detail

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_only_the_user_interrupts_a_job_in_this_thread(self, number):
        """An executor may run jobs where they are submitted."""

        class AtOnce(ThreadPoolExecutor):
            def submit(self, function, *arguments):
                future = Future()
                future.set_result(function(*arguments))
                return future

        def make_signalling():
            def run(job):
                if job.candidate.id == 1:
                    raise KeyboardInterrupt
                signal.raise_signal(number)

            return run

        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with AtOnce(1) as executor, ExecutorBackend(executor, make_signalling, capacity=1) as backend:
                backend.submit(make_job("relax", 1))
                assert backend.completed(1)[0].reason is FailureReason.CALCULATOR
                with pytest.raises(KeyboardInterrupt):
                    backend.submit(make_job("relax", 2))
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_unpicklable_outcome_is_a_failure(self, in_processes):
        in_processes.submit(make_job("unpicklable", 1))
        in_processes.submit(make_job("relax", 2))
        outcomes = {outcome.candidate.id: outcome for outcome in collect(in_processes, 2)}
        assert outcomes[1].reason is FailureReason.WORKER_DIED
        assert "cannot pickle" in outcomes[1].detail
        assert outcomes[1].level == "evaluate"
        assert isinstance(outcomes[2], Relaxed)

    def test_executor_after_shutdown_accepts_no_job(self):
        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        with pytest.raises(BackendError, match="after shutdown"):
            ExecutorBackend(executor, make_runner, capacity=1).submit(make_job())

    @pytest.mark.parametrize("make_executor", [ThreadPoolExecutor, processes])
    def test_runner_that_cannot_be_built_ends_the_search(self, make_executor):
        with make_executor(1) as executor:
            for factory, message in [
                (refuse, "^cannot build the calculator: RuntimeError: no such device$"),
                (refuse_politely, r"^calculator = 'mace:x.pt' is not valid: it must be a file that exists\.$"),
            ]:
                backend = ExecutorBackend(executor, factory, capacity=1)
                backend.submit(make_job())
                with pytest.raises(CalculatorError, match=message):
                    backend.completed(60)

    def test_each_thread_has_its_own_runner(self, in_threads):
        with ThreadPoolExecutor(2) as executor, ExecutorBackend(executor, make_meeting_runner, capacity=2) as backend:
            for identity in range(4):
                backend.submit(make_job("count", identity))
            outcomes = collect(backend, 4)
        assert len(faulty.BUILT_IN) == len(set(faulty.BUILT_IN)) == 2
        assert sorted(faulty.values_of(outcome)["count"] for outcome in outcomes) == [1, 1, 2, 2]

    def test_close_cancels_queued_jobs_and_keeps_the_executor(self, tmp_path):
        with ThreadPoolExecutor(1) as executor:
            backend = ExecutorBackend(executor, make_runner, capacity=1)
            backend.submit(make_job("relax", 1, until=str(tmp_path / "go")))
            backend.submit(make_job("relax", 2, touch=str(tmp_path / "started")))
            backend.close()
            backend.close()
            (tmp_path / "go").touch()
            assert executor.submit(int, "7").result(timeout=30) == 7
            assert not (tmp_path / "started").exists()
            with pytest.raises(BackendError, match="closed"):
                backend.submit(make_job("relax", 3))
            with pytest.raises(BackendError, match="closed"):
                backend.completed(0)

    def test_close_does_without_futures_that_can_be_cancelled(self):
        class Lasting(Future):
            def cancel(self):
                raise NotImplementedError("Cancel not implemented")

        class Executor(ThreadPoolExecutor):
            def submit(self, *_, **__):
                return Lasting()

        with Executor(1) as executor:
            backend = ExecutorBackend(executor, make_runner, capacity=1)
            backend.submit(make_job("relax", 1))
            backend.close()
            assert backend.running() == []


def test_labels_are_those_of_the_calculators_that_a_worker_has_built():
    with WorkerPool(Relaxer(calculator="emt", follow_ups=("lj",)), workers=1) as pool:
        assert [label.split()[0] for label in pool.labels()] == ["emt", "lj"]
