import sys
from importlib.metadata import version

import pytest
from ase.calculators.emt import EMT
from crystals import InlineBackend, ListSource, P1Source, instant_relaxation

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.errors import ArchiveError, InputError, UnknownNameError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import build_calculator
from hybridcsp.relaxation.calculators.server.builders import build_emt
from hybridcsp.search.allocation import Allocation, EqualAllocation
from hybridcsp.search.settings import SearchSettings

#: The settings that version 0.1.0 recorded for this search, in the order of their keys.
RECORDED = {
    "problem": Problem("Cu").describe(),
    "calculator": {"python": "ase.calculators.emt.EMT"},
    "sources": ["random", {"python": "crystals.ListSource"}],
    "allocation": {"python": "hybridcsp.search.allocation.EqualAllocation"},
    "seed": 3,
    "workers": 2,
}


def recorded(directory):
    with Archive(directory) as archive:
        return archive.state.settings[-1]


def test_settings_and_keywords_make_the_same_search(tmp_path):
    keywords = {"calculator": "emt", "sources": ["random"], "seed": 4, "workers": 1}
    Search("Cu", directory=tmp_path / "keywords", max_atoms=4, **keywords).close()
    Search(Problem("Cu", max_atoms=4), SearchSettings(**keywords), directory=tmp_path / "settings").close()
    assert recorded(tmp_path / "keywords") == recorded(tmp_path / "settings")


def test_keywords_replace_fields_of_the_settings(tmp_path):
    settings = SearchSettings(calculator="emt", sources=("random",), seed=4)
    with Search("Cu", settings, directory=tmp_path, seed=5) as search:
        assert (search.settings.seed, search.settings.calculator) == (5, "emt")


def test_record_of_the_settings_is_unchanged(tmp_path):
    sources = ["random", ListSource([])]
    Search(
        "Cu", calculator=EMT(), sources=sources, allocation=EqualAllocation(), seed=3, workers=2, directory=tmp_path
    ).close()
    found = recorded(tmp_path)
    others = ["relaxation", "limits", "retraining", "external", "one_shot", "weights"]
    assert list(found) == ["version", *RECORDED, *others]
    assert {name: found[name] for name in RECORDED} == RECORDED
    assert (found["version"], found["one_shot"], found["external"]) == (version("hybridcsp"), 12, {})


@pytest.mark.parametrize(
    "given",
    [
        {"calculator": "emt", "python": sys.executable, "precision": "float64"},
        {"calculator": CalculatorChoice(calculator="emt", python="/nothing", precision="float64"), "python": "python3"},
    ],
)
def test_options_of_the_calculator_are_recorded_where_they_are_given(tmp_path, given):
    Search("Cu", sources=["random"], directory=tmp_path, **given).close()
    found = recorded(tmp_path)
    assert (found["calculator"], found["python"], found["precision"]) == ("emt", given["python"], "float64")
    assert "device" not in found


def test_interpreter_may_change_and_precision_may_not(tmp_path):
    keywords = {"calculator": "emt", "sources": ["random"], "directory": tmp_path}
    Search("Cu", python=sys.executable, **keywords).close()
    Search("Cu", **keywords).close()
    with pytest.raises(ArchiveError, match="precision was None, now 'float64'"):
        Search("Cu", precision="float64", **keywords)
    Search("Cu", precision="float64", allow_calculator_change=True, **keywords).close()


def test_options_need_a_calculator(tmp_path):
    with pytest.raises(InputError, match="device = 'cuda' cannot be used: it belongs to a calculator"):
        Search("Cu", calculator=None, device="cuda", directory=tmp_path)


def test_interpreter_that_cannot_be_used_is_an_error_before_the_directory_is_made(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        Search("Cu", calculator="emt", python="nowhere/python", directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_search_with_a_calculator_server_is_the_search_without_one(tmp_path):
    energies = []
    for name, python in (("here", None), ("there", sys.executable)):
        with Search(
            "Cu", calculator="emt", python=python, sources=["random"], workers=1, max_atoms=4, directory=tmp_path / name
        ) as search:
            search.run(relaxations=4, refine=0)
            energies.append([(minimum.id, minimum.enthalpy_per_atom) for minimum in search.minima()])
            assert search.archive.state.calculator == build_calculator("emt")[1]
    assert energies[0] == energies[1]


def test_samples_of_generators_are_single_jobs_for_ask_and_tell(tmp_path):
    with Search("Cu", calculator=None, sources=[P1Source()], directory=tmp_path / "told") as search:
        assert search.settings.one_shot == 1
    backend = InlineBackend(instant_relaxation)
    with Search("Cu", calculator=None, sources=[P1Source()], directory=tmp_path / "run", backend=backend) as search:
        assert search.settings.one_shot == 12


def test_none_stands_for_the_default_of_a_setting(tmp_path):
    options = {"relaxation": None, "limits": None, "retraining": None, "external": None, "workers": None}
    with Search("Cu", calculator="emt", sources=["random"], directory=tmp_path, **options) as search:
        assert search.settings.workers >= 1
        assert search.settings.limits == SearchSettings().limits


def test_an_allocation_is_a_subclass_of_the_base_class():
    class Incomplete:
        def choose(self, available):
            return available[0]

    with pytest.raises(InputError, match=r"allocation = .*subclass of hybridcsp\.search\.allocation\.Allocation"):
        SearchSettings(allocation=Incomplete())


def test_hooks_of_an_allocation_may_be_left_out(tmp_path):
    class Last(Allocation):
        def choose(self, available):
            return available[-1]

    with Search(
        "Cu",
        calculator=None,
        sources=[P1Source(), P1Source()],
        allocation=Last(),
        backend=InlineBackend(instant_relaxation),
        directory=tmp_path,
        formula_units=2,
    ) as search:
        search.run(relaxations=3, refine=0)
        assert {source for source, _ in search.archive.state.tallies} == {"p1-2"}


@pytest.mark.parametrize(
    ("setting", "former", "present"),
    [
        ("allocation", "hybridcsp.allocation.EqualShares", EqualAllocation()),
        ("calculator", "hybridcsp.relaxation.calculators.build_emt", build_emt),
    ],
)
def test_directory_with_former_names_of_objects_is_resumed(tmp_path, setting, former, present):
    options = {"calculator": "emt", "sources": ["random"], "workers": 1} | {setting: present}
    with Search("Cu", directory=tmp_path, **options) as search:
        settings = dict(search.archive.state.settings[-1])
        search.archive.open_session(settings | {setting: {"python": former}})
    Search("Cu", directory=tmp_path, **options).close()
    with pytest.raises(ArchiveError, match="another search"):
        Search("Cu", directory=tmp_path, **options | {setting: "emt" if setting == "calculator" else "earnings"})


def test_an_unknown_keyword_lists_fields_of_settings_and_problem(tmp_path):
    with pytest.raises(UnknownNameError, match=r"one of .*allow_calculator_change.*formula_units.*seed"):
        Search("Cu", directory=tmp_path / "run", nonsense=1)
