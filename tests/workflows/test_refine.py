"""Follow-up relaxations of a finished search or an import."""

import subprocess
import sys

import pytest
from archives import record_proposals
from ase.build import bulk
from crystals import relaxed, what_happened

from hybridcsp import Problem
from hybridcsp.analysis.follow_ups import disagreement
from hybridcsp.archive.archive import Archive
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.workflows.refine import refine


def imported(directory, structures, formula="Cu"):
    """Make an archive of structures that another code has relaxed, without a calculator to go on with."""
    with Archive(directory, write=True) as archive:
        archive.open_session({"version": "1", "problem": Problem(formula).describe()})
        candidates = record_proposals(archive, structures, source="vasp")
        for number, candidate in enumerate(candidates):
            archive.record_outcomes([relaxed(candidate, -4.0 + 0.1 * number, calculator="vasp")])


def crystals():
    return [bulk("Cu", "bcc", a=2.9), bulk("Cu", "fcc", a=3.65), bulk("Cu", "hcp", a=2.6)]


def test_an_import_is_followed_up_without_the_calculator_of_its_energies(tmp_path):
    imported(tmp_path, crystals())
    seen = []
    summary = refine(tmp_path, FollowUp(calculators=("emt",)), workers=1, on_progress=seen.append)
    assert (summary.stopped, summary.progress.follow_ups_done, seen[-1].follow_ups_left) == ("followed up", 3, 0)
    with Archive(tmp_path) as archive:
        assert [minimum.id for minimum in archive.minima()] == [1, 2, 3]
        best, *_ = archive.final_minima()
        assert best.id == 3  # EMT prefers hcp
        assert best.final.evaluation.calculator.startswith("emt")
        assert archive.state.relaxations == 3
    before = what_happened(tmp_path)
    assert refine(tmp_path, FollowUp(calculators=("emt",)), workers=1).progress.follow_ups_done == 0
    assert what_happened(tmp_path) == before


def test_another_calculator_takes_the_place_of_the_one_before_whose_results_are_kept(tmp_path):
    imported(tmp_path, crystals())
    refine(tmp_path, FollowUp(calculators=("emt",)), workers=1)
    refine(tmp_path, FollowUp(calculators=("lj",)), workers=1)
    with Archive(tmp_path) as archive:
        assert [level.spec for level in archive.state.follow_ups] == ["lj"]
    summary = refine(tmp_path, FollowUp(calculators=("emt", "lj")), workers=1)
    with Archive(tmp_path) as archive:
        assert [level.results for level in archive.state.follow_ups] == [3, 3]
    assert summary.progress.follow_ups_done == 0


def test_what_cannot_be_followed_up_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="at least one calculator"):
        refine(tmp_path, FollowUp())
    with pytest.raises(ArchiveError, match="does not exist"):
        refine(tmp_path / "nowhere", FollowUp(calculators=("emt",)))
    imported(tmp_path / "empty", [])
    with pytest.raises(ArchiveError, match="no minima"):
        refine(tmp_path / "empty", FollowUp(calculators=("emt",)))


def test_a_calculator_that_does_not_know_the_elements_leaves_the_results_as_they_are(tmp_path, caplog):
    salt = bulk("NaCl", "rocksalt", a=5.6)
    imported(tmp_path, [salt], "NaCl")
    refine(tmp_path, FollowUp(calculators=("emt",)), workers=1)
    assert "none of 1 follow-up relaxations with emt has succeeded (1 calculator" in caplog.text
    with Archive(tmp_path) as archive:
        assert len(archive.final_minima()) == 1


def test_the_command_keeps_the_threshold_of_disagreement(tmp_path):
    imported(tmp_path, crystals()[:1])
    with Archive(tmp_path, write=True) as archive:
        then = FollowUp(calculators=("lj",), disagreement=0.05).record()
        archive.open_session(archive.state.settings[-1] | {"then": then})
    command = [sys.executable, "-m", "hybridcsp", "refine", str(tmp_path), "--with", "emt", "--workers", "1"]
    subprocess.run(command, check=True, capture_output=True)
    with Archive(tmp_path) as archive:
        assert [level.spec for level in archive.state.follow_ups] == ["emt"]
        assert disagreement(archive) == 0.05


@pytest.mark.parametrize("recorded", [{"relaxation": {"later": 1}}, {"limits": {"seconds": -1}}, {"limits": [1]}])
def test_recorded_settings_that_cannot_be_used_are_told_before_anything_is_written(tmp_path, recorded):
    imported(tmp_path, crystals()[:1])
    with Archive(tmp_path, write=True) as archive:
        archive.open_session(archive.state.settings[-1] | recorded)
    with pytest.raises(ArchiveError, match="records settings that cannot be used"):
        refine(tmp_path, FollowUp(calculators=("emt",)), workers=1)
    with Archive(tmp_path) as archive:
        assert "then" not in archive.state.settings[-1]
