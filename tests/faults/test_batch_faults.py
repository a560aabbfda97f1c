"""Whatever a calculator does to a worker with several jobs: only the job that is the reason fails."""

import os
import signal

import faulty
import pytest
from faulty import FaultyBatch, collect, make_job, process_of, wait_until

from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.core.records import Limits
from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends import BatchedPool, GenerationBackend
from hybridcsp.relaxation.backends import pool as worker_pool


@pytest.fixture(scope="module")
def pool():
    with BatchedPool(FaultyBatch, workers=1, size=4) as pool:
        pool.wait_ready()
        yield pool


def run(pool, *jobs):
    """Return the outcomes of jobs that are submitted together, in the order of their numbers."""
    for job in jobs:
        pool.submit(job)
    return sorted(collect(pool, len(jobs)), key=lambda outcome: outcome.candidate.id)


def kinds(outcomes):
    return [outcome.reason if isinstance(outcome, Failed) else "relaxed" for outcome in outcomes]


def test_jobs_of_a_worker_run_in_one_process(pool):
    outcomes = run(pool, *(make_job("relax", number) for number in range(1, 5)))
    assert len({process_of(outcome) for outcome in outcomes}) == 1


def test_outcomes_of_one_step_are_in_the_order_of_submission(pool):
    order = [3, 1, 4, 2]
    for number in order:
        pool.submit(make_job("relax", number))
    assert [outcome.candidate.id for outcome in collect(pool, 4)] == order


def test_places_of_jobs_that_have_ended_are_filled(pool):
    for number in range(1, 5):
        pool.submit(make_job("relax", number, steps=number))
    seen = []
    for number in range(5, 11):
        (outcome,) = collect(pool, 1)
        seen.append(outcome.candidate.id)
        pool.submit(make_job("relax", number, steps=3))
    seen += [outcome.candidate.id for outcome in collect(pool, 4)]
    assert sorted(seen) == list(range(1, 11))
    assert pool.completed(0.0) == []


@pytest.mark.parametrize("behaviour", ["os_exit", "kill9"])
def test_a_crash_is_the_failure_of_one_job(pool, behaviour):
    jobs = [make_job("relax", 1, steps=2), make_job(behaviour, 2, steps=1), make_job("relax", 3, steps=1)]
    outcomes = run(pool, *jobs)
    assert kinds(outcomes) == ["relaxed", FailureReason.WORKER_DIED, "relaxed"]


def test_a_crash_that_does_not_happen_again_is_no_failure(pool, tmp_path):
    pool.submit(make_job("relax", 1, steps=2))
    pool.submit(make_job("relax", 2, touch=str(tmp_path / "begun"), until=str(tmp_path / "go")))
    assert pool.completed(0.1) == []
    faulty.wait_for(tmp_path / "begun")
    killed = pool._workers[0].process.pid
    os.kill(killed, signal.SIGKILL)
    (tmp_path / "go").touch()
    outcomes = collect(pool, 2)
    assert kinds(outcomes) == ["relaxed", "relaxed"]
    assert killed not in map(process_of, outcomes)


def test_a_job_that_hangs_is_the_failure_of_one_job(pool, monkeypatch):
    monkeypatch.setattr(worker_pool, "GRACE_SECONDS", 1.0)
    limits = Limits(seconds=3.0)  # also of the jobs that must not exceed it on a busy machine
    outcomes = run(pool, *(make_job(kind, n, limits) for n, kind in enumerate(("relax", "sleep", "relax"), 1)))
    assert kinds(outcomes) == ["relaxed", FailureReason.TIME_LIMIT, "relaxed"]
    assert "killed after" in outcomes[1].detail


def test_a_job_that_uses_too_much_memory_is_the_failure_of_one_job(pool):
    limits = Limits(memory=400 * 2**20, seconds=86400.0)
    outcomes = run(pool, *(make_job(kind, n, limits) for n, kind in enumerate(("relax", "eat_memory", "relax"), 1)))
    assert kinds(outcomes) == ["relaxed", FailureReason.MEMORY_LIMIT, "relaxed"]


@pytest.mark.parametrize("behaviour", ["raise", "unpicklable", "unreadable"])
def test_an_error_of_one_job_leaves_the_others_alone(pool, behaviour):
    jobs = [make_job("relax", 1, steps=2), make_job(behaviour, 2, steps=1), make_job("relax", 3, steps=1)]
    assert kinds(run(pool, *jobs)) == ["relaxed", FailureReason.CALCULATOR, "relaxed"]


def test_the_worker_may_wait_for_the_search_for_longer_than_a_job_may_take(pool):
    limits = Limits(seconds=60.0)
    pool.submit(make_job("relax", 1, limits))
    pool.submit(make_job("relax", 2, limits, steps=1))
    (first,) = collect(pool, 1)
    (worker,) = pool._workers
    process = worker.process.pid
    assert wait_until(lambda: pool._step(0.0) or worker.number in pool._pausing, 60)
    worker.since -= 3600.0  # the search has trained a model for an hour
    pool._check_workers()
    pool.submit(make_job("relax", 3, limits))
    assert kinds([first, *collect(pool, 2)]) == ["relaxed"] * 3
    assert pool._workers[0].process.pid == process


def test_progress_of_each_job_is_reported(pool):
    for number in (1, 2):
        pool.submit(make_job("relax", number, steps=10**5))
    assert wait_until(lambda: pool.completed(0.1) or all(job.force_calls == 3 for job in pool.running()), 60)
    assert {job.candidate for job in pool.running()} <= {1, 2}
    collect(pool, 2)


def test_labels_are_those_of_the_calculators(pool):
    assert pool.labels() == ("test",)


def test_jobs_are_divided_between_the_workers():
    with BatchedPool(FaultyBatch, workers=2, size=8) as pool:
        pool.wait_ready()
        assert pool.capacity == 16
        outcomes = run(pool, *(make_job("relax", number) for number in range(1, 7)))
    counts = [[process_of(outcome) for outcome in outcomes].count(one) for one in {*map(process_of, outcomes)}]
    assert counts == [3, 3]


def test_a_batch_that_cannot_be_built_ends_the_search():
    with BatchedPool(faulty.refuse_politely, workers=1, size=2) as pool:
        pool.submit(make_job())
        with pytest.raises(InputError, match="a file that exists"):
            pool.completed(None)


@pytest.mark.parametrize("size", [0, 1.5, True])
def test_wrong_sizes_are_refused(size):
    with pytest.raises(InputError, match=r"batch = .* it must be a whole number from 1"):
        BatchedPool(FaultyBatch, workers=1, size=size)


def test_a_generation_is_handed_over_as_a_whole_in_the_order_of_submission(pool):
    generation = GenerationBackend(pool)
    assert generation.capacity == 4
    for number, steps in ((4, 3), (2, 0), (3, 1)):
        generation.submit(make_job("relax", number, steps=steps))
    assert [outcome.candidate.id for outcome in generation.completed(None)] == [4, 2, 3]
    assert generation.completed(None) == []


def test_a_generation_that_has_not_ended_is_kept(pool, tmp_path):
    generation = GenerationBackend(pool)
    generation.submit(make_job("relax", 1))
    generation.submit(make_job("relax", 2, steps=1, until=str(tmp_path / "go")))
    assert generation.completed(1.0) == []
    (tmp_path / "go").touch()
    assert [outcome.candidate.id for outcome in generation.completed(None)] == [1, 2]
