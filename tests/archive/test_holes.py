"""Holes of the potential are told from low minima, and the search makes no use of them."""

import pytest
from archives import record_proposals
from ase.build import bulk
from crystals import relaxed

from hybridcsp.analysis.minima_report import minima_rows
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.credit import CreditTracker
from hybridcsp.archive.heights import Heights
from hybridcsp.archive.history import SourceCall
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.search.lowest_minima import LowestMinima

ORDINARY = [bulk("Cu", a=3.5 + 0.03 * n) for n in range(10)]  # each of another energy
COLLAPSED = bulk("Cu", a=1.9)
USUAL_HEIGHTS = [0.02 * n for n in range(10)]


def record(archive, structures, energies):
    candidates = record_proposals(archive, structures)
    ends = zip(candidates, energies, structures, strict=True)
    return archive.record_outcomes([relaxed(candidate, energy, atoms) for candidate, energy, atoms in ends])


@pytest.fixture
def archive(tmp_path):
    with Archive(tmp_path, write=True) as archive:
        record(archive, ORDINARY, USUAL_HEIGHTS)
        yield archive


def test_a_minimum_far_below_all_others_with_atoms_too_close_is_suspect(archive):
    (hole,) = record(archive, [COLLAPSED], [-3.0])
    assert hole.suspect
    assert [minimum.suspect for minimum in archive.minima(2)] == [True, False]
    assert [preferred.minimum.id for preferred in archive.preferred_minima(1)] == [1]
    assert archive.preferred_minima(1)[0].height == 0.0
    assert archive.state.suspects == (hole.minimum,)


def test_a_low_minimum_with_usual_distances_is_not_suspect(archive):
    (found,) = record(archive, [bulk("Cu", "hcp", a=2.5, c=4.1)], [-3.0])
    assert not found.suspect
    assert archive.state.suspects == ()


def test_close_atoms_alone_are_not_suspect(archive):
    (found,) = record(archive, [COLLAPSED], [-0.05])
    assert not found.suspect


def test_a_hole_that_is_found_first_is_told_when_there_are_others(tmp_path):
    with Archive(tmp_path, write=True) as archive:
        (first,) = record(archive, [COLLAPSED], [-3.0])
        assert not first.suspect
        record(archive, ORDINARY, USUAL_HEIGHTS)
        assert archive.state.suspects == (first.minimum,)
    reopened = Archive(tmp_path)
    assert reopened.state.suspects == (first.minimum,)
    assert reopened.minima()[0].suspect
    outcomes = [outcome for outcome in reopened.history() if not isinstance(outcome, SourceCall)]
    assert not any(outcome.suspect for outcome in outcomes if isinstance(outcome, Relaxed))  # as it was known then


def test_a_suspect_is_cleared_when_more_minima_are_like_it(archive):
    (hole,) = record(archive, [COLLAPSED], [-3.0])
    likes = [bulk("Cu", "hcp", a=1.3 + 0.03 * n, c=2.2) for n in range(3)]
    record(archive, likes, [-3.02, -2.98, -2.95])
    assert archive.state.suspects == ()
    assert not archive.state.basins[hole.minimum].suspect


def test_sources_do_not_measure_heights_from_a_hole(archive):
    heights = Heights()
    for outcome in archive.history():
        if isinstance(outcome, Relaxed):
            heights.observe(outcome)
    (hole,) = record(archive, [COLLAPSED], [-3.0])
    heights.observe(hole)
    assert heights.lowest == pytest.approx(0.0)


def test_heights_and_credit_are_measured_anew_when_a_hole_is_told_later(tmp_path):
    spread = [0.06 * n for n in range(10)]  # so that each is a niche of its own
    with Archive(tmp_path, write=True) as archive:
        ends = record(archive, [COLLAPSED], [-3.0]) + record(archive, ORDINARY, spread)
    assert sum(end.suspects is not None for end in ends) == 1
    heights, credit, without = Heights(), CreditTracker(), CreditTracker()
    for key, end in enumerate(ends):
        heights.observe(end)
        credit.observe(end, key)
        if key:
            without.observe(end, key)
    assert heights.lowest == pytest.approx(0.0)
    assert credit.credit(1) == 1.0
    assert [credit.credit(key) for key in range(11)] == [without.credit(key) for key in range(11)]


def test_the_window_of_refinements_does_not_begin_at_a_hole(archive):
    record(archive, [COLLAPSED], [-3.0])
    assert len(archive.to_refine(4, 0.05)) == 4


def test_relaxations_are_not_compared_with_holes(archive):
    (hole,) = record(archive, [COLLAPSED], [-3.0])
    known = [one.id for one in LowestMinima(archive).lowest(archive.candidates)]
    assert known[0] == archive.preferred_minima(1)[0].minimum.id
    assert hole.minimum not in known


def test_reports_name_suspects(archive):
    archive.open_session({"problem": {"formula": "Cu"}})
    record(archive, [COLLAPSED], [-3.0])
    assert [row["suspect"] for row in minima_rows(archive.minima(3), archive)] == [True, False, False]
