"""Plans of comparisons on chemical systems."""

from itertools import pairwise

import ase.io
import pytest
from ase.build import bulk

from hybridcsp.errors import InputError
from hybridcsp.workflows.compare_systems import plan_systems

CU_AU = {
    "problem": {"elements": "Cu-Au", "composition_grid": 2, "max_atoms": 2},
    "search": {"calculator": "emt"},
    "budget": {"relaxations": 8, "refine": 0},
}


def test_every_composition_alone_has_an_equal_share(tmp_path):
    plan = plan_systems({"Cu-Au": CU_AU}, ["random", "separate:random"], range(2), tmp_path)
    assert [(run.strategy, run.seed, len(run.parts)) for run in plan.runs] == [
        ("random", 0, 1),
        ("separate:random", 0, 3),
        ("random", 1, 1),
        ("separate:random", 1, 3),
    ]
    for run in plan.runs:
        assert sum(part.relaxations for part in run.parts) == 8
    alone = plan.runs[1].parts
    assert [part.problem for part in alone] == ["Cu", "CuAu", "Au"]
    assert sorted(part.relaxations for part in alone) == [2, 3, 3]
    assert alone[1].raw["problem"]["max_atoms"] == 2
    assert len({part.directory for part in plan.searches}) == 8


def test_more_relaxations_take_none_from_any_composition(tmp_path):
    shares = []
    for number in range(3, 12):
        tables = CU_AU | {"budget": {"relaxations": number}}
        (run,) = plan_systems({"Cu-Au": tables}, ["separate:random"], [3], tmp_path).runs
        shares.append([part.relaxations for part in run.parts])
    assert all(a <= b for before, after in pairwise(shares) for a, b in zip(before, after, strict=True))


def test_known_phases_are_not_given_to_the_runs(tmp_path):
    ase.io.write(tmp_path / "known.extxyz", [bulk("Cu"), bulk("Ni"), bulk("Au")])
    tables = CU_AU | {"search": {"calculator": "emt", "references": [str(tmp_path / "known.extxyz")]}}
    plan = plan_systems({"Cu-Au": tables}, ["random"], [0], tmp_path / "runs")
    assert "references" not in plan.runs[0].parts[0].raw["search"]
    assert plan.known["Cu-Au"].relaxations == 2  # nickel does not belong to the system
    assert plan.searches[0] is plan.known["Cu-Au"]


def test_mistakes_are_reported_before_any_run_starts(tmp_path):
    few = CU_AU | {"budget": {"relaxations": 2}}
    with pytest.raises(InputError, match="at least 3, one for each composition of Cu-Au that is searched alone"):
        plan_systems({"Cu-Au": few}, ["separate:random"], [0], tmp_path)
    with pytest.raises(InputError, match="needs a search of a chemical system"):
        plan_systems({"Cu-Au": CU_AU}, ["separate:random+variable-composition"], [0], tmp_path)
    with pytest.raises(InputError, match="joined by"):
        plan_systems({"Cu-Au": CU_AU}, ["separate:"], [0], tmp_path)
    with pytest.raises(InputError, match="strategies is missing"):
        plan_systems({"Cu-Au": CU_AU}, [], [0], tmp_path)
    lost = CU_AU | {"search": {"calculator": "emt", "references": [str(tmp_path / "lost.cif")]}}
    with pytest.raises(InputError, match="there is no such file or folder"):
        plan_systems({"Cu-Au": lost}, ["random"], [0], tmp_path)
    follow_up = CU_AU | {"then": {"calculators": ["lj"]}}
    with pytest.raises(InputError, match="follow-ups are not available in a search of a chemical system"):
        plan_systems({"Cu-Au": follow_up}, ["random"], [0], tmp_path)
    assert list(tmp_path.iterdir()) == []
