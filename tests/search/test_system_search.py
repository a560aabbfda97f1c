"""Searches of chemical systems: one budget for all compositions, ranked by the convex hull."""

from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from command_line import hybridcsp

from hybridcsp import Archive, Search, System
from hybridcsp.analysis.phases import read_phases
from hybridcsp.archive.history import SourceCall
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.search.composition_allocation import CompositionAllocation
from hybridcsp.sources.random import RandomSource
from hybridcsp.sources.registry import SYSTEM_SOURCES
from hybridcsp.testing.searches import _entries, _first_difference, _run_with_interruptions, _thread

SMALL = {"composition_grid": 3, "max_atoms": 4}
SOURCES = ["random", "evolution", "basin-hopping"]


@pytest.fixture(scope="module")
def backend():
    with _thread(System("Cu-Au", **SMALL).problem("CuAu"), "emt", "lj") as backend:
        yield backend


@pytest.fixture(scope="module")
def finished(tmp_path_factory, backend):
    """Return the run directory of a search of Cu-Au that has ended; tests do not change it."""
    directory = tmp_path_factory.mktemp("finished") / "cu-au"
    options = {"sources": SOURCES, "workers": 1, **SMALL}
    with Search("Cu-Au", calculator="emt", directory=directory, backend=backend, **options) as found:
        found.run(relaxations=20, refine=3)
    return directory


@pytest.fixture
def archive(finished):
    with Archive(finished) as archive:
        yield archive


@pytest.fixture
def search(tmp_path, backend):
    """Return a function that opens a search of Cu-Au in a folder."""

    def search(folder="cu-au", **settings):
        options = {"sources": SOURCES, "workers": 1, **SMALL, **settings}
        return Search("Cu-Au", calculator="emt", directory=tmp_path / folder, backend=backend, **options)

    return search


def test_minima_of_all_compositions_are_ranked_by_their_heights_above_the_hull(archive):
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    state, minima = archive.state, archive.minima()
    heights = [state.height(state.basins[minimum.id]) for minimum in minima]
    assert heights == sorted(heights)
    assert heights[0] == 0
    formulas = [state.formula_of(minimum.found_by.id) for minimum in minima]
    assert set(formulas) >= {"Cu", "Au", "CuAu"}
    lowest = {}
    for formula, minimum in zip(formulas, minima, strict=True):
        lowest.setdefault(formula, minimum.enthalpy_per_atom)
    entries = {
        formula: PDEntry(Composition(formula), energy * Composition(formula).num_atoms)
        for formula, energy in lowest.items()
    }
    diagram = PhaseDiagram(entries.values())
    for formula, minimum, height in zip(formulas, minima, heights, strict=True):
        above_best = minimum.enthalpy_per_atom - lowest[formula]
        assert height == pytest.approx(diagram.get_e_above_hull(entries[formula]) + above_best, abs=2e-8)


def test_elements_come_first_and_every_composition_is_searched(archive):
    calls = [event for event in archive.history() if isinstance(event, SourceCall) and event.candidates]
    order = list(dict.fromkeys(call.formula for call in calls))
    assert set(order[:2]) == {"Cu", "Au"}
    assert set(order) == set(archive.system.compositions)


def test_a_part_of_the_archive_shows_its_composition_alone(archive):
    parts = {formula: archive.part(formula) for formula in archive.system.compositions}
    assert sum(part.number_of_minima for part in parts.values()) == archive.number_of_minima
    for formula, part in parts.items():
        assert {archive.system.formula_of(minimum.best.atoms.numbers) for minimum in part.minima()} == {formula}
        energies = [minimum.enthalpy_per_atom for minimum in part.minima()]
        assert energies == sorted(energies)
        assert part.problem == archive.system.problem(formula)
    with pytest.raises(ArchiveError, match="Cu9Au is not a composition of this search"):
        archive.part("Cu9Au").minima()


def test_an_interrupted_search_continues_exactly_as_an_uninterrupted_one(search, tmp_path):
    with search("uninterrupted") as found:
        found.run(relaxations=16, refine=0)
    _run_with_interruptions(lambda: search("resumed"), 16, lambda progress: progress.relaxations, [3, 9])
    assert _first_difference(_entries(tmp_path / "uninterrupted"), _entries(tmp_path / "resumed")) is None


def test_minima_of_other_compositions_are_parents_and_the_search_can_be_resumed(search, tmp_path):
    sources = ["random", "variable-composition"]
    with search("uninterrupted", sources=sources) as found:
        found.run(relaxations=14, refine=0)
        archive = found.archive
        formula_of = archive.state.formula_of
        children = [one for one in map(archive.candidate, range(1, archive.candidates + 1)) if one.proposal.parents]
        assert {one.source for one in children} == {"variable-composition"}
        assert any(formula_of(one.id) != formula_of(one.proposal.parents[0]) for one in children)
    again = partial(search, "resumed", sources=sources)
    _run_with_interruptions(again, 14, lambda progress: progress.relaxations, [6, 10])
    assert _first_difference(_entries(tmp_path / "uninterrupted"), _entries(tmp_path / "resumed")) is None


def test_a_system_is_searched_with_children_of_other_compositions_by_default(tmp_path):
    with Search("Cu-Au", calculator=None, directory=tmp_path / "run", **SMALL) as found:
        assert tuple(found.sources) == SYSTEM_SOURCES


def test_the_sum_of_the_hull_falls_with_every_improvement(archive):
    sums = [one.enthalpy_per_atom for one in archive.state.improvements]
    assert len(sums) > 1
    assert sums == sorted(sums, reverse=True)
    hull = archive.state.hull
    assert sums[-1] == pytest.approx(sum(map(hull.energy, archive.system.compositions)), abs=1e-6)


def test_a_problem_of_one_formula_is_not_read_from_a_system(archive):
    with pytest.raises(ArchiveError, match="holds a search of the chemical system Cu-Au"):
        _ = archive.problem


def test_ids_of_minima_are_those_of_the_whole_search(archive):
    state = archive.state
    assert sorted(id_ for part in state.parts.values() for id_ in part.basins) == sorted(state.basins)


def test_structures_of_any_composition_can_be_asked_for_told_and_added(search, tmp_path):
    with Search("Cu-Au", calculator=None, directory=tmp_path / "asked", sources=["random"], **SMALL) as found:
        for candidate in found.ask(6):
            atoms = candidate.atoms.copy()
            atoms.calc = EMT()
            found.tell(candidate, atoms)
        gold = System("Cu-Au", **SMALL).problem("Au")
        atoms = RandomSource(gold).propose(1, _Context())[0].atoms
        atoms.calc = EMT()
        added = found.add(atoms)
        assert found.archive.state.formula_of(added.candidate.id) == "Au"
        atoms.symbols[:] = "Ni"
        atoms.calc = EMT()
        with pytest.raises(InputError, match="one of the compositions of the search"):
            found.add(atoms)


class _Context:
    rng = np.random.default_rng(0)

    class archive:  # noqa: N801
        @staticmethod
        def preferred_minima(n):
            return []


def test_a_composition_promises_less_the_more_often_it_was_tried_and_the_higher_it_lies(archive):
    state = archive.state
    allocation = CompositionAllocation(state)
    expected = {formula: allocation.expected_improvement(formula) for formula in state.system.compositions}
    assert allocation.choose() == max(expected, key=expected.get)
    assert allocation.choose(state.system.compositions) is None
    part = state.part("CuAu")
    part.candidates[10**6] = next(iter(part.candidates.values()))  # one more relaxation there
    assert allocation.expected_improvement("CuAu") < expected["CuAu"]
    del part.candidates[10**6]
    state.hull.put("CuAu", state.hull.energy("CuAu") - 0.1)  # a lower phase, to which its minima are compared
    assert allocation.expected_improvement("CuAu") < expected["CuAu"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": [RandomSource(System("Cu-Au").problem("CuAu"))]}, "each composition has its own"),
        ({"then": "lj"}, "follow-ups are not available in a search"),
        ({"formula_units": 2}, "formula_units"),
    ],
)
def test_settings_that_belong_to_one_composition_are_refused(search, settings, message):
    with pytest.raises((InputError, TypeError), match=message):
        search(**settings)


def test_an_enthalpy_is_no_target_of_a_system(search):
    with search() as found, pytest.raises(InputError, match="enthalpies of different compositions are not compared"):
        found.run(relaxations=3, stop_at=-3.0)


def test_known_phases_are_relaxed_first_counted_and_enter_the_hull(search, tmp_path):
    known = [bulk("Cu"), bulk("Au"), bulk("CuAu", "cesiumchloride", a=3.2), bulk("Ni"), _five_to_three()]
    write(tmp_path / "known.extxyz", known)
    with search(references=[tmp_path / "known.extxyz"]) as found:
        found.run(relaxations=8, refine=0)
        state = found.archive.state
        first = [event.source for event in state.candidates.values()][:4]
        assert first == ["reference"] * 4  # nickel is left out
        assert state.relaxations == 8
        formulas = {state.formula_of(state.basins[id_].found_by) for id_ in state.references}
        assert formulas == {"Cu", "Au", "CuAu", "Cu5Au3"}
        phases = read_phases(found.archive)
        assert {phase.formula for phase in phases.phases if phase.known} == formulas
        assert phases.known_hull.is_complete
        assert "Cu5Au3" not in {state.formula_of(id_) for id_ in list(state.candidates)[4:]}
        assert state.height(state.basins[min(state.references)]) == 0
    with search(references=[tmp_path / "known.extxyz"]) as found:  # nothing is added twice
        assert len(list(found.archive.state.candidates_of("reference"))) == 4
        found.run(relaxations=9, refine=0)
        assert found.archive.state.relaxations == 9


def _five_to_three():
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.symbols[:] = ["Cu"] * 5 + ["Au"] * 3
    return atoms


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file or folder"), ("Ni", "holds no structure of the system Cu-Au that can be used")],
)
def test_files_without_a_known_phase_of_the_system_are_refused_before_anything_runs(search, tmp_path, content, message):
    file = tmp_path / "known.extxyz"
    if content:
        write(file, bulk(content))
    with pytest.raises(InputError, match=message):
        search(references=[file])
    assert not (tmp_path / "cu-au").exists()


def test_known_phases_belong_to_a_system(tmp_path):
    write(tmp_path / "known.extxyz", bulk("Cu"))
    with pytest.raises(InputError, match="use the file as a source, seeds:"):
        Search("Cu", calculator="emt", directory=tmp_path / "cu", references=[tmp_path / "known.extxyz"])


def test_known_phases_that_were_recorded_are_not_needed_again(search, tmp_path, caplog):
    file = tmp_path / "known.extxyz"
    write(file, [bulk("Cu"), bulk("Au")])
    with search(references=[file]) as found:
        assert found.archive.candidates == 2
    file.unlink()
    with search(references=[file]) as found:
        assert found.archive.candidates == 2
    assert "no such file" in caplog.text
    write(file, [bulk("Cu"), bulk("Au"), bulk("CuAu", "cesiumchloride", a=3.2)])
    with search(references=[file]) as found:
        assert found.archive.candidates == 3


def test_a_source_without_structures_of_a_composition_is_left_out_there(search, tmp_path):
    write(tmp_path / "seeds.extxyz", bulk("CuAu", "cesiumchloride", a=3.2))
    with search(sources=["random", f"seeds:{tmp_path / 'seeds.extxyz'}", "random"]) as found:
        assert set(found.sources) == {"random", "seeds", "random-2"}
        found.run(relaxations=14, refine=0)
        seeds = list(found.archive.state.candidates_of("seeds"))
        assert [found.archive.state.formula_of(event.candidate) for event in seeds] == ["CuAu"]


def test_a_source_without_structures_of_any_composition_is_refused(search, tmp_path):
    write(tmp_path / "seeds.extxyz", bulk("Ni"))
    write(tmp_path / "gold.extxyz", bulk("Au"))
    files = [f"seeds:{tmp_path / name}.extxyz" for name in ("gold", "seeds")]
    with pytest.raises(InputError, match=r"seeds.extxyz.*at any of the compositions of Cu-Au: Cu2Au"):
        search(sources=["random", *files])


def test_compositions_share_the_weights_of_a_generator():
    from hybridcsp.sources.generative import WyckoffSource

    system = System("Cu-Au", **SMALL)
    one, other = (WyckoffSource(system.problem(formula)).generator(0) for formula in ("CuAu", "Cu2Au"))
    assert one is other


def test_minima_know_their_compositions_and_heights_and_files_name_them(archive, tmp_path):
    from ase.io import read

    from hybridcsp.io.export import export

    minima = archive.minima()
    state = archive.state
    assert [minimum.above_hull for minimum in minima] == [state.height(state.basins[one.id]) for one in minima]
    assert "above the hull: 0.0 meV/atom" in repr(minima[0])
    export(minima, tmp_path / "minima.extxyz")
    infos = [atoms.info for atoms in read(tmp_path / "minima.extxyz", ":")]
    assert [info["composition"] for info in infos] == [minimum.composition for minimum in minima]
    assert [info["above_hull"] for info in infos] == pytest.approx([minimum.above_hull for minimum in minima])
    assert not any(info["known_phase"] for info in infos)


def test_the_configuration_of_a_system_that_is_written_is_read_again(tmp_path):
    from hybridcsp import config

    raw = {
        "problem": {"elements": "Mg-O", "composition_grid": 4, "charge_neutral": True},
        "search": {"calculator": "lj", "directory": str(tmp_path)},
    }
    written = config.parse(raw, "test")
    assert written.problem.compositions == ("Mg", "MgO", "O")
    config.write(written, tmp_path)
    again = config.parse(config.read(tmp_path / config.FILE), "test")
    assert again.problem.describe() == written.problem.describe()


def test_show_names_the_command_that_draws_a_system(finished, tmp_path):
    done = hybridcsp("show", finished, "--plot", tmp_path / "plot.png", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "draw the hull with hybridcsp hull" in done.stderr
    assert "composition" in hybridcsp("show", finished, cwd=tmp_path).stdout
