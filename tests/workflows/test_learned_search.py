"""Tests of searches with a potential that learns from an expensive calculator."""

from dataclasses import asdict

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from evaluated_crystals import SHORT, TINY, crystals

from hybridcsp import Problem, Search
from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.errors import InputError
from hybridcsp.io.structure_files import read_structures
from hybridcsp.potentials.committee import Committee
from hybridcsp.workflows.learned_rounds import LearningPlan, select
from hybridcsp.workflows.learned_search import LearnedSearch

pytest.importorskip("mace")

PLAN = LearningPlan(rounds=1, start=4, relaxations=3, selected=2, max_steps=8, members=2, most=16, epochs=1)


def learned(directory, plan=PLAN, **more):
    problem = Problem("CuAu", formula_units=1)
    return LearnedSearch(problem, "emt", plan, directory=directory, sources=["random"], workers=1, **more)


def minima_of(directory):
    with Archive(directory) as archive:
        return [(minimum.enthalpy_per_atom, minimum.best.candidate.id) for minimum in archive.minima()]


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_search_continues_after_every_interruption_and_reports_the_expensive_calculator_only(tmp_path):
    whole = learned(tmp_path / "whole").run()
    for step in ("relaxing 4", "round 1: training member 2", "round 1: relaxing"):

        def stop(text, step=step):
            if text.startswith(step):
                raise Killed

        with pytest.raises(Killed):
            learned(tmp_path / "parts", on_progress=stop).run()
    parts = learned(tmp_path / "parts").run()
    assert [asdict(one) for one in parts] == [asdict(one) for one in whole]
    assert minima_of(tmp_path / "parts") == minima_of(tmp_path / "whole")

    with Archive(tmp_path / "whole") as archive:
        relaxed = [one for one in archive.history() if isinstance(one, Relaxed)]
        assert archive.state.calculator.startswith("emt ")
        assert {one.evaluation.calculator for one in relaxed} == {archive.state.calculator}
        for minimum in archive.minima():
            assert minimum.best.evaluation.energy == pytest.approx(energy_of(minimum.best.atoms), abs=1e-6)
    for file in (tmp_path / "whole" / "evaluations").iterdir():
        for frame in read_structures(file):
            assert frame.atoms.info["calculator"].startswith("emt ")
    assert whole[1].learned > 0
    assert whole[1].relaxed + whole[1].stopped == 3
    assert whole[1].force_calls > whole[0].force_calls

    other = LearningPlan(**{**asdict(PLAN), "selected": 3})
    with pytest.raises(InputError, match="another selected"):
        learned(tmp_path / "whole", other).run()


def test_object_as_calculator_is_recognised_when_the_search_is_continued(tmp_path):
    def stop(text):
        raise Killed

    problem = Problem("CuAu", formula_units=1)
    for _ in range(2):
        with pytest.raises(Killed):
            LearnedSearch(problem, EMT(), PLAN, directory=tmp_path, sources=["random"], on_progress=stop).run()
    with pytest.raises(InputError, match="another calculator"):
        LearnedSearch(problem, LennardJones(), PLAN, directory=tmp_path, sources=["random"], on_progress=stop).run()


def energy_of(atoms):
    again = atoms.copy()
    again.calc = EMT()
    return again.get_potential_energy()


def test_known_minima_are_not_promising(tmp_path):
    structures = [bulk("Cu", "fcc", a=3.6), bulk("Cu", "hcp", a=2.55), bulk("Cu", "bcc", a=2.9)]
    for atoms in structures:
        atoms.calc = EMT()
    with (
        Search("Cu", formula_units=(1, 2), calculator=None, directory=tmp_path / "cheap") as cheap,
        Search("Cu", formula_units=(1, 2), calculator=None, directory=tmp_path / "expensive") as expensive,
    ):
        for atoms in structures:
            cheap.add(atoms)
        expensive.add(min(structures, key=lambda atoms: atoms.get_potential_energy() / len(atoms)))
        plan = LearningPlan(selected=4, window=1.0)
        chosen = select(cheap.archive, expensive.archive, plan)
        assert [atoms.info["selected"] for atoms in chosen] == ["promising", "promising"]
        heights = sorted(atoms.get_potential_energy() / len(atoms) for atoms in structures)
        assert [energy_of(atoms) / len(atoms) for atoms in chosen] == pytest.approx(heights[1:])
        narrow = LearningPlan(selected=4, window=heights[1] - heights[0] + 1e-6)
        assert len(select(cheap.archive, expensive.archive, narrow)) == 1
        assert all(atoms.calc is None for atoms in chosen)


def test_structures_at_which_the_committee_is_uncertain_are_selected(tmp_path):
    committee = Committee(TINY)
    committee.fit(crystals(), members=2, training=SHORT)
    committee.save(tmp_path / "potential")
    calculator = f"committee:{tmp_path / 'potential'}:0.000001"
    with (
        Search("Cu", formula_units=(2, 2), calculator=calculator, sources=["random"], workers=1,
               directory=tmp_path / "cheap") as cheap,
        Search("Cu", formula_units=(2, 2), calculator=None, directory=tmp_path / "expensive") as expensive,
    ):  # fmt: skip
        cheap.run(relaxations=6, refine=0, stop_after_failures=0)
        chosen = select(cheap.archive, expensive.archive, LearningPlan(selected=2))
    assert [atoms.info["selected"] for atoms in chosen if atoms.info["selected"] == "uncertain"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"members": 1}, "whole number from 2"),
        ({"start": 1}, "whole number from 4"),
        ({"window": 0}, "a positive number"),
        ({"uncertain": 1.5}, "a number from 0 to 1"),
        ({"size": "huge"}, "one of small, medium"),
    ],
)
def test_plans_that_cannot_work_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        LearningPlan(**values)


def test_directories_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="it holds other files"):
        learned(tmp_path).run()
    assert not (tmp_path / "search.db").exists()


def test_fixed_cells_are_refused(tmp_path):
    problem = Problem("Cu", formula_units=1, cell=[2.5, 2.5, 2.5, 60, 60, 60])
    with pytest.raises(InputError, match="training needs stresses"):
        LearnedSearch(problem, "emt", directory=tmp_path)
