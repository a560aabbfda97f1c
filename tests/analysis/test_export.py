import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import ListSource, rutile
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from hybridcsp import Search
from hybridcsp.analysis.export import CELLS, export, structure_of
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.structure import to_pymatgen


@pytest.fixture
def minima(tmp_path):
    """Three minima, one of them found in a cell that is neither primitive nor conventional."""
    search = Search("Cu", calculator=None, directory=tmp_path / "run", sources=[ListSource([])], max_atoms=30)
    fcc = bulk("Cu", a=3.61).repeat((2, 1, 1))
    fcc.set_initial_magnetic_moments([0.5, 0.5])
    for atoms in (bulk("Cu", "bcc", a=2.87), fcc, bulk("Cu", "hcp", a=2.55, c=4.2)):
        atoms.calc = EMT()
        atoms.get_stress()
        search.add(atoms, force_calls=3)
    return search.minima()


def test_every_key_survives_writing_and_reading(minima, tmp_path):
    export(minima, tmp_path / "minima.extxyz")
    frames = ase.io.read(tmp_path / "minima.extxyz", ":")
    enthalpies = [frame.info["enthalpy_per_atom"] for frame in frames]
    assert enthalpies == sorted(enthalpies)
    for frame, minimum in zip(frames, minima, strict=True):
        assert frame.get_potential_energy() == pytest.approx(minimum.best.evaluation.energy)
        assert frame.get_forces().shape == (len(frame), 3)
        assert {key: frame.info[key] for key in structure_of(minimum).info} == structure_of(minimum).info
    assert set(frames[0].info) >= {
        "candidate",
        "enthalpy_per_atom",
        "spacegroup",
        "source",
        "operator",
        "relaxation",
        "force_calls",
        "multiplicity",
    }
    assert frames[1].info["force_calls"] in (3, 6, 9)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_the_same_crystal_with_the_same_energy_per_atom(minima, cell):
    for minimum in minima:
        atoms = structure_of(minimum, cell)
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(minimum.enthalpy_per_atom)
        assert StructureMatcher().fit(to_pymatgen(atoms), to_pymatgen(minimum.atoms))
    assert len(structure_of(minima[0], cell)) == {"as-found": 2, "primitive": 1, "conventional": 4}[cell]
    assert set(structure_of(minima[0], cell).get_initial_magnetic_moments()) == {0.5}


@pytest.mark.parametrize(("format", "name"), [("cif", "m.cif"), ("poscar", "m.vasp"), ("extxyz", "m.extxyz")])
@pytest.mark.parametrize("cell", CELLS)
def test_one_minimum_in_every_format_is_read_by_ase_and_pymatgen(minima, tmp_path, format, name, cell):
    (path,) = export(minima[:1], tmp_path / name, format=format, cell=cell)
    read = ase.io.read(path)
    assert StructureMatcher().fit(to_pymatgen(read), to_pymatgen(minima[0].atoms))
    if format != "extxyz":
        assert StructureMatcher().fit(Structure.from_str(path.read_text(), fmt=format), to_pymatgen(minima[0].atoms))


def test_a_conventional_cif_holds_the_symmetry(minima, tmp_path):
    (path,) = export(minima[:1], tmp_path / "m.cif", format="cif", cell="conventional")
    assert "_symmetry_Int_Tables_number   225" in path.read_text()


def test_several_cifs_are_one_file_and_several_poscars_a_folder(minima, tmp_path):
    (path,) = export(minima, tmp_path / "m.cif", format="cif")
    assert len(ase.io.read(path, ":")) == 3
    files = export(minima, tmp_path / "poscars", format="poscar")
    assert [file.parent.name for file in files] == ["poscars"] * 3
    assert np.allclose(ase.io.read(files[0]).get_volume(), minima[0].atoms.get_volume())
    with pytest.raises(InputError, match="new or empty"):
        export(minima, tmp_path / "poscars", format="poscar")


def test_what_cannot_be_written_is_said(minima, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'cif'"):
        export(minima, tmp_path / "m", format="cif2")
    with pytest.raises(UnknownNameError, match="did you mean 'primitive'"):
        export(minima, tmp_path / "m", cell="primitve")
    with pytest.raises(InputError, match="has found none yet"):
        export([], tmp_path / "m")
    with pytest.raises(InputError, match="a file, not a folder"):
        export(minima, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file in its place"):
        export(minima, tmp_path / "file" / "m.extxyz")


def test_rutile_is_written_with_its_own_cell(tmp_path):
    search = Search("TiO2", calculator=None, directory=tmp_path / "run", sources=[ListSource([])])
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = rutile()
    atoms.calc = SinglePointCalculator(atoms, energy=-50.0)
    search.add(atoms)
    (path,) = export(search.minima(), tmp_path / "r.extxyz")
    read = ase.io.read(path)
    assert np.allclose(read.positions, atoms.positions)
    assert read.get_potential_energy() == -50.0
