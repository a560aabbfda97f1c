import time

import numpy as np
import pytest
from ase.build import bulk
from crystals import InlineBackend, ListSource, P1Source, instant_relaxation, random_crystal, relaxed, what_happened

from hybridcsp import Proposal, Search
from hybridcsp.core.records import Failed, FailureReason
from hybridcsp.errors import BackendError, RelaxationsFailedError
from hybridcsp.relaxation.backends.base import RunningJob
from hybridcsp.search.stopping import StoppingCheck
from hybridcsp.sources.base import SourceStatus
from hybridcsp.utils.activity import announce

COPPER = {"formula_units": (1, 4), "distance_fraction": 0.05}


def search(directory, *sources, runner=instant_relaxation, capacity=1, **options):
    return Search(
        "Cu",
        calculator=None,
        directory=directory,
        sources=sources or [P1Source()],
        backend=InlineBackend(runner, capacity),
        **COPPER,
        **options,
    )


def crystals(n, seed=0):
    rng = np.random.default_rng(seed)
    return [random_crystal("Cu2", 20, rng) for _ in range(n)]


class TestRun:
    def test_failed_relaxations_count(self, tmp_path):
        def failing(job):
            if job.candidate.id % 2:
                return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)
            return instant_relaxation(job)

        summary = search(tmp_path, runner=failing).run(relaxations=10)
        assert summary.stopped == "relaxations used up"
        assert summary.progress.relaxations == 10
        assert summary.progress.failed > 0

    def test_criteria_hold_for_the_whole_search(self, tmp_path):
        first = search(tmp_path)
        first.run(relaxations=6)
        first.close()
        again = search(tmp_path)
        assert again.run(relaxations=10).progress.run_relaxations == 4
        assert again.run(relaxations=10).progress.run_relaxations == 0

    def test_force_calls_end_the_search_after_running_relaxations(self, tmp_path):
        def costing(job):
            from dataclasses import replace

            from hybridcsp.core.records import Cost

            return replace(instant_relaxation(job), cost=Cost(force_calls=30))

        summary = search(tmp_path, runner=costing).run(force_calls=100, refine=0)
        assert summary.stopped == "force calls used up"
        assert summary.progress.force_calls == 120

    def test_time_ends_the_search(self, tmp_path):
        summary = search(tmp_path).run(hours=1 / 3600)
        assert summary.stopped == "time used up"
        assert summary.progress.run_seconds < 30

    def test_time_is_the_reason_also_between_two_readings_of_the_clock(self, tmp_path, monkeypatch):
        looks = iter([False, False])
        monkeypatch.setattr(StoppingCheck, "is_time_used_up", property(lambda _: next(looks, True)))
        assert search(tmp_path).run(hours=1).stopped == "time used up"

    def test_unchanged_best_ends_the_search(self, tmp_path):
        energies = iter([-3.0, -3.1, -3.1005, -2.0, -2.1, -2.2, -9.9])
        source = ListSource(crystals(7))
        summary = search(tmp_path, source, runner=lambda job: relaxed(job.candidate, next(energies), job.atoms)).run(
            stop_after_unchanged=3, refine=0
        )
        assert summary.stopped == "best unchanged"
        assert summary.progress.relaxations == 5

    def test_target_enthalpy_ends_the_search(self, tmp_path):
        energies = iter([-3.0, -3.2, -3.4])
        source = ListSource(crystals(3))
        summary = search(tmp_path, source, runner=lambda job: relaxed(job.candidate, next(energies), job.atoms)).run(
            stop_at=-3.2, refine=0
        )
        assert (summary.stopped, summary.progress.relaxations) == ("target reached", 2)

    def test_target_structure_ends_the_search(self, tmp_path):
        wanted = crystals(4)[2]
        copy = wanted.repeat((2, 1, 1))
        copy.rotate(30, (1, 1, 0), rotate_cell=True)
        copy.write(tmp_path / "wanted.cif")
        summary = search(tmp_path / "run", ListSource(crystals(4))).run(stop_at=str(tmp_path / "wanted.cif"), refine=0)
        assert (summary.stopped, summary.progress.relaxations) == ("target reached", 3)

    def test_exhausted_sources_end_the_search(self, tmp_path):
        summary = search(tmp_path, ListSource(crystals(3))).run(relaxations=10)
        assert (summary.stopped, summary.progress.relaxations) == ("sources exhausted", 3)

    def test_search_ends_without_acceptable_proposals(self, tmp_path, monkeypatch):
        monkeypatch.setattr("hybridcsp.search.proposer.PATIENCE", 20)

        class Hopeless(P1Source):
            def propose(self, n, context):
                return [Proposal(atoms=bulk("Ag"), operator="wrong")]

        summary = search(tmp_path, Hopeless()).run(relaxations=10)
        assert (summary.stopped, summary.progress.relaxations) == ("no acceptable proposals", 0)
        assert summary.progress.rejected == 20

    @pytest.mark.parametrize(
        ("details", "stopped_at"),
        [
            (["SCF", "no k-points"] * 9, 4),  # the words may differ
            (["", "SCF"] * 9, None),
            (["", "SCF", ""] + ["SCF"] * 9, 7),
            (["SCF"] * 3 + ["relaxed"] + ["SCF"] * 9, None),
        ],
    )
    def test_consecutive_equal_failures_end_the_search(self, tmp_path, details, stopped_at):
        remaining = iter(details)

        def failing(job):
            detail = next(remaining)
            if detail == "relaxed":
                return instant_relaxation(job)
            reason = FailureReason.CALCULATOR if detail else FailureReason.OVERLAP
            return Failed(candidate=job.candidate, reason=reason, detail=detail)

        run = search(tmp_path, runner=failing)
        if stopped_at is None:
            assert run.run(relaxations=9, stop_after_failures=4, refine=0).stopped == "relaxations used up"
        else:
            with pytest.raises(RelaxationsFailedError, match=f"none of {stopped_at} .* 4 failed for the same reason"):
                run.run(relaxations=9, stop_after_failures=4)
            assert run.archive.state.stops == ["every relaxation failed"]
        run.close()

    def test_failures_are_counted_anew_after_a_failed_search(self, tmp_path):
        def failing(job):
            return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

        for relaxations in (3, 6):
            run = search(tmp_path, runner=failing)
            with pytest.raises(RelaxationsFailedError):
                run.run(relaxations=20, stop_after_failures=3)
            assert run.archive.state.relaxations == relaxations
            run.close()
        mended = search(tmp_path)
        assert mended.run(relaxations=8, refine=0).stopped == "relaxations used up"

    def test_failures_are_counted_across_a_kill(self, tmp_path):
        def failing(job):
            return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

        first = search(tmp_path, runner=failing)
        first.run(relaxations=2, stop_after_failures=3)
        first.close()
        with pytest.raises(RelaxationsFailedError, match="none of 3"):
            search(tmp_path, runner=failing).run(relaxations=9, stop_after_failures=3)

    def test_zero_turns_the_criterion_of_failures_off(self, tmp_path):
        def failing(job):
            return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

        summary = search(tmp_path, runner=failing).run(relaxations=15, stop_after_failures=0)
        assert (summary.stopped, summary.progress.failed) == ("relaxations used up", 15)

    def test_best_minima_are_refined_at_the_end(self, tmp_path):
        levels = []

        def noting(job):
            levels.append(job.level)
            return instant_relaxation(job)

        run = search(tmp_path, runner=noting)
        run.run(relaxations=8, refine=3)
        assert levels[:8] == ["relax"] * 8
        assert 1 <= levels[8:].count("refine") <= 3
        assert run.minima()[0].best.evaluation.level == "refine"

    def test_several_workers_relax_every_candidate_once(self, tmp_path):
        run = search(tmp_path, capacity=3)
        run.run(relaxations=20, refine=0)
        ended = [outcome.candidate.id for outcome in run.archive.history() if hasattr(outcome, "evaluation")]
        assert sorted(ended) == sorted(set(ended))
        assert len(ended) == 20

    def test_duplicates_are_not_relaxed(self, tmp_path):
        one = crystals(1)[0]
        turned = one.copy()
        turned.rotate(50, "x", rotate_cell=True)
        summary = search(tmp_path, ListSource([one, turned, one.repeat((1, 2, 1))])).run(relaxations=10)
        assert (summary.progress.relaxations, summary.progress.rejected) == (1, 2)

    def test_sources_observe_every_outcome_in_order(self, tmp_path):
        source = P1Source()
        run = search(tmp_path, source)
        run.run(relaxations=5, refine=0)
        assert [o.sequence for o in source.heard] == sorted(o.sequence for o in source.heard)
        assert {o.candidate.id for o in source.heard} == set(range(1, run.archive.candidates + 1)) - {
            c.id for c in run.archive.pending("workers")
        }

    def test_source_that_raises_does_not_end_the_search(self, tmp_path):
        class Broken(P1Source):
            name = "broken"

            def propose(self, n, context):
                raise RuntimeError("no idea")

        run = Search(
            "Cu",
            calculator=None,
            directory=tmp_path,
            sources=[Broken(), P1Source()],
            backend=InlineBackend(instant_relaxation),
            **COPPER,
        )
        assert run.run(relaxations=5).stopped == "relaxations used up"
        assert any("no idea" in getattr(event, "error", "") for event in run.archive.history())

    def test_equal_allocation_shares_relaxations(self, tmp_path):
        run = Search(
            "Cu",
            calculator=None,
            directory=tmp_path,
            sources=[P1Source(), P1Source()],
            allocation="equal",
            backend=InlineBackend(instant_relaxation),
            **COPPER,
        )
        run.run(relaxations=10)
        shares = {source: tally.relaxed for (source, _), tally in run.archive.state.tallies.items()}
        assert shares == {"p1": 5, "p1-2": 5}

    def test_waiting_source_is_called_after_ready_ones(self, tmp_path):
        class Hesitant(P1Source):
            name = "hesitant"

            def status(self):
                return SourceStatus.READY if len(self.heard) >= 7 else SourceStatus.WAITING

        def asked(directory, sources):
            run = search(directory, *sources, allocation="equal")
            run.run(relaxations=12)
            return [run.archive.candidate(number).source for number in range(1, 13)]

        given = ListSource(crystals(3))
        beside_another = asked(tmp_path / "ready", [Hesitant(), P1Source()])
        assert beside_another[:7] == ["p1"] * 7
        assert "hesitant" in beside_another
        # Where no other source has anything it is called all the same.
        assert asked(tmp_path / "exhausted", [Hesitant(), given]) == ["list"] * 3 + ["hesitant"] * 9
        assert asked(tmp_path / "alone", [Hesitant()]) == ["hesitant"] * 12

    def test_dependent_source_is_not_called_while_it_waits(self, tmp_path):
        class Dependent(P1Source):
            name = "dependent"
            needs_others = True

            def status(self):
                return SourceStatus.WAITING

        run = search(tmp_path, Dependent(), ListSource(crystals(3)))
        assert run.run(relaxations=8).progress.relaxations == 3
        assert run.archive.state.calls["dependent"] == 0

    def test_source_without_proposals_after_an_error_is_called_rarely(self, tmp_path):
        class Flaky(P1Source):
            name = "flaky"
            calls = 0

            def propose(self, n, context):
                self.calls += 1
                if self.calls == 1:
                    raise RuntimeError("not yet")
                return []

        flaky = Flaky()
        search(tmp_path, flaky, ListSource(crystals(5))).run(relaxations=8)
        assert flaky.calls < 20

    def test_search_waits_for_busy_source_without_calling_it(self, tmp_path):
        class Slow(P1Source):
            name = "slow"
            calls = 0
            until = None

            def status(self):
                busy = self.until is not None and time.monotonic() < self.until
                return SourceStatus.BUSY if busy else SourceStatus.READY

            def propose(self, n, context):
                self.calls += 1
                if self.until is not None:
                    self.until = None
                    return super().propose(n, context)
                self.until = time.monotonic() + 0.5
                return []

        class Empty(P1Source):
            name = "empty"

            def propose(self, n, context):
                return []

        slow = Slow()
        run = search(tmp_path, slow, Empty())
        assert run.run(relaxations=3).progress.relaxations == 3
        assert slow.calls <= 8  # one to begin and one to collect
        assert run.archive.state.calls["empty"] <= 12

    def test_search_does_not_wait_for_a_source_with_too_many_errors(self, tmp_path):
        class Stuck(P1Source):
            name = "stuck"
            max_errors = 1
            calls = 0

            def status(self):
                return SourceStatus.BUSY if self.calls else SourceStatus.READY

            def propose(self, n, context):
                self.calls += 1
                raise RuntimeError("never")

        run = search(tmp_path, Stuck(), ListSource(crystals(3)))
        assert run.run(relaxations=8, hours=30 / 3600).stopped == "sources exhausted"

    def test_every_source_is_closed_even_if_one_fails_to_close(self, tmp_path):
        closed = []

        class Bad(P1Source):
            name = "bad"

            def close(self):
                raise RuntimeError("cannot")

        class Good(P1Source):
            name = "good"

            def close(self):
                closed.append(True)

        run = search(tmp_path, Good(), Bad(), Good())
        with pytest.raises(RuntimeError, match="cannot"):
            run.close()
        assert closed == [True, True]
        search(tmp_path, Good(), Bad(), Good())  # the directory is free again

    def test_progress_is_reported(self, tmp_path):
        seen = []
        search(tmp_path).run(relaxations=4, on_progress=seen.append)
        assert [progress.relaxations for progress in seen[:4]] == [1, 2, 3, 4]
        assert seen[-1].level == "refine"

    def test_search_is_resumable_after_a_backend_error(self, tmp_path):
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

    def test_progress_is_reported_while_jobs_run(self, tmp_path):
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

    def test_exception_of_on_progress_does_not_interrupt_an_activity(self, tmp_path):
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

    def test_search_is_resumable_after_ctrl_c(self, tmp_path):
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
