import gzip
import json
import pickle

import ase.db
import ase.io
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import rutile
from foreign import various
from hypothesis import given, settings
from hypothesis import strategies as st
from monty.json import MontyEncoder
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.cif import CifWriter

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.io import formats
from hybridcsp.io.formats import Record
from hybridcsp.io.frames import ReadFailure
from hybridcsp.similarity import same_structure
from hybridcsp.structure.conversion import to_pymatgen


def read(path):
    return list(formats.recognise(path).read(path))


def with_energy(atoms, energy):
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), energy=st.floats(-500, 100))
def test_extxyz_keeps_all_data_and_is_read_by_ase(tmp_path_factory, seed, energy):
    file = tmp_path_factory.mktemp("plain") / "all.extxyz"
    records = [
        Record(
            atoms=atoms, energy=energy, enthalpy=energy + 1, pressure_gpa=2.5, id=f"a{n}", origin="Heredity",
            generation=n, calculator="VASP",
        )
        for n, atoms in enumerate(various(2, seed=seed))
    ]  # fmt: skip
    formats.write(records, file, "plain")
    witness = ase.io.read(file, ":")
    for made, found, other in zip(records, read(file), witness, strict=True):
        for name in ("pressure_gpa", "id", "origin", "generation", "calculator"):
            assert getattr(found, name) == getattr(made, name), name
        assert found.energy == pytest.approx(energy)
        assert found.enthalpy == pytest.approx(energy + 1)
        assert other.get_potential_energy() == pytest.approx(energy)
        assert same_structure(found.atoms, made.atoms)
        assert same_structure(other, made.atoms)


def test_folder_with_files_of_all_formats_is_read(tmp_path):
    atoms = rutile()
    ase.io.write(tmp_path / "a.cif", atoms)
    ase.io.write(tmp_path / "POSCAR_b", atoms, format="vasp")
    ase.io.write(tmp_path / "c.extxyz", with_energy(atoms, -3.0))
    with gzip.open(tmp_path / "d.extxyz.gz", "wb") as packed:
        packed.write((tmp_path / "c.extxyz").read_bytes())
    with ase.db.connect(tmp_path / "e.db") as database:
        database.write(with_energy(atoms, -4.0), key_value_pairs={"origin": "somebody"})
    entry = ComputedStructureEntry(to_pymatgen(atoms), -5.0, entry_id="mp-1")
    (tmp_path / "f.json").write_text(json.dumps([entry, to_pymatgen(atoms)], cls=MontyEncoder))
    (tmp_path / "notes.txt").write_text("not a structure")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(atoms))
    found = {r.file.name: r for r in read(tmp_path)}
    assert {name: r.energy for name, r in found.items()} == {
        "POSCAR_b": None, "a.cif": None, "c.extxyz": -3.0, "d.extxyz.gz": -3.0, "e.db": -4.0, "f.json": None
    }  # fmt: skip
    assert found["e.db"].origin == "somebody"
    assert [r.id for r in read(tmp_path / "f.json")] == ["mp-1", "f-2"]
    assert [r.energy for r in read(tmp_path / "f.json")] == [-5.0, None]
    assert all(same_structure(r.atoms, atoms) for r in found.values())


def test_broken_cif_among_several_in_one_file_is_reported(tmp_path):
    good = str(CifWriter(to_pymatgen(rutile())))
    (tmp_path / "many.cif").write_text(good + good.replace("_cell_length_a ", "_cell_lungth_a ") + good)
    first, broken, last = read(tmp_path / "many.cif")
    assert same_structure(first.atoms, last.atoms)
    assert isinstance(broken, ReadFailure)
    assert broken.line > 10


def test_broken_extxyz_frames_do_not_affect_others(tmp_path):
    file = tmp_path / "all.extxyz"
    formats.write(various(3), file, "plain")
    lines = file.read_text().splitlines()
    lines[10] = "Ti 0.0 oops 0.0"
    file.write_text("\n".join(["what is this?", *lines[:-2]]) + "\n")
    found = read(file)
    assert [type(r).__name__ for r in found] == ["ReadFailure", "Record", "ReadFailure", "ReadFailure"]
    assert [r.line for r in found if isinstance(r, ReadFailure)] == [1, 10, 18]
    assert "ends after 4 of 6" in found[-1].reason


def test_structures_that_are_not_crystals_are_reported(tmp_path):
    molecule = rutile()
    molecule.pbc = False
    ase.io.write(tmp_path / "a.extxyz", molecule)
    (broken,) = read(tmp_path / "a.extxyz")
    assert "periodic" in broken.reason
    (tmp_path / "b.json").write_text('[{"@module": "os", "@class": "system", "command": "true"}, 3, {"lattice": 1}]')
    assert all(isinstance(r, ReadFailure) for r in read(tmp_path / "b.json"))
    (tmp_path / "c.json").write_text("{")
    assert "not JSON" in read(tmp_path / "c.json")[0].reason


def test_missing_paths_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        formats.recognise(tmp_path / "nothing")
    with pytest.raises(InputError, match="a folder of a known code"):
        formats.recognise(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'uspex'"):
        formats.load("usqex")
    with pytest.raises(InputError, match="there is no structure"):
        formats.write([], tmp_path / "a.extxyz", "plain")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "search.db").write_text("")
    with pytest.raises(InputError, match="a run directory of hybridcsp"):
        formats.recognise(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in its place"):
        formats.write([rutile()], tmp_path / "file" / "a.extxyz", "plain")
