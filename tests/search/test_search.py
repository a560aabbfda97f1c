import re

import pytest
from ase.build import bulk
from ase.io import write
from copper import search
from crystals import InlineBackend

from hybridcsp import Problem, Search
from hybridcsp.errors import ArchiveError, InputError, UnknownNameError
from hybridcsp.relaxation.backends import WorkerPool
from hybridcsp.relaxation.settings import RelaxationSettings


class TestInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"workers": 0}, "workers = 0"),
            ({"seed": -1}, "seed = -1"),
            ({"seed": "3"}, "seed = '3' is not valid: it must be a whole number from 0"),
            ({"workers": 1.5}, "workers = 1.5 is not valid: it must be a whole number from 1"),
            ({"one_shot": 0}, "one_shot = 0"),
            ({"sources": []}, "at least one source"),
            ({"sources": "random"}, "a list of at least one source"),
            ({"sources": ["shake", "shake"]}, "cannot run alone; add another source"),
            ({"allocation": "earning"}, "did you mean 'earnings'"),
            ({"relaxation": RelaxationSettings(pressure_gpa=5)}, "set pressure_gpa of the problem"),
        ],
    )
    def test_invalid_options_are_refused_before_the_directory_is_made(self, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            Search("Cu", calculator="emt", directory=tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()

    def test_error_suggests_the_likely_name(self, tmp_path):
        with pytest.raises(UnknownNameError, match="did you mean 'chgnet'"):
            Search("Cu", calculator="chgnt", directory=tmp_path)
        with pytest.raises(UnknownNameError, match="did you mean 'random'"):
            Search("Cu", calculator="emt", sources=["randon"], directory=tmp_path)

    @pytest.mark.parametrize(
        ("keyword", "where"),
        [("max_force", "relaxation=RelaxationSettings"), ("seconds", "limits=Limits"), ("relaxations", "run()")],
    )
    def test_error_names_the_argument_that_takes_a_nested_setting(self, tmp_path, keyword, where):
        with pytest.raises(UnknownNameError, match=re.escape(f"pass {keyword} to {where}")):
            Search("Cu", directory=tmp_path / "run", **{keyword: 1})

    def test_error_suggests_the_likely_stopping_criterion(self, tmp_path):
        with (
            Search("Cu", calculator="emt", directory=tmp_path / "run", sources=["random"]) as search,
            pytest.raises(UnknownNameError, match="did you mean 'relaxations'"),
        ):
            search.run(relaxation=3)

    @pytest.mark.parametrize("problem", ["Cu", Problem("Cu")])
    @pytest.mark.parametrize(
        ("keyword", "meant"), [("calcualtor", "calculator"), ("max_atom", "max_atoms"), ("formulas", None)]
    )
    def test_error_suggests_the_likely_keyword(self, tmp_path, problem, keyword, meant):
        hint = f"did you mean '{meant}'" if meant else "must be one of "
        with pytest.raises(UnknownNameError, match=f"keyword = '{keyword}' .*{hint}"):
            Search(problem, directory=tmp_path / "run", **{keyword: "emt"})
        assert not (tmp_path / "run").exists()

    def test_different_search_in_the_same_directory_is_refused(self, tmp_path):
        Search("Cu", calculator="emt", directory=tmp_path).close()
        with pytest.raises(ArchiveError, match="seed was 0, now 1"):
            Search("Cu", calculator="emt", directory=tmp_path, seed=1)

    def test_running_needs_a_calculator(self, tmp_path):
        with pytest.raises(InputError, match="use ask"):
            Search("Cu", calculator=None, directory=tmp_path).run(relaxations=1)

    @pytest.mark.parametrize("stop_at", ["nothing.cif", float("inf")])
    def test_unusable_target_is_refused(self, tmp_path, stop_at):
        with pytest.raises(InputError, match="stop_at"):
            search(tmp_path).run(stop_at=stop_at)

    def test_target_of_other_composition_is_refused(self, tmp_path):
        bulk("Ag").write(tmp_path / "silver.cif")
        with pytest.raises(InputError, match="a structure file of Cu"):
            search(tmp_path / "run").run(stop_at=str(tmp_path / "silver.cif"))

    def test_target_with_several_structures_is_refused(self, tmp_path):
        write(tmp_path / "two.extxyz", [bulk("Cu"), bulk("Cu", "bcc", a=2.9)])
        with pytest.raises(InputError, match="this one holds several"):
            search(tmp_path / "run").run(stop_at=str(tmp_path / "two.extxyz"))

    @pytest.mark.parametrize("source", ["prototypes", "random", "swarm", "shake"])
    def test_incompatible_space_groups_are_refused_for_every_source(self, tmp_path, source):
        # Two atoms in a primitive cell fit into the diamond structure's group, one does not.
        with pytest.raises(InputError, match=r"spacegroups.*do not hold 1 x Si in a primitive cell"):
            Search("Si", formula_units=1, spacegroups=(227,), sources=[source, "random"], directory=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("backend", [WorkerPool, InlineBackend, lambda job: job, "pool"])
    def test_backend_of_another_kind_is_refused(self, tmp_path, backend):
        with pytest.raises(InputError, match=r"backend = .*must be an instance of a subclass of .*\.Backend"):
            Search("Cu", calculator="emt", directory=tmp_path / "run", backend=backend)
        assert not (tmp_path / "run").exists()

    def test_problem_object_takes_no_further_fields(self, tmp_path):
        with pytest.raises(InputError, match="max_atoms cannot be added"):
            Search(Problem("Cu"), calculator="emt", directory=tmp_path, max_atoms=3)
