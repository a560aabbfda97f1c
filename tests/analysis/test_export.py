import gzip
import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from crystals import ListSource, rutile
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.cif import CifFile, CifParser

from hybridcsp import Search
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.io.export import CELLS, export, structure_of
from hybridcsp.structure.conversion import from_pymatgen, to_pymatgen


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


NAMES = ["m.cif", "m.vasp", "POSCAR", "m.extxyz", "m.res", "m.json", "m.cif.gz"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cell", CELLS)
def test_one_minimum_in_every_format_is_the_same_crystal_in_other_programs(minima, tmp_path, name, cell):
    (path,) = export(minima[:1], tmp_path / name, cell=cell)
    assert path == tmp_path / name
    expected = to_pymatgen(minima[0].atoms)
    if name != "m.json":
        assert StructureMatcher().fit(to_pymatgen(ase.io.read(path)), expected)
    if name.endswith((".cif", ".gz", ".vasp", "POSCAR", ".res")):
        assert StructureMatcher().fit(Structure.from_file(path), expected)


def test_a_conventional_cif_holds_the_symmetry(minima, tmp_path):
    (path,) = export(minima[:1], tmp_path / "m.cif", cell="conventional")
    assert "_symmetry_Int_Tables_number   225" in path.read_text()


@pytest.mark.parametrize("cell", CELLS)
def test_all_blocks_of_a_cif_are_read_in_order_of_rank_by_ase_and_pymatgen(minima, tmp_path, cell):
    (path,) = export(minima, tmp_path / "m.cif", cell=cell)
    names = [line for line in path.read_text().splitlines() if line.startswith("data_")]
    assert names == ["data_rank1_Cu", "data_rank2_Cu", "data_rank3_Cu"]
    of_pymatgen = CifParser(path).parse_structures(primitive=False)
    for read in (ase.io.read(path, ":"), [from_pymatgen(one) for one in of_pymatgen]):
        assert [len(atoms) for atoms in read] == [len(structure_of(minimum, cell)) for minimum in minima]
        for atoms, minimum in zip(read, minima, strict=True):
            assert StructureMatcher(scale=False).fit(to_pymatgen(atoms), to_pymatgen(minimum.atoms))


def test_a_cif_says_what_is_known_of_each_structure(minima, tmp_path):
    (path,) = export(minima, tmp_path / "m.cif")
    blocks = list(CifFile.from_file(path).data.values())
    assert [block["_hybridcsp_rank"] for block in blocks] == ["1", "2", "3"]
    for block, minimum in zip(blocks, minima, strict=True):
        assert float(block["_hybridcsp_enthalpy_ev_per_atom"]) == pytest.approx(minimum.enthalpy_per_atom)
        assert float(block["_hybridcsp_energy_ev"]) == pytest.approx(minimum.best.evaluation.energy)
        assert block["_hybridcsp_space_group_number"] == str(minimum.spacegroup)
        assert block["_hybridcsp_candidate"] == str(minimum.found_by.id)
        assert block["_hybridcsp_source"] == "added"


def hostile(minimum):
    """Return a minimum of a source whose name, as a database may have it, is none that a search would accept."""
    found_by = replace(minimum.found_by, source='it\'s \x1b]0;owned\x07 "ö"\n_cell_length_a 1\u202e')
    return replace(minimum, found_by=found_by)


@pytest.mark.parametrize("name", NAMES)
def test_names_from_files_cannot_break_a_file_nor_command_a_terminal(minima, tmp_path, name):
    (path,) = export([hostile(minima[0])], tmp_path / name)
    text = (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()).decode()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "owned" in text
    if name != "m.json":
        assert StructureMatcher().fit(to_pymatgen(ase.io.read(path)), to_pymatgen(minima[0].atoms))
    if name == "m.cif":
        assert text.isascii()
        (structure,) = CifParser(path).parse_structures(primitive=False)
        assert StructureMatcher().fit(structure, to_pymatgen(minima[0].atoms))


def test_a_folder_gets_a_file_for_each_with_rank_formula_and_space_group_in_its_name(minima, tmp_path):
    files = export(minima, f"{tmp_path}/new/", format="cif")
    assert [file.name for file in files] == [f"000{n}_Cu_sg{m.spacegroup}.cif" for n, m in enumerate(minima, start=1)]
    assert sorted((tmp_path / "new").iterdir()) == files
    for file, minimum in zip(files, minima, strict=True):
        assert np.isclose(ase.io.read(file).get_volume(), minimum.atoms.get_volume())
    (tmp_path / "there").mkdir()
    assert len(export(minima, tmp_path / "there", format="json")) == 3
    assert [file.suffix for file in export(minima, tmp_path / "poscars", format="poscar")] == [".vasp"] * 3
    with pytest.raises(InputError, match="new or empty"):
        export(minima, tmp_path / "poscars", format="poscar")


def test_json_is_read_as_computed_entries(minima, tmp_path):
    (path,) = export(minima, tmp_path / "m.json")
    entries = [ComputedStructureEntry.from_dict(entry) for entry in json.loads(path.read_text())]
    assert [entry.energy_per_atom for entry in entries] == pytest.approx([m.enthalpy_per_atom for m in minima])
    assert [entry.data["rank"] for entry in entries] == [1, 2, 3]


def test_the_same_export_gives_the_same_bytes(minima, tmp_path):
    one, other = (export(minima, tmp_path / name)[0].read_bytes() for name in ("a.cif.gz", "b.cif.gz"))
    assert one == other


@pytest.mark.parametrize(
    ("name", "format", "said"),
    [
        ("m.xyz", "cif", r"m.xyz' is not valid: it must be a file name for cif, such as m.cif"),
        ("m.cif.gz", "extxyz", "a file name for extxyz, such as m.extxyz"),
        ("POSCAR", "cif", "a file name for cif"),
        ("m.pdb", None, r"a known extension: .extxyz, .xyz, .cif, .vasp"),
        ("m.pdb", "cif", r"a known extension: .cif \("),
        ("m.zip", None, "a known extension"),
        ("m", None, "a known extension"),
        ("m.vasp", None, r"a folder \(.*/m/\) for several structures, since a poscar file contains one"),
    ],
)
def test_an_ending_that_contradicts_or_is_unknown_is_an_error_that_writes_nothing(minima, tmp_path, name, format, said):
    with pytest.raises(InputError, match=said):
        export(minima, tmp_path / name, format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_name_without_an_ending_is_fine_where_the_format_is_named(minima, tmp_path):
    (path,) = export(minima, tmp_path / "best 2.5", format="cif")
    assert path.read_text().count("data_") == 3


def test_what_cannot_be_written_is_said(minima, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'cif'"):
        export(minima, tmp_path / "m", format="cif2")
    with pytest.raises(UnknownNameError, match="did you mean 'primitive'"):
        export(minima, tmp_path / "m.cif", cell="primitve")
    with pytest.raises(InputError, match="has found no converged minimum yet"):
        export([], tmp_path / "m.cif")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in its place"):
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
