"""Databases of anybody: read row by row, and left as they are."""

import gzip
import sqlite3

import ase.db
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from hybridcsp.errors import UnreadableError
from hybridcsp.io.ase_databases import read_database
from hybridcsp.io.frames import ReadFailure


def rock_salt():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    atoms.set_initial_charges([1.0, -1.0])
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-7.0, forces=np.zeros((2, 3)))
    return atoms


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "a#b?c%41 [d]"
    folder.mkdir()
    with ase.db.connect(folder / "e.db") as database:
        for number in range(30):
            database.write(rock_salt(), origin="somebody", number=number)
    return folder / "e.db"


def change(file, statement, *values):
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(statement, values)
    connection.close()


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def told(file):
    found = list(read_database(file))
    return [one for one in found if not isinstance(one, ReadFailure)], [
        one for one in found if isinstance(one, ReadFailure)
    ]


def test_rows_are_read_as_written_and_the_file_is_unchanged(file):
    before, beside = file.read_bytes(), names(file.parent)
    frames, broken = told(file)
    assert len(frames) == 30 and not broken
    atoms = frames[7].atoms
    assert (frames[7].number, frames[7].line, frames[7].name) == (7, 8, "e-8")
    assert atoms.get_potential_energy() == -7.0
    assert atoms.info == {"origin": "somebody", "number": 7}
    assert atoms.get_initial_magnetic_moments().tolist() == [1.0, -1.0]
    assert atoms.get_initial_charges().tolist() == [1.0, -1.0]
    assert np.allclose(atoms.cell, rock_salt().cell) and np.allclose(atoms.positions, rock_salt().positions)
    assert file.read_bytes() == before
    assert names(file.parent) == beside


def test_compressed_database_is_read(file):
    packed = file.with_name("f.db.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert len(told(packed)[0]) == 30


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("positions", b"xx"),
        ("positions", None),
        ("positions", np.full(6, np.nan).tobytes()),
        ("numbers", "NaCl"),
        ("numbers", np.array([11, 300], np.int32).tobytes()),
        ("cell", bytes(72)),
        ("cell", (np.eye(3) * 1e30).tobytes()),
        ("pbc", "TTT"),
        ("pbc", 3),
        ("key_value_pairs", "[" * 100_000),
        ("initial_magmoms", bytes(24)),
    ],
)
def test_broken_row_does_not_affect_others(file, column, value):
    change(file, f"UPDATE systems SET {column} = ? WHERE id = 5", value)
    frames, broken = told(file)
    assert len(frames) == 29
    (one,) = broken
    assert (one.file, one.line) == (file, 5)
    assert "row 5" in one.reason


def test_classes_named_in_rows_are_neither_imported_nor_instantiated(file, tmp_path, monkeypatch):
    (tmp_path / "probe.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    named = '[{"name": "probe.Anything", "kwargs": {}, "@module": "probe", "@class": "Anything"}]'
    change(file, "UPDATE systems SET constraints = ?, calculator_parameters = ?, data = ?", named, named, named)
    assert len(told(file)[0]) == 30
    assert not (tmp_path / "RAN").exists()


def test_damaged_page_affects_only_its_rows(file):
    data = bytearray(file.read_bytes())
    connection = sqlite3.connect(file)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'systems'").fetchone()[0]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    # The root of the table names its pages: one of them is overwritten.
    pointer = int.from_bytes(data[(root - 1) * size + 12 : (root - 1) * size + 14])
    page = int.from_bytes(data[(root - 1) * size + pointer : (root - 1) * size + pointer + 4])
    data[(page - 1) * size : page * size] = b"\x99" * size
    file.write_bytes(data)
    frames, broken = told(file)
    assert 0 < len(frames) < 30
    (one,) = broken
    assert "damaged" in one.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"broken", "not an SQLite database"),
        (b"SQLite format 3\0" + bytes(84), "database is damaged"),
    ],
)
def test_files_that_are_not_databases_are_refused(tmp_path, content, said):
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(UnreadableError, match=said):
        list(read_database(tmp_path / "a.db"))
    assert (tmp_path / "a.db").read_bytes() == content


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE mine (a)", "another program"),
        ("CREATE TABLE systems (a)", "no column"),
        (
            "CREATE VIEW systems AS WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x FROM t",
            "another program",
        ),
    ],
    ids=["other table", "other columns", "endless view"],
)
def test_databases_of_other_programs_are_refused_and_unchanged(tmp_path, statement, said):
    file = tmp_path / "theirs.db"
    change(file, statement)
    before = file.read_bytes()
    with pytest.raises(UnreadableError, match=said):
        list(read_database(file))
    assert file.read_bytes() == before
    assert names(tmp_path) == ["theirs.db"]


def test_unknown_versions_are_refused(file):
    change(file, "UPDATE information SET value = '12' WHERE name = 'version'")
    with pytest.raises(UnreadableError, match="version 12"):
        list(read_database(file))


def test_write_ahead_log_is_read_without_leaving_files(file):
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE systems SET energy = -8.0")
    writer.commit()
    before = {name: (file.parent / name).read_bytes() for name in names(file.parent)}
    assert f"{file.name}-wal" in before
    assert {frame.atoms.get_potential_energy() for frame in told(file)[0]} == {-8.0}
    assert {name: (file.parent / name).read_bytes() for name in names(file.parent)} == before
    writer.close()
    assert {frame.atoms.get_potential_energy() for frame in told(file)[0]} == {-8.0}
    assert names(file.parent) == [file.name]


def test_unfinished_transaction_of_another_program_is_not_rolled_back(file):
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN")
    writer.execute("UPDATE systems SET energy = -8.0, username = hex(zeroblob(3000))")
    copy = file.with_name("copy.db")
    journal = file.with_name(f"{file.name}-journal")
    copy.write_bytes(file.read_bytes())
    copy.with_name("copy.db-journal").write_bytes(journal.read_bytes())
    writer.close()
    before = copy.read_bytes()
    with pytest.raises(UnreadableError):
        list(read_database(copy))
    assert copy.read_bytes() == before
    assert copy.with_name("copy.db-journal").exists()
