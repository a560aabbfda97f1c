import pytest

from hybridcsp import campaign
from hybridcsp.errors import BackendError, InputError, UnknownNameError

COPPER = {
    "problem": {"formula": "Cu", "max_atoms": 2},
    "search": {"calculator": "emt"},
    "budget": {"relaxations": 3, "refine": 0},
}


def quietly(done, total):
    assert 0 <= done <= total


def test_every_strategy_runs_every_seed_in_a_directory_of_its_own(tmp_path):
    runs = campaign.plan({"Cu": COPPER}, ["random", "random+seeds:x", "random"], range(2), tmp_path)
    assert [(run.strategy, run.seed) for run in runs] == [
        ("random", 0),
        ("random+seeds:x", 0),
        ("random", 1),
        ("random+seeds:x", 1),
    ]
    assert len({run.directory for run in runs}) == 4
    assert runs[1].raw["search"]["sources"] == ["random", "seeds:x"]


def test_mistakes_are_found_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="joined by"):
        campaign.plan({"Cu": COPPER}, ["random+"], range(1), tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        campaign.plan({"Cu": COPPER}, ["random", "random+randm"], range(1), tmp_path)
    with pytest.raises(InputError, match="sources = 'shake': works on what other sources find"):
        campaign.plan({"Cu": COPPER}, ["random+shake", "shake"], range(1), tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'emt'"):
        campaign.plan({"Cu": COPPER | {"search": {"calculator": "emtt"}}}, ["random"], range(1), tmp_path)
    with pytest.raises(InputError, match="relaxations"):
        campaign.plan({"Cu": COPPER | {"budget": {"relaxations": 0}}}, ["random"], range(1), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_only_what_is_missing_is_done(tmp_path):
    first = campaign.plan({"Cu": COPPER}, ["random"], range(1), tmp_path)
    campaign.execute(first, parallel=2, trust=False, on_progress=quietly)
    before = (first[0].directory / "search.db").stat().st_mtime_ns
    assert first[0].finished

    more = COPPER | {"budget": {"relaxations": 3, "refine": 0}}
    runs = campaign.plan({"Cu": more}, ["random"], range(2), tmp_path)
    assert [run.done() for run in runs] == [3, 0]
    campaign.execute(runs, parallel=2, trust=False, on_progress=quietly)
    assert (first[0].directory / "search.db").stat().st_mtime_ns == before

    longer = campaign.plan({"Cu": COPPER | {"budget": {"relaxations": 5, "refine": 0}}}, ["random"], range(1), tmp_path)
    campaign.execute(longer, parallel=1, trust=False, on_progress=quietly)
    assert longer[0].done() == 5

    with pytest.raises(InputError, match="as before"):
        target = {"budget": {"relaxations": 5, "refine": 0, "stop_at": -1.0}}
        campaign.plan({"Cu": COPPER | target}, ["random"], range(1), tmp_path)


@pytest.mark.slow
def test_a_run_that_breaks_says_why(tmp_path):
    runs = campaign.plan({"Cu": COPPER}, ["seeds:nothing.cif"], range(1), tmp_path)
    with pytest.raises(BackendError, match=r"nothing\.cif"):
        campaign.execute(runs, parallel=1, trust=False, on_progress=quietly)
