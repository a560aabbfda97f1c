"""The backend of clusters: retries, capacity, what is sent, and the calculator processes in the workers."""

import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import faulty
import pytest
from faulty import (
    collect,
    make_job,
    make_labelled,
    make_runner,
    process_of,
    refuse,
    refuse_politely,
    values_of,
    wait_until,
)

from hybridcsp.core.outcomes import FailureReason, Relaxed
from hybridcsp.errors import BackendError, CalculatorError, InputError
from hybridcsp.relaxation.backends import cluster as cluster_module
from hybridcsp.relaxation.backends import cluster_task
from hybridcsp.relaxation.backends.cluster import RETRIES, ClusterBackend, ClusterExecutor
from hybridcsp.testing import check_backend


@pytest.fixture(scope="module", autouse=True)
def _faulty_by_value():
    with faulty.sent_by_value():
        yield


class Threads(ClusterExecutor):
    """A cluster whose workers are threads of this process; tasks and results are pickled, as on the way to others."""

    name = "threads"

    def __init__(self, count=1):
        self.count = count
        self.sent = []
        self.losses = []
        self.stops = 0

    def start(self, directory):
        cluster = self

        class Pickling(ThreadPoolExecutor):
            def submit(self, function, *arguments):
                task = pickle.dumps((function, arguments))
                cluster.sent.append(len(task))
                if cluster.losses:
                    lost = Future()
                    lost.set_exception(cluster.losses.pop(0))
                    return lost
                return super().submit(_unpickled, task)

        self.executor = Pickling(4)
        return self.executor

    def workers(self):
        return self.count

    def stop(self):
        self.stops += 1
        self.executor.shutdown(wait=False, cancel_futures=True)


def _unpickled(task):
    function, arguments = pickle.loads(task)
    return pickle.loads(pickle.dumps(function(*arguments)))


@pytest.fixture(autouse=True)
def processes(monkeypatch):
    """The calculator processes of this test, which end with it."""
    own = cluster_task.CalculatorProcesses()
    monkeypatch.setattr(cluster_task, "_processes", own)
    yield own
    own.close()


@pytest.fixture
def counting(monkeypatch):
    """Let the capacity follow the number of workers at once."""
    monkeypatch.setattr(cluster_module, "_BETWEEN_COUNTS", 0.0)


def test_the_backend_conforms():
    check_backend(lambda factory: ClusterBackend(Threads(2), factory), jobs=4)


def test_the_factory_is_sent_once_and_then_only_its_hash():
    weights = bytes(10**6)

    def make_heavy():
        assert len(weights) == 10**6
        return make_runner()

    cluster = Threads()
    with ClusterBackend(cluster, make_heavy) as backend:
        for number in range(4):
            backend.submit(make_job("relax", number))
            collect(backend, 1)
    with_factory = [size for size in cluster.sent if size > 10**6]
    assert len(with_factory) == 1
    assert len(cluster.sent) == 5  # the first task was answered with the wish for the factory
    assert max(size for size in cluster.sent if size < 10**6) < 4000


def test_calculators_are_built_once_for_each_worker():
    with ClusterBackend(Threads(), make_runner) as backend:
        outcomes = []
        for number in range(4):
            backend.submit(make_job("count", number))
            outcomes += collect(backend, 1)
    assert len({process_of(outcome) for outcome in outcomes}) == 1
    assert [values_of(outcome)["count"] for outcome in outcomes] == [1, 2, 3, 4]


def test_two_searches_share_a_worker_and_keep_their_calculators():
    cluster, other = Threads(), Threads()
    with ClusterBackend(cluster, make_runner) as first, ClusterBackend(other, make_labelled) as second:
        found = {first: set(), second: set()}
        for number in range(3):
            for backend in (first, second):
                backend.submit(make_job("relax", number))
                found[backend].add(process_of(collect(backend, 1)[0]))
    assert [len(one) for one in found.values()] == [1, 1]


def test_a_third_calculator_ends_the_one_that_waited_longest(processes):
    def make_third():
        return make_runner()

    for factory in (make_runner, make_labelled, make_third):
        with ClusterBackend(Threads(), factory) as backend:
            backend.submit(make_job())
            collect(backend, 1)
    assert len(processes._kept) == 2


def test_calculators_that_no_job_uses_are_ended(processes, monkeypatch):
    monkeypatch.setattr(cluster_task, "IDLE_SECONDS", 0.3)
    with ClusterBackend(Threads(), make_runner) as backend:
        backend.submit(make_job())
        collect(backend, 1)
        assert wait_until(lambda: not processes._kept, 20)


def test_a_job_whose_worker_is_lost_is_submitted_again(caplog):
    cluster = Threads()
    with ClusterBackend(cluster, make_runner) as backend:
        cluster.losses = [OSError("node 7 is gone")] * RETRIES
        backend.submit(make_job("relax", 5))
        (outcome,) = collect(backend, 1)
    assert isinstance(outcome, Relaxed)
    assert outcome.candidate.id == 5
    assert caplog.text.count("node 7 is gone") == RETRIES


def test_a_job_that_loses_every_worker_is_a_failure():
    cluster = Threads()
    with ClusterBackend(cluster, make_runner) as backend:
        cluster.losses = [OSError("node 7 is gone")] * (RETRIES + 1)
        backend.submit(make_job("relax", 5))
        (lost,) = collect(backend, 1)
        backend.submit(make_job("relax", 6))
        (fine,) = collect(backend, 1)
        assert lost.reason is FailureReason.WORKER_DIED
        assert lost.detail == "its worker was lost 3 times: OSError: node 7 is gone"
        assert isinstance(fine, Relaxed)


def test_workers_without_the_package_end_the_search():
    cluster = Threads()
    with ClusterBackend(cluster, make_runner) as backend:
        cluster.losses = [ModuleNotFoundError("No module named 'hybridcsp'")]
        backend.submit(make_job())
        with pytest.raises(BackendError, match="install the same version of hybridcsp"):
            backend.completed(30)


def test_the_capacity_follows_the_workers_up_to_the_limit(counting):
    cluster = Threads(0)
    with ClusterBackend(cluster, make_runner, most=4) as backend:
        found = []
        for cluster.count in (0, 3, 9, 2):
            found.append(backend.capacity)
        assert found == [1, 3, 4, 2]
        assert backend.parallel
    with ClusterBackend(Threads(), make_runner, most=1) as backend:
        assert not backend.parallel
    with pytest.raises(InputError, match="workers = 0 is not valid"):
        ClusterBackend(Threads(), make_runner, most=0)


def test_a_cluster_without_workers_is_waited_for(counting):
    cluster = Threads(0)
    with ClusterBackend(cluster, make_runner) as backend:
        assert backend.waiting_for == ""
        backend.submit(make_job("relax", 1))
        assert backend.capacity == 1
        assert backend.waiting_for == "a worker of threads"
        cluster.count = 1
        collect(backend, 1)
        assert backend.capacity == 1
        assert backend.waiting_for == ""


def test_labels_are_those_of_the_workers():
    cluster = Threads()
    with ClusterBackend(cluster, make_labelled) as backend:
        assert backend.labels() == ("emt 1",)  # before any job
        backend.submit(make_job())
        collect(backend, 1)
        assert backend.labels() == ("emt 1",)
    assert len(cluster.sent) == 2


def test_labels_need_a_worker():
    cluster = Threads()
    with ClusterBackend(cluster, make_labelled) as backend:
        cluster.losses = [OSError("node 7 is gone")] * (RETRIES + 1)
        with pytest.raises(BackendError, match="no worker of threads built the calculators: OSError: node 7 is gone"):
            backend.labels()


@pytest.mark.parametrize(
    ("factory", "kind", "message"),
    [
        (refuse, BackendError, "cannot build the calculator: RuntimeError: no such device"),
        (refuse_politely, InputError, r"^calculator = 'mace:x.pt' is not valid: it must be a file that exists\.$"),
    ],
)
def test_calculators_that_cannot_be_built_end_the_search(factory, kind, message):
    with ClusterBackend(Threads(), factory) as backend:
        backend.submit(make_job())
        with pytest.raises(kind, match=message):
            backend.completed(60)


def test_a_calculator_error_is_raised_as_it_is():
    def make_wrong():
        raise CalculatorError("the licence has expired")

    with (
        ClusterBackend(Threads(), make_wrong) as backend,
        pytest.raises(CalculatorError, match=r"^the licence has expired$"),
    ):
        backend.labels()


def test_a_factory_that_workers_cannot_read_ends_the_search():
    class Unreadable:
        def __reduce__(self):
            return int, ("not a number",)

        def __call__(self):
            return make_runner()

    with ClusterBackend(Threads(), Unreadable()) as backend:
        backend.submit(make_job())
        with pytest.raises(BackendError, match="cannot build the calculator: ValueError"):
            backend.completed(60)


def test_a_job_that_cannot_be_sent_is_a_failure():
    job = make_job("relax", 2)
    job.atoms.info["lock"] = threading.Lock()
    with ClusterBackend(Threads(), make_runner) as backend:
        backend.submit(job)
        (outcome,) = collect(backend, 1)
    assert outcome.reason is FailureReason.CALCULATOR
    assert outcome.detail.startswith("the job cannot be sent: TypeError")
    assert outcome.candidate is job.candidate


def test_closing_stops_the_cluster_once():
    cluster = Threads()
    backend = ClusterBackend(cluster, make_runner)
    backend.close()
    backend.close()
    assert cluster.stops == 1
    with pytest.raises(BackendError, match="closed"):
        backend.submit(make_job())
