"""Tests of reading, converting and describing data sets."""

import gzip
import json
import re
from collections import Counter

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from crystals import quartz, rutile
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.cif import CifWriter

from hybridcsp.archive.archive import Archive
from hybridcsp.cli.predict import read_frames
from hybridcsp.datasets import (
    crystals_of_searches,
    describe_card,
    fold,
    fold_to_lowest,
    read_card,
    read_crystals,
    write_dataset,
)
from hybridcsp.datasets.cards import card_path
from hybridcsp.datasets.relaxation import write_relaxation_card
from hybridcsp.datasets.relaxed_files import RelaxedFiles
from hybridcsp.errors import ArchiveError, InputError
from hybridcsp.generators.datasets import read_dataset
from hybridcsp.io.relaxation_folders import FAILED, RELAXED
from hybridcsp.io.structure_files import read_structures
from hybridcsp.search.search import Search
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.training.files import training_files


def table(path, *rows):
    """Write a table in the format of CDVAE: an index without a name, properties, and a column of CIFs."""
    lines = [",material_id,formation_energy_per_atom,band_gap,spacegroup.number,remark,cif"]
    for number, (atoms, energy) in enumerate(rows):
        cif = str(CifWriter(to_pymatgen(atoms))).replace('"', "'")
        lines.append(f'{number},mp-{number},{energy},1.5,136,,"{cif}"')
    path.write_text("\n".join(lines) + "\n")


def test_columns_of_a_table_become_properties(tmp_path):
    table(tmp_path / "train.csv", (rutile(), -3.25), (quartz(), -2.5))
    found = read_crystals([tmp_path / "train.csv"])
    assert found.atoms[0].info == {
        "material_id": "mp-0",
        "formation_energy_per_atom": -3.25,
        "band_gap": 1.5,
        "spacegroup.number": 136,
    }
    assert len(found.atoms[1]) == 9


def test_data_of_entries_become_properties(tmp_path):
    entry = ComputedStructureEntry(
        to_pymatgen(rutile()), -50.0, entry_id="mp-1", data={"band_gap": 1.8, "tags": ["a"], "functional": "PBE"}
    )
    (tmp_path / "entries.json").write_text(json.dumps([entry.as_dict()]))
    atoms = read_crystals([tmp_path / "entries.json"]).atoms[0]
    assert (atoms.info["band_gap"], atoms.info["functional"]) == (1.8, "PBE")
    assert "tags" not in atoms.info
    assert atoms.get_potential_energy() == -50.0


def test_data_set_comes_back_with_properties_and_card(tmp_path):
    table(tmp_path / "train.csv", (rutile(), -3.25), (quartz(), -2.5), (quartz(), float("nan")))
    found = read_crystals([tmp_path / "train.csv"])
    output = tmp_path / "all.extxyz.gz"
    card = write_dataset(found.atoms, output, "convert", settings={"seed": 1}, inputs=found.inputs)
    again = read_crystals([output])
    assert [len(atoms) for atoms in again.atoms] == [6, 9, 9]
    assert again.atoms[0].info == found.atoms[0].info
    assert card == read_card(output)
    assert card_path(output).name == "all.card.json"
    assert card["properties"]["formation_energy_per_atom"] == {
        "crystals": 2,
        "not_finite": 1,
        "min": -3.25,
        "mean": -2.875,
        "max": -2.5,
    }
    text = (tmp_path / "all.card.txt").read_text()
    assert text == "\n".join(describe_card(card)) + "\n"
    assert "made from train.csv, 3 crystals, SHA-256 " in text
    assert "versions: hybridcsp " in text
    # The card of a data set that is made from this one holds this card.
    later = write_dataset(again.atoms, tmp_path / "later.extxyz", "convert", settings={}, inputs=again.inputs)
    assert later["inputs"][0]["card"]["inputs"][0]["name"] == "train.csv"


def test_properties_with_names_that_the_format_uses_come_back(tmp_path):
    atoms = bulk("Cu")
    atoms.info = {
        "stress": 2.5,
        "Lattice": "fcc",
        "pbc": "F F F",
        "properties": 3,
        "": 1,
        "spins": "['a', 'b']",
        "n": 4,
    }
    card = write_dataset([atoms], tmp_path / "a.extxyz", "convert", settings={})
    (again,) = read_crystals([tmp_path / "a.extxyz"]).atoms
    assert np.allclose(again.cell.array, atoms.cell.array)
    assert again.pbc.all()
    assert again.info["property_stress"] == 2.5
    assert again.info["property_Lattice"] == "fcc"
    assert again.info["spins"] == "['a', 'b']"
    assert type(again.info["n"]) is int
    assert card["properties"]["n"]["mean"] == 4


def test_card_of_a_stranger_is_harmless(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", rutile())
    for text in (
        "[]",
        "{",
        '{"made_by": 3}',
        '{"made_by": "x", "inputs": 3, "properties": [1], "settings": {"a\\u001b": 1}}',
    ):
        (tmp_path / "a.card.json").write_text(text)
        found = read_crystals([tmp_path / "a.extxyz"])
        for record in found.inputs:
            assert not any("\x1b" in line for line in describe_card({"inputs": [record]}))


def test_what_cannot_be_read_is_counted(tmp_path):
    (tmp_path / "cifs").mkdir()
    ase.io.write(tmp_path / "cifs" / "a.cif", rutile())
    (tmp_path / "cifs" / "b.extxyz").write_text("2\nLattice=oops\nCu 0 0 0\nCu 0 0 0\n" + "x\n")
    ase.io.write(tmp_path / "cifs" / "c.extxyz", [rutile(), bulk("Cu")])
    (tmp_path / "cifs" / "b.extxyz").unlink()
    with (tmp_path / "cifs" / "c.extxyz").open("a") as file:
        file.write("3\nonly two atoms\nCu 0 0 0\n")
    found = read_crystals([tmp_path / "cifs"])
    assert len(found) == 3
    assert found.left_out.total() == 1
    assert "the file ends" in found.failures[0].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.extxyz", None, "there is no such file"),
        ("empty.extxyz", b"", "it contains no structure"),
        ("bomb.extxyz.gz", gzip.compress(b"0" * 30_000_000), "cannot be read"),
        ("no_cif.csv", b"a,b\n1,2\n", "no column of CIFs"),
    ],
)
def test_file_without_crystals_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_crystals([tmp_path / name])


def test_first_of_equal_crystals_is_kept():
    left_out = Counter()
    shifted = rutile()
    shifted.translate([0.3, 0.1, 0.2])
    kept = list(fold([rutile(), quartz(), shifted, shifted * (1, 1, 2)], left_out))
    assert [len(atoms) for atoms in kept] == [6, 9]
    assert left_out == {"duplicate": 2}


@pytest.mark.parametrize(
    ("infos", "kept"),
    [
        ([{}, {"enthalpy_per_atom": 5.0}], 1),  # under pressure, enthalpies are positive
        ([{"enthalpy_per_atom": float("nan")}, {"enthalpy_per_atom": 5.0}, {"enthalpy_per_atom": 4.0}], 2),
        ([{"enthalpy_per_atom": -3.0}, {"enthalpy_per_atom": -2.0}, {}], 0),
        ([{"enthalpy_per_atom": -3.0, "calculator": "a"}, {"enthalpy_per_atom": -9.0, "calculator": "b"}], 0),
        ([{"enthalpy_per_atom": 3.0, "pressure_gpa": 20.0}, {"enthalpy_per_atom": -3.0, "pressure_gpa": 0.0}], 0),
        ([{"enthalpy_per_atom": 3.0}, {"enthalpy_per_atom": -3.0, "pressure_gpa": 0.0}], 1),
        ([{}, {}], 0),
    ],
)
def test_of_equal_crystals_the_lowest_by_one_calculator_at_one_pressure_is_kept(infos, kept):
    left_out = Counter()
    crystals = [quartz(), *(rutile() for _ in infos)]
    for atoms, info in zip(crystals[1:], infos, strict=True):
        atoms.info = info
    assert fold_to_lowest(crystals, left_out) == [crystals[0], crystals[1 + kept]]
    assert left_out == {"duplicate": len(infos) - 1}


def test_wrong_name_of_output_is_refused(tmp_path):
    for name in ("a.cif", "a.json", "folder/"):
        with pytest.raises(InputError, match=r"\.extxyz or \.xyz"):
            write_dataset([rutile()], f"{tmp_path}/{name}", "convert", settings={})


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "cu"
    Search("Cu4", calculator="emt", sources=["random"], directory=directory, seed=1, formula_units=1, workers=1).run(
        relaxations=8
    )
    return directory


def test_minima_of_a_search_are_a_data_set(search):
    found = crystals_of_searches([search])
    assert found.inputs[0]["relaxations"] == 8
    heights = [atoms.info["height"] for atoms in found.atoms]
    assert min(heights) == 0
    assert (
        sum(atoms.info["multiplicity"] for atoms in found.atoms)
        == len(found) + found.left_out["relaxed to the same minimum as another"]
    )
    for atoms in found.atoms:
        assert atoms.info["calculator"].startswith("emt")
        assert atoms.info["pressure_gpa"] == 0
        assert np.isfinite(atoms.get_potential_energy())


def test_unknown_number_of_a_minimum_is_named(search):
    with Archive(search) as archive:
        first = archive.minima(1)[0].id
        assert [minimum.id for minimum in archive.minima_of([first, first])] == [first, first]
        with pytest.raises(ArchiveError, match="cu has no minimum 4711"):
            archive.minima_of([first, 4711])


def test_every_relaxation_of_a_search_is_a_data_set_or_counted(search):
    found = crystals_of_searches([search], all_relaxations=True)
    assert len(found) + found.left_out["ended early in the basin of a known minimum"] == 8
    assert len({atoms.info["candidate"] for atoms in found.atoms}) == len(found)


def test_energies_of_different_calculators_are_not_mixed(search, tmp_path):
    Search(
        "Cu4", calculator="lj", sources=["random"], directory=tmp_path / "lj", seed=1, formula_units=1, workers=1
    ).run(relaxations=2)
    with pytest.raises(InputError, match="not mixed"):
        crystals_of_searches([search, tmp_path / "lj"], all_relaxations=True)


@pytest.fixture
def relaxation(tmp_path):
    """Return the folder of a relaxation with two converged crystals, and three that have failed."""
    folder = tmp_path / "relaxed"
    with RelaxedFiles(folder, {}) as files:
        for number in range(2):
            files.add_relaxed(number, bulk("Cu", a=3.6 + number))
        for number in (2, 3, 4, 4):  # the last one twice
            failed = bulk("Fe", a=3.0 + number)
            failed.info["reason"] = "unconverged"
            files.add_failed(number, failed)
    write_relaxation_card(folder, inputs=[], settings={})
    return folder


def test_folder_of_a_relaxation_stands_for_its_converged_crystals(relaxation):
    readings = [
        [atoms for _, frames, _ in training_files([relaxation]) for atoms in (frame.atoms for frame in frames)],
        [frame.atoms for frame in read_structures(relaxation)],
        read_crystals([relaxation]).atoms,
        [frame.atoms for frame in read_frames([relaxation])[0]],
    ]
    for found in readings:
        assert [atoms.get_chemical_formula() for atoms in found] == ["Cu", "Cu"]
    assert read_dataset([relaxation], max_atoms=4).files[0]["name"] == RELAXED


def test_relaxation_without_a_converged_crystal_says_how_many_have_failed(relaxation):
    (relaxation / RELAXED).write_bytes(b"")
    wanted = r"no crystal has converged yet, 3 have failed \(see failed\.extxyz\)"
    for read in (read_crystals, lambda paths: list(training_files(paths))):
        with pytest.raises(InputError, match=rf"relaxed' cannot be used: {wanted}"):
            read([relaxation])
    assert re.search(wanted, read_frames([relaxation])[1][0])
    (relaxation / FAILED).write_bytes(b"")
    with pytest.raises(InputError, match="no crystal has converged yet, none has failed"):
        read_crystals([relaxation])


def test_cards_in_a_folder_of_data_sets_are_no_structures(tmp_path):
    write_dataset([bulk("Cu")], tmp_path / "copper.extxyz", "convert", settings={})
    assert (tmp_path / "copper.card.json").exists()
    assert [frame.atoms.get_chemical_formula() for frame in read_structures(tmp_path)] == ["Cu"]


def test_file_that_cannot_be_read_is_named_with_its_own_reason(tmp_path):
    (tmp_path / "bad.extxyz").write_text('1\nLattice="1 0 0 0 1 0 0 0 1" pbc="T T T"\nXx 0 0 0\n' * 30)
    ase.io.write(tmp_path / "good.extxyz", bulk("Cu"))
    (tmp_path / "last.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"last\.csv' .*the table has no column of CIFs"):
        read_crystals([tmp_path / "bad.extxyz", tmp_path / "good.extxyz", tmp_path / "last.csv"])
