import json
import sqlite3

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import rutile

from hybridcsp.archive import structure_rows
from hybridcsp.archive.structure_rows import Row


def described():
    """A crystal with everything that a row holds."""
    atoms = rutile()
    atoms.set_initial_magnetic_moments([1.0, -1.0, 0, 0, 0, 0])
    atoms.set_initial_charges([4.0, 4.0, -2, -2, -2, -2])
    atoms.set_tags([1, 2, 3, 4, 5, 6])
    results = {
        "energy": -50.25,
        "free_energy": -50.5,
        "forces": np.arange(18.0).reshape(6, 3),
        "stress": np.arange(6.0),
        "magmoms": np.arange(6.0),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def cluster():
    return Atoms("H2", [(0, 0, 0), (0, 0, 0.7)])


def database(path):
    connection = sqlite3.connect(path)
    structure_rows.create_tables(connection)
    return connection


@pytest.mark.parametrize("make", [described, rutile, cluster, lambda: bulk("Fe")])
def test_rows_are_those_that_ase_writes(tmp_path, make):
    keys = {"event": "relaxed", "number": 3, "share": 0.5, "good": True}
    with ase.db.connect(tmp_path / "ase.db") as witness:
        witness.write(make(), key_value_pairs=keys)
    connection = database(tmp_path / "ours.db")
    structure_rows.insert(connection, [(1, Row(atoms=make(), keys=keys))])
    connection.commit()

    columns = [name for name in structure_rows._WRITTEN if name not in ("unique_id", "ctime", "mtime")]
    rows = [
        sqlite3.connect(tmp_path / name).execute(f"SELECT {', '.join(columns)} FROM systems").fetchone()
        for name in ("ase.db", "ours.db")
    ]
    by_ase, ours = (dict(zip(columns, row, strict=True)) for row in rows)
    assert json.loads(ours.pop("key_value_pairs")) == json.loads(by_ase.pop("key_value_pairs"))
    for name in ("fmax", "smax", "volume", "mass", "charge"):
        assert ours.pop(name) == pytest.approx(by_ase.pop(name))
    assert ours == by_ase
    for table in ("species", "keys", "text_key_values", "number_key_values"):
        one, other = (
            set(sqlite3.connect(tmp_path / n).execute(f"SELECT * FROM {table}")) for n in ("ase.db", "ours.db")
        )
        assert one == other


def test_structures_come_back_bit_for_bit_with_their_results(tmp_path):
    connection = database(tmp_path / "one.db")
    structure_rows.insert(connection, [(1, Row(atoms=described(), calculator="emt"))])
    again, wanted = structure_rows.read(connection, 1), described()
    for name in ("numbers", "positions", "initial_magmoms", "initial_charges", "tags"):
        assert (again.arrays[name] == wanted.arrays[name]).all()
    assert (again.cell.array == wanted.cell.array).all()
    assert again.pbc.all()
    assert again.calc.name == "emt"
    assert again.get_potential_energy() == -50.25
    assert (again.get_forces() == wanted.get_forces()).all()
    assert (again.get_stress() == wanted.get_stress()).all()
    connection.commit()
    assert ase.db.connect(tmp_path / "one.db").get(calculator="emt").energy == -50.25


def test_results_of_another_structure_are_not_stored(tmp_path):
    connection = database(tmp_path / "one.db")
    atoms = described()
    atoms.positions[0] += 0.1
    structure_rows.insert(connection, [(1, Row(atoms=atoms))])
    assert structure_rows.read(connection, 1).calc is None


def test_nothing_that_a_row_names_is_built(tmp_path):
    connection = database(tmp_path / "one.db")
    structure_rows.insert(connection, [(1, Row(atoms=described()))])
    evil = json.dumps([{"name": "os.system", "kwargs": {"command": "false"}}])
    connection.execute("UPDATE systems SET constraints = ?, calculator_parameters = ?, data = ?", (evil, evil, b"x"))
    again = structure_rows.read(connection, 1)
    assert again.constraints == []
    assert again.get_potential_energy() == -50.25


@pytest.mark.parametrize(
    "change", ["numbers = x'01'", "positions = x'00'", "cell = NULL", "numbers = 'text'", "pbc = 'a'"]
)
def test_damaged_rows_are_errors(tmp_path, change):
    connection = database(tmp_path / "one.db")
    structure_rows.insert(connection, [(1, Row(atoms=described()))])
    connection.execute(f"UPDATE systems SET {change}")
    with pytest.raises((ValueError, TypeError)):
        structure_rows.read(connection, 1)
    with pytest.raises(LookupError, match="row 2 is missing"):
        structure_rows.read(connection, 2)
