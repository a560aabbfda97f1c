import pytest
from ase.build import bulk
from ase.io import write
from copper import crystals, search
from crystals import ListSource, P1Source, instant_relaxation, relaxed

from hybridcsp import Proposal
from hybridcsp.archive.history import ModelUpdate
from hybridcsp.core.outcomes import Failed, FailureReason
from hybridcsp.errors import InputError, RelaxationsFailedError
from hybridcsp.search.stopping import StoppingCheck, StoppingCriteria
from hybridcsp.sources.base import SourceStatus


def test_failed_relaxations_count(tmp_path):
    def failing(job):
        if job.candidate.id % 2:
            return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)
        return instant_relaxation(job)

    summary = search(tmp_path, runner=failing).run(relaxations=10)
    assert summary.stopped == "relaxations used up"
    assert summary.progress.relaxations == 10
    assert summary.progress.failed > 0


def test_criteria_hold_for_the_whole_search(tmp_path):
    first = search(tmp_path)
    first.run(relaxations=6)
    first.close()
    again = search(tmp_path)
    assert again.run(relaxations=10).progress.run_relaxations == 4
    assert again.run(relaxations=10).progress.run_relaxations == 0


def test_force_calls_end_the_search_after_running_relaxations(tmp_path):
    def costing(job):
        from dataclasses import replace

        from hybridcsp.core.records import Cost

        return replace(instant_relaxation(job), cost=Cost(force_calls=30))

    summary = search(tmp_path, runner=costing).run(force_calls=100, refine=0)
    assert summary.stopped == "force calls used up"
    assert summary.progress.force_calls == 120


def test_time_ends_the_search(tmp_path):
    summary = search(tmp_path).run(hours=1 / 3600)
    assert summary.stopped == "time used up"
    assert summary.progress.run_seconds < 300


def test_time_is_the_reason_also_between_two_readings_of_the_clock(tmp_path, monkeypatch):
    looks = iter([False, False])
    monkeypatch.setattr(StoppingCheck, "is_time_used_up", property(lambda _: next(looks, True)))
    assert search(tmp_path).run(hours=1).stopped == "time used up"


def test_unchanged_best_ends_the_search(tmp_path):
    energies = iter([-3.0, -3.1, -3.1005, -2.0, -2.1, -2.2, -9.9])
    source = ListSource(crystals(7))
    summary = search(tmp_path, source, runner=lambda job: relaxed(job.candidate, next(energies), job.atoms)).run(
        stop_after_unchanged=3, refine=0
    )
    assert summary.stopped == "best unchanged"
    assert summary.progress.relaxations == 5


def test_target_enthalpy_ends_the_search(tmp_path):
    energies = iter([-3.0, -3.2, -3.4])
    source = ListSource(crystals(3))
    summary = search(tmp_path, source, runner=lambda job: relaxed(job.candidate, next(energies), job.atoms)).run(
        stop_at=-3.2, refine=0
    )
    assert (summary.stopped, summary.progress.relaxations) == ("target reached", 2)


def test_target_structure_ends_the_search(tmp_path):
    wanted = crystals(4)[2]
    copy = wanted.repeat((2, 1, 1))
    copy.rotate(30, (1, 1, 0), rotate_cell=True)
    copy.write(tmp_path / "wanted.cif")
    summary = search(tmp_path / "run", ListSource(crystals(4))).run(stop_at=str(tmp_path / "wanted.cif"), refine=0)
    assert (summary.stopped, summary.progress.relaxations) == ("target reached", 3)


def test_exhausted_sources_end_the_search(tmp_path):
    summary = search(tmp_path, ListSource(crystals(3))).run(relaxations=10)
    assert (summary.stopped, summary.progress.relaxations) == ("sources exhausted", 3)


def test_search_ends_without_acceptable_proposals(tmp_path, monkeypatch):
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
def test_consecutive_equal_failures_end_the_search(tmp_path, details, stopped_at):
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


def test_failures_are_counted_anew_after_a_failed_search(tmp_path):
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


def test_failures_are_counted_across_a_kill(tmp_path):
    def failing(job):
        return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

    first = search(tmp_path, runner=failing)
    first.run(relaxations=2, stop_after_failures=3)
    first.close()
    with pytest.raises(RelaxationsFailedError, match="none of 3"):
        search(tmp_path, runner=failing).run(relaxations=9, stop_after_failures=3)


def test_zero_turns_the_criterion_of_failures_off(tmp_path):
    def failing(job):
        return Failed(candidate=job.candidate, reason=FailureReason.OVERLAP)

    summary = search(tmp_path, runner=failing).run(relaxations=15, stop_after_failures=0)
    assert (summary.stopped, summary.progress.failed) == ("relaxations used up", 15)


@pytest.mark.parametrize(
    "criteria", [{"relaxations": "10"}, {"force_calls": 2.5}, {"refine": -1}, {"hours": "2"}, {"hours": 0}]
)
def test_criteria_of_wrong_types_are_refused(criteria):
    ((name, value),) = criteria.items()
    with pytest.raises(InputError, match=f"{name} = {value!r} is not valid: it must be a (whole|positive) number"):
        StoppingCriteria(**criteria)


class Same(P1Source):
    """Proposes one structure again and again, and is interrupted at one of its calls."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__()
        self.interrupted_at = interrupted_at

    def propose(self, n, context):
        if self.interrupted_at is not None:
            self.interrupted_at -= 1
            if self.interrupted_at < 0:
                raise KeyboardInterrupt
        return [Proposal(atoms=bulk("Cu"), operator="same")]


def test_a_search_ends_early_if_only_known_structures_are_proposed(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridcsp.search.proposer.MOST_DUPLICATES", 7)
    whole = search(tmp_path / "whole", Same()).run(relaxations=10, refine=0)
    assert whole.stopped.startswith("nothing new can be found, because")
    assert whole.progress.relaxations == 1
    assert 7 <= whole.progress.rejected <= 14  # before and after the outcome of the only structure
    with search(tmp_path / "parts", Same(interrupted_at=4)) as first, pytest.raises(KeyboardInterrupt):
        first.run(relaxations=10, refine=0)
    parts = search(tmp_path / "parts", Same()).run(relaxations=10, refine=0)
    assert parts.stopped == whole.stopped
    assert (parts.progress.relaxations, parts.progress.rejected) == (1, whole.progress.rejected)


def test_a_source_of_known_structures_does_not_end_a_search_whose_other_sources_find_new_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridcsp.search.proposer.MOST_DUPLICATES", 1)
    summary = search(tmp_path / "run", Same(), P1Source()).run(relaxations=5, refine=0)
    assert summary.progress.relaxations == 5


class Preparing(P1Source):
    """Prepares its proposals in the background for a while."""

    def __init__(self):
        super().__init__()
        self.left = 6

    def status(self):
        self.left -= 1
        return SourceStatus.READY if self.left < 0 else SourceStatus.BUSY


def test_a_source_of_known_structures_does_not_end_a_search_before_background_work_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridcsp.search.proposer.MOST_DUPLICATES", 1)
    summary = search(tmp_path / "run", Same(), Preparing()).run(relaxations=3, refine=0)
    assert summary.progress.relaxations == 3


def test_given_structures_that_are_known_do_not_end_a_search_before_new_ones_come(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridcsp.search.proposer.PATIENCE", 10)
    monkeypatch.setattr("hybridcsp.search.proposer.MOST_DUPLICATES", 5)
    write(tmp_path / "seeds.extxyz", [bulk("Cu")] * 30 + [bulk("Cu", "bcc", 2.9)])
    summary = search(tmp_path / "run", f"seeds:{tmp_path / 'seeds.extxyz'}").run(relaxations=5, refine=0)
    assert summary.progress.relaxations == 2
    assert summary.progress.rejected == 29


def test_a_source_of_known_structures_is_called_again_when_it_has_learned(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridcsp.search.proposer.MOST_DUPLICATES", 7)
    with search(tmp_path, Same()) as first:
        before = first.run(relaxations=10, refine=0).progress.rejected
        (name,) = first.sources
        first.archive.record_model_update(ModelUpdate(source=name, versions=(0,)))
    after = search(tmp_path, Same()).run(relaxations=10, refine=0)
    assert after.stopped.startswith("nothing new can be found")
    assert after.progress.rejected == before + 7
