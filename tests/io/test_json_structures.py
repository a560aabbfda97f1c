"""JSON of pymatgen and ASE, taken as plain data."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import rutile
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from hybridcsp.io.formats.plain import record_of
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.json_structures import read_json_structures
from hybridcsp.similarity import same_structure
from hybridcsp.structure.conversion import to_pymatgen


def read(folder, content):
    file = folder / "a.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content, cls=MontyEncoder))
    return list(read_json_structures(file))


@pytest.mark.parametrize("verbosity", [0, 1])
def test_pymatgen_structures_are_read(tmp_path, verbosity):
    structure = Structure(Lattice.from_parameters(4, 5, 6, 80, 95, 110), ["Na+", "Cl-"], [[0.1, 0, 0], [0.5, 0.5, 0.5]])
    structure.add_site_property("magmom", [1.0, -1.0])
    (frame,) = read(tmp_path, structure.as_dict(verbosity=verbosity))
    assert same_structure(frame.atoms, structure.to_ase_atoms())
    assert frame.atoms.get_initial_magnetic_moments().tolist() == [1.0, -1.0]


def test_entries_keep_their_energy_and_name(tmp_path):
    entries = [ComputedStructureEntry(to_pymatgen(rutile()), -5.0, entry_id="mp-1"), to_pymatgen(rutile())]
    first, second = read(tmp_path, entries)
    assert (first.name, second.name) == ("mp-1", "a-2")
    assert first.atoms.get_potential_energy() == -5.0
    assert second.atoms.calc is None


def test_json_database_of_ase_is_read(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.set_initial_charges([1.0, -1.0])
    atoms.calc = SinglePointCalculator(atoms, energy=-7.0, forces=np.zeros((2, 3)))
    ase.io.write(tmp_path / "a.json", [atoms, atoms])
    first, second = read_json_structures(tmp_path / "a.json")
    assert first.atoms == second.atoms
    assert same_structure(first.atoms, atoms)
    assert first.atoms.get_potential_energy() == -7.0
    assert first.atoms.get_initial_charges().tolist() == [1.0, -1.0]


@pytest.mark.parametrize("where", ["sites", "lattice", "properties", "top"])
def test_modules_named_in_a_file_are_not_imported(tmp_path, monkeypatch, where):
    (tmp_path / "probe.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    described = to_pymatgen(rutile()).as_dict()
    named = {"@module": "probe", "@class": "Anything"}
    {
        "sites": lambda: described["sites"][0].update(properties={"x": named}),
        "lattice": lambda: described["lattice"].update(named),
        "properties": lambda: described.update(properties={"x": named}),
        "top": lambda: described.update(named),
    }[where]()
    (frame,) = read(tmp_path, described)
    assert same_structure(frame.atoms, rutile())
    assert not (tmp_path / "RAN").exists()


def spoiled(change):
    described = to_pymatgen(rutile()).as_dict()
    change(described)
    return described


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (3, "is not a pymatgen Structure"),
        ({"@module": "os", "@class": "system", "command": "true"}, "is not a pymatgen Structure"),
        (spoiled(lambda d: d["sites"][0].update(species=[{"element": "Ti", "occu": 0.5}])), "partly occupied"),
        (spoiled(lambda d: d["sites"][0].update(species=[{"element": "Qq"}])), "'Qq' is not an element"),
        (spoiled(lambda d: d["sites"][0].update(species=3)), "no list of species"),
        (spoiled(lambda d: d["sites"][0].update(abc=[0, 0])), "no coordinates"),
        (spoiled(lambda d: d["sites"][0].update(abc=[float("nan"), 0, 0])), "finite"),
        (spoiled(lambda d: d.update(lattice={"matrix": [[1, 2], [3, 4]]})), "lattice has the shape"),
        (spoiled(lambda d: d.update(lattice={"a": 1e400})), "lattice has neither"),
        (spoiled(lambda d: d.update(lattice={"matrix": (np.eye(3) * 1e9).tolist()})), "far outside|cell of"),
        (spoiled(lambda d: d.update(sites=[])), "atoms"),
        ({"numbers": [1], "positions": {"__ndarray__": [[10**9, 3], "float64", [0]]}}, "stated shape"),
        ({"numbers": [1], "positions": [[0, 0, 0]]}, "lattice vectors are missing"),
        ({"numbers": [[[1]]], "positions": [[0, 0, 0]], "cell": [3, 3, 3], "pbc": True}, "shape"),
    ],
)  # fmt: skip
def test_broken_entries_do_not_affect_others(tmp_path, content, said):
    good = to_pymatgen(rutile())
    first, broken, last = read(tmp_path, [good, content, good])
    assert same_structure(first.atoms, last.atoms)
    assert isinstance(broken, ReadFailure)
    assert broken.reason.startswith("entry 2: ")
    assert any(words in broken.reason for words in said.split("|"))


@pytest.mark.parametrize("content", ["[]", '{"ids": [], "nextid": 1}'])
def test_error_for_a_file_without_structures_lists_readable_content(tmp_path, content):
    (broken,) = read(tmp_path, content)
    assert "contains no structure" in broken.reason


def test_integers_beyond_double_precision_do_not_affect_other_entries(tmp_path):
    atoms = bulk("Cu")
    row = {"numbers": [29], "positions": [[0, 0, 0]], "cell": atoms.cell.array.tolist(), "pbc": [True] * 3}
    huge = row | {"energy": 10**400, "key_value_pairs": {"enthalpy": 10**400, "generation": 3}}
    first, second = read(tmp_path, [huge, row | {"energy": -3}])
    assert first.atoms.calc is None
    assert first.atoms.info == {"generation": 3}
    assert second.atoms.get_potential_energy() == -3
    assert [record_of(frame).enthalpy for frame in (first, second)] == [None, None]
