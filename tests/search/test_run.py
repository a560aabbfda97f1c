import pytest
from copper import crystals, search
from crystals import InlineBackend, ListSource, P1Source, instant_relaxation, what_happened

from hybridcsp.errors import BackendError
from hybridcsp.relaxation.backends.base import RunningJob
from hybridcsp.utils.activity import announce


def test_best_minima_are_refined_at_the_end(tmp_path):
    levels = []

    def noting(job):
        levels.append(job.level)
        return instant_relaxation(job)

    run = search(tmp_path, runner=noting)
    run.run(relaxations=8, refine=3)
    assert levels[:8] == ["relax"] * 8
    assert 1 <= levels[8:].count("refine") <= 3
    assert run.minima()[0].best.evaluation.level == "refine"


def test_several_workers_relax_every_candidate_once(tmp_path):
    run = search(tmp_path, capacity=3)
    run.run(relaxations=20, refine=0)
    ended = [outcome.candidate.id for outcome in run.archive.history() if hasattr(outcome, "evaluation")]
    assert sorted(ended) == sorted(set(ended))
    assert len(ended) == 20


def test_duplicates_are_not_relaxed(tmp_path):
    one = crystals(1)[0]
    turned = one.copy()
    turned.rotate(50, "x", rotate_cell=True)
    summary = search(tmp_path, ListSource([one, turned, one.repeat((1, 2, 1))])).run(relaxations=10)
    assert (summary.progress.relaxations, summary.progress.rejected) == (1, 2)


def test_progress_is_reported(tmp_path):
    seen = []
    search(tmp_path).run(relaxations=4, on_progress=seen.append)
    assert [progress.relaxations for progress in seen[:4]] == [1, 2, 3, 4]
    assert seen[-1].level == "refine"


def test_more_jobs_are_submitted_when_the_capacity_has_grown(tmp_path):
    """Without waiting for an outcome: the workers of a cluster may come late."""

    class Growing(InlineBackend):
        def completed(self, timeout):
            running.append(len(self.jobs))
            if self.capacity < 3:
                self.capacity += 1
                return []
            return super().completed(timeout)

    running = []
    run = search(tmp_path)
    run._backend = Growing(instant_relaxation)
    run.run(relaxations=6, refine=0)
    assert running[:3] == [1, 2, 3]


def test_search_is_resumable_after_a_backend_error(tmp_path):
    class Breaking(InlineBackend):
        def completed(self, timeout):
            if len(run.archive.state.terminal) >= 3:
                raise BackendError("the queue is gone")
            return super().completed(timeout)

    run = search(tmp_path)
    run._backend = Breaking(instant_relaxation)
    with pytest.raises(BackendError, match="the queue is gone"):
        run.run(relaxations=10)
    assert run.archive.state.stops == ["error"]
    run.close()
    assert search(tmp_path).run(relaxations=10).progress.relaxations == 10


def test_progress_is_reported_while_jobs_run(tmp_path):
    """Progress includes the jobs of the workers and the activity of the search."""

    class Slow(InlineBackend):
        starting = 1
        waited = 0

        def running(self):
            return [RunningJob.of(job, 1.5, 12, -3.25) for job in self.jobs]

        def completed(self, timeout):
            self.waited += 1
            assert timeout <= 0.5
            return [] if self.waited < 4 else super().completed(timeout)

    class Announcing(P1Source):
        def propose(self, n, context):
            announce("drawing lots")
            return super().propose(n, context)

    seen = []
    run = search(tmp_path, Announcing())
    run._backend = Slow(instant_relaxation)
    run.run(relaxations=1, refine=0, on_progress=seen.append)
    assert [progress.activity for progress in seen if progress.activity == "drawing lots"]
    waiting = [progress for progress in seen if progress.relaxations == 0 and progress.jobs]
    assert len(waiting) >= 3
    assert waiting[-1].activity == "loading the calculator in 1 worker"
    (job,) = waiting[-1].jobs
    assert (job.source, job.force_calls, job.enthalpy_per_atom) == ("p1", 12, -3.25)


def test_exception_of_on_progress_does_not_interrupt_an_activity(tmp_path):
    class Announcing(P1Source):
        def propose(self, n, context):
            announce("drawing lots")
            return super().propose(n, context)

    def interrupt(progress):
        if progress.activity:
            raise KeyboardInterrupt

    run = search(tmp_path, Announcing())
    with pytest.raises(KeyboardInterrupt):
        run.run(relaxations=2, on_progress=interrupt)
    assert run.archive.state.stops == ["interrupted"]
    assert run.archive.candidates == 1


def test_search_is_resumable_after_ctrl_c(tmp_path):
    def interrupt(progress):
        if progress.relaxations == 3:
            raise KeyboardInterrupt

    first = search(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.run(relaxations=10, on_progress=interrupt)
    assert first.archive.state.stops == ["interrupted"]
    first.close()
    assert search(tmp_path).run(relaxations=10).progress.relaxations == 10


class TestReproducibility:
    def test_same_seed_gives_the_same_search(self, tmp_path):
        for name in ("a", "b"):
            search(tmp_path / name, seed=5).run(relaxations=12, refine=3)
        assert what_happened(tmp_path / "a") == what_happened(tmp_path / "b")

    def test_different_seeds_give_different_searches(self, tmp_path):
        for seed in (1, 2):
            search(tmp_path / str(seed), seed=seed).run(relaxations=3)
        assert what_happened(tmp_path / "1") != what_happened(tmp_path / "2")

    def test_resumed_sources_have_their_former_state(self, tmp_path):
        before = P1Source()
        first = search(tmp_path, before)
        first.run(relaxations=5)
        first.close()
        after = P1Source()
        search(tmp_path, after)
        assert after.made == before.made
        assert [o.sequence for o in after.heard] == [o.sequence for o in before.heard]

    def test_resumed_search_equals_uninterrupted_search(self, tmp_path):
        search(tmp_path / "whole", seed=5).run(relaxations=12, refine=3)

        def interrupt(progress):
            if progress.relaxations in (3, 7):
                raise KeyboardInterrupt

        for _ in range(3):
            part = search(tmp_path / "parts", seed=5)
            last = part.archive.state.relaxations == 7
            try:
                part.run(relaxations=12, refine=3, on_progress=None if last else interrupt)
            except KeyboardInterrupt:
                part.close()
        assert what_happened(tmp_path / "parts") == what_happened(tmp_path / "whole")


def test_initial_moments_and_charges_are_kept_in_every_step(tmp_path):
    seen = []

    def noting(job):
        seen.append(job.atoms)
        return instant_relaxation(job)

    run = search(tmp_path, runner=noting, initial_magmoms={"Cu": 0.5}, initial_charges={"Cu": 1.0})
    run.run(relaxations=2, refine=1)
    run.close()
    assert len(seen) >= 3  # relaxed, refined
    again = search(tmp_path, initial_magmoms={"Cu": 0.5}, initial_charges={"Cu": 1.0})
    for atoms in [*seen, *(minimum.atoms for minimum in again.minima())]:
        assert set(atoms.get_initial_magnetic_moments()) == {0.5}
        assert set(atoms.get_initial_charges()) == {1.0}
