"""Follow-up relaxations in an archive, and the ranking that follows from them."""

import numpy as np
import pytest
from archives import record_proposals, summary
from ase.build import bulk
from crystals import random_crystal, relaxed

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed, FailureReason, FollowUpOutcome
from hybridcsp.core.records import FOLLOW_UP, REFINE, Cost


def crystals(n, seed=0):
    rng = np.random.default_rng(seed)
    return [random_crystal("Cu4", 12, rng) for _ in range(n)]


def search_of(directory, energies, seed=0):
    """Return an archive with one minimum for each energy, and their structures."""
    archive = Archive(directory, write=True)
    structures = crystals(len(energies), seed)
    candidates = record_proposals(archive, structures)
    for candidate, energy in zip(candidates, energies, strict=True):
        archive.record_outcomes([relaxed(candidate, energy, cost=Cost(force_calls=10))])
    return archive, structures


def follow(archive, of, energy, atoms=None, *, spec="better", label="better 1", number=1, **changes):
    """Record a follow-up relaxation of a minimum; it stays where it is if no structure is given."""
    best = archive.state.basins[archive.state.follow_ups.present(of)].best
    candidate = archive.candidate(best.candidate)
    ended = relaxed(
        candidate, energy, atoms, level=FOLLOW_UP, calculator=label, cost=Cost(force_calls=5, seconds=1.0), **changes
    )
    (recorded,) = archive.record_follow_ups(
        [FollowUpOutcome(of=of, number=number, spec=spec, calculator=label, outcome=ended)]
    )
    return recorded


def fail(archive, of, label="", spec="better"):
    candidate = archive.candidate(archive.state.basins[of].best.candidate)
    ended = Failed(
        candidate=candidate, reason=FailureReason.CALCULATOR, level=FOLLOW_UP, detail="no", cost=Cost(force_calls=2)
    )
    archive.record_follow_ups([FollowUpOutcome(of=of, number=1, spec=spec, calculator=label, outcome=ended)])


def final(archive):
    return [minimum.id for minimum in archive.final_minima()]


def test_follow_ups_change_nothing_of_the_search_itself(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9, -2.8])
    before = summary(archive)
    follow(archive, 2, -7.0)
    fail(archive, 1)
    assert summary(archive) == before
    assert archive.state.follow_ups.levels[0].cost == Cost(force_calls=7, seconds=1.0)


def test_the_last_calculator_decides_the_ranking_as_far_as_it_has_results(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9, -2.8, -2.7])
    assert final(archive) == [1, 2, 3, 4]
    follow(archive, 3, -7.0)
    follow(archive, 2, -7.1)
    follow(archive, 1, -6.5)
    assert final(archive) == [2, 3, 1, 4]
    follow(archive, 3, -20.0, spec="best", label="best 1", number=2)
    assert final(archive) == [3, 2, 1, 4]
    third, _, first, fourth = archive.final_minima()
    assert [result.spec for result in third.follow_ups] == ["better", "best"]
    assert (third.search_rank, third.search_height) == (3, pytest.approx(0.2))
    assert third.final.enthalpy_per_atom == pytest.approx(-20.0)
    assert third.best.enthalpy_per_atom == pytest.approx(-2.8)
    assert third.atoms.get_potential_energy() / 4 == pytest.approx(-20.0)
    assert [(result.rank, result.height) for result in first.follow_ups] == [(3, pytest.approx(0.6))]
    assert fourth.follow_ups == ()
    assert fourth.final is fourth.best
    assert len(archive.final_minima(2)) == 2


def test_disagreement_is_in_heights_or_in_structure(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9, -2.8])
    follow(archive, 1, -7.0)
    follow(archive, 2, -6.87)
    other = bulk("Cu", cubic=True)
    recorded = follow(archive, 3, -6.8, other)
    assert not archive.state.follow_ups.levels[0].result(3).same_structure
    assert recorded.outcome.minimum == 3
    first, second, third = archive.final_minima()
    assert not first.disagrees(0.02)
    assert second.disagrees(0.02)
    assert not second.disagrees(0.05)
    assert third.disagrees(1.0)


def test_minima_that_become_the_same_are_one_in_the_final_ranking(tmp_path):
    archive, structures = search_of(tmp_path, [-3.0, -2.9, -2.8, -2.7])
    follow(archive, 1, -6.9)
    follow(archive, 3, -7.0)
    recorded = follow(archive, 4, -7.001, structures[2])
    assert (recorded.outcome.minimum, recorded.outcome.is_new_minimum) == (2, False)
    merged, first, second = archive.final_minima()
    assert (merged.id, merged.merged) == (3, (4,))
    assert merged.final.enthalpy_per_atom == pytest.approx(-7.001)  # the best of both
    assert (first.id, second.id) == (1, 2)
    follow(archive, 3, -20.0, spec="best", label="best 1", number=2)  # the next calculator relaxes only one of them
    assert [(minimum.id, minimum.merged) for minimum in archive.final_minima()] == [(3, (4,)), (1, ()), (2, ())]


def test_results_of_a_calculator_that_has_changed_are_not_mixed_with_new_ones(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9, -2.8])
    follow(archive, 2, -7.0)
    follow(archive, 3, -6.9)
    follow(archive, 1, -50.0, label="better 2")
    level = archive.state.follow_ups.levels[0]
    assert (level.label, level.results, level.lowest()) == ("better 2", 1, pytest.approx(-50.0))
    assert level.result(2) is None
    assert not level.has_tried(2)
    assert final(archive) == [1, 2, 3]
    follow(archive, 1, -6.0)  # back again
    assert final(archive) == [2, 3, 1]


def test_failures_belong_to_the_label_that_is_known_or_follows(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9])
    fail(archive, 1)
    level = archive.state.follow_ups.levels[0]
    assert level.has_tried(1)
    follow(archive, 2, -7.0)
    assert level.has_tried(1)
    assert level.failed == {"calculator": 1}
    fail(archive, 2, label="better 2")
    assert not level.has_tried(1)


def test_a_relaxation_that_does_not_converge_is_no_result(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9])
    recorded = follow(archive, 2, -7.0, converged=False)
    level = archive.state.follow_ups.levels[0]
    assert recorded.outcome.minimum is None
    assert level.has_tried(2)
    assert (level.unconverged, level.given_up) == (1, 0)
    follow(archive, 1, -5.0, converged=False, start_enthalpies=(-5.0,))  # not relaxed at all
    assert (level.unconverged, level.given_up) == (1, 1)
    assert final(archive) == [1, 2]


def test_results_follow_a_minimum_that_is_absorbed_by_another(tmp_path):
    archive, structures = search_of(tmp_path, [-3.0, -2.9])
    candidate = archive.candidate(2)
    follow(archive, 2, -7.0)
    archive.record_outcomes([relaxed(candidate, -3.0, structures[0], level=REFINE)])
    assert sorted(archive.state.basins) == [1]
    level = archive.state.follow_ups.levels[0]
    assert level.result(1).of == 2
    assert final(archive) == [1]
    follow(archive, 2, -7.2)  # it was running when its minimum was absorbed
    assert level.result(1).enthalpy_per_atom == pytest.approx(-7.2)


def test_minima_are_preferred_by_their_heights_and_never_by_energies_of_different_calculators(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9, -2.8])
    state = archive.state
    assert [(basin.id, pytest.approx(height)) for basin, height in state.preferred()] == [(1, 0.0), (2, 0.1), (3, 0.2)]
    follow(archive, 1, 100.15)
    follow(archive, 3, 100.0)
    assert [(basin.id, pytest.approx(height)) for basin, height in state.preferred()] == [(3, 0.0), (2, 0.1), (1, 0.15)]


def test_improvements_of_a_level_are_its_new_lowest_minima(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9, -2.8])
    for of, energy in ((1, -7.0), (2, -6.0), (3, -7.5)):
        follow(archive, of, energy)
    assert archive.state.follow_ups.levels[0].improvements == [
        (3, 5, pytest.approx(-7.0)),
        (3, 15, pytest.approx(-7.5)),
    ]


def test_reading_gives_what_was_written(tmp_path):
    archive, structures = search_of(tmp_path, [-3.0, -2.9, -2.8])
    archive.open_session({"then": {"calculators": ["better", "best"]}})
    follow(archive, 1, -6.9)
    follow(archive, 3, -7.0, structures[0])
    fail(archive, 2)
    expected = [(m.id, m.merged, m.follow_ups[0].height if m.follow_ups else None) for m in archive.final_minima()]
    written = [one for one in archive.history() if isinstance(one, FollowUpOutcome)]
    archive.close()
    with Archive(tmp_path, write=True) as again:
        found = [(m.id, m.merged, m.follow_ups[0].height if m.follow_ups else None) for m in again.final_minima()]
        assert found == expected
        assert [level.spec for level in again.state.follow_ups] == ["better", "best"]
        assert [(one.of, type(one.outcome)) for one in written] == [
            (one.of, type(one.outcome)) for one in again.history() if isinstance(one, FollowUpOutcome)
        ]
        follow(again, 2, -7.001, structures[0])  # placed among minima that were read back
        assert [(minimum.id, minimum.merged) for minimum in again.final_minima()] == [(2, (3,)), (1, ())]


def test_the_order_of_calculators_may_change_between_sessions(tmp_path):
    archive, _ = search_of(tmp_path, [-3.0, -2.9])
    archive.open_session({"then": {"calculators": ["better"]}})
    follow(archive, 2, -7.0)
    archive.open_session({"then": {"calculators": ["best", "better"]}})
    assert [(level.spec, level.number) for level in archive.state.follow_ups] == [("best", 1), ("better", 2)]
    assert final(archive) == [2, 1]
    archive.open_session({"then": {"calculators": ["best"]}})
    assert final(archive) == [1, 2]
    archive.open_session({})
    assert [level.spec for level in archive.state.follow_ups] == ["best"]
