import subprocess
import sys
from dataclasses import replace

import ase.io
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import InlineBackend, ListSource, instant_relaxation, rutile

import hybridcsp
from hybridcsp import Search
from hybridcsp.errors import ArchiveError, InputError, LockedError


@pytest.fixture
def search(tmp_path):
    with Search("TiO2", calculator=None, directory=tmp_path / "run", sources=[ListSource([])]) as made:
        atoms = rutile()
        atoms.calc = SinglePointCalculator(atoms, energy=-50.0, forces=atoms.positions * 0)
        made.add(atoms)
        yield made


def test_a_minimum_shows_what_it_is(search):
    (minimum,) = search.minima(5)
    for text in (repr(minimum), minimum._repr_html_()):
        for fact in ("Ti2O4", "-8.3333 eV/atom", "P4_2/mnm (136)", "added"):
            assert fact in text
    assert len(repr(minimum).splitlines()) == 1
    assert "rutile" in minimum._repr_html_()


def test_what_a_file_says_is_no_markup_in_a_notebook(search):
    (minimum,) = search.minima(5)
    hostile = replace(minimum, found_by=replace(minimum.found_by, source="<script>\x1b[2J"))
    assert "<script>" not in hostile._repr_html_()
    assert "\x1b" not in hostile._repr_html_() + repr(hostile)


def test_a_search_shows_how_far_it_is_also_when_it_is_closed_or_empty(search, tmp_path):
    text = repr(search)
    assert "TiO2" in text
    assert "1 minima, best -8.3333 eV/atom" in text
    assert "rutile" in search._repr_html_()
    search.close()
    assert repr(search) == text
    assert "rutile" in search._repr_html_()
    with Search("Cu", calculator=None, directory=tmp_path / "empty", sources=[ListSource([])]) as empty:
        assert "0 minima" in repr(empty)
        assert "<table>" not in empty._repr_html_()


def test_a_summary_says_why_and_how_it_ended(tmp_path):
    run = InlineBackend(instant_relaxation)
    with Search("Cu", sources=[ListSource([bulk("Cu")])], calculator="emt", backend=run, directory=tmp_path) as search:
        summary = search.run(relaxations=1)
    for text in (repr(summary), summary._repr_html_()):
        assert summary.stopped in text
        assert "1 relaxations (0 failed)" in text


def test_a_minimum_writes_itself_with_its_energy(search, tmp_path):
    (minimum,) = search.minima(5)
    assert minimum.atoms.get_potential_energy() == -50.0
    assert minimum.atoms.get_forces().shape == (6, 3)
    minimum.atoms.positions += 1  # a copy
    assert ase.io.read(minimum.write(tmp_path / "m.extxyz")).get_potential_energy() == -50.0
    cif = minimum.to_cif(tmp_path / "m.cif")
    assert "_symmetry_Int_Tables_number   136" in cif.read_text()
    assert len(ase.io.read(cif)) == 6
    with pytest.raises(InputError, match="a file name for cif"):
        minimum.to_cif(tmp_path / "m.xyz")
    with pytest.raises(InputError, match="known extension"):
        minimum.write(tmp_path / "m")


def test_the_public_names_are_listed_without_importing_them():
    names = set(dir(hybridcsp))
    assert {"Search", "Problem", "Minimum", "Archive", "__version__"} <= names
    assert {name for name in names if not name.startswith("_")} == set(hybridcsp.__all__) - {"__version__"}
    code = "import sys, hybridcsp; dir(hybridcsp); sys.exit('hybridcsp.search.search' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_cell_of_a_notebook_can_be_run_again(tmp_path):
    def cell():
        return Search("Cu", calculator=None, directory=tmp_path, sources=[ListSource([bulk("Cu")])])

    first = cell()
    (asked,) = first.ask()
    second = cell()
    assert [candidate.id for candidate in second.pending()] == [asked.id]
    atoms = bulk("Cu")
    atoms.calc = EMT()
    with pytest.raises(ArchiveError, match="closed"):
        first.tell(asked, atoms)
    second.tell(asked.id, atoms)
    assert len(second.minima()) == 1
    second.close()


def test_a_search_that_is_running_is_not_taken_away(tmp_path):

    def again(_):
        with pytest.raises(LockedError, match="which is running"):
            Search("Cu", calculator="emt", directory=tmp_path, sources=["random"])
        seen.append(True)

    seen = []
    run = InlineBackend(instant_relaxation)
    with Search("Cu", sources=[ListSource([bulk("Cu")])], calculator="emt", backend=run, directory=tmp_path) as search:
        search.run(relaxations=1, on_progress=again)
    assert seen
