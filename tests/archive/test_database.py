"""Archives that are damaged, foreign or cannot be written raise errors and leave files of others untouched."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import ase.db
import numpy as np
import pytest
from archives import record_proposals
from ase.build import bulk
from crystals import random_crystal, relaxed

from hybridcsp.archive.archive import Archive, is_begun
from hybridcsp.archive.database import Database
from hybridcsp.archive.event_log import EventLog
from hybridcsp.archive.events import RunStopped
from hybridcsp.errors import ArchiveError, LockedError


def fill(directory, n=40):
    """Make an archive of some minima of copper."""
    rng = np.random.default_rng(0)
    with Archive(directory, write=True) as archive:
        archive.open_session({"seed": 1, "problem": {"formula": "Cu"}})
        candidates = record_proposals(archive, [random_crystal("Cu4", 12, rng) for _ in range(n)])
        archive.record_outcomes([relaxed(candidate, -3.0 + 0.1 * i) for i, candidate in enumerate(candidates)])
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(tmp_path, whole):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def append(log, reason):
    """Append an event without a structure."""
    with log.transaction() as transaction:
        transaction.add(RunStopped(reason=reason))


def look(directory, write=False):
    """Ask an archive for everything that it has."""
    with Archive(directory, write=write) as archive:
        list(archive.history())
        archive.minima()
        archive.ends()
        archive.details()
        archive.pending("workers")
        archive.to_refine(5, 1.0)
        return archive.problem


def change(directory, statement, *values):
    with sqlite3.connect(directory / "search.db") as connection:
        connection.execute(statement, values)
    connection.close()


def edit(directory, kind, **fields):
    """Change the first event of a kind."""
    with sqlite3.connect(directory / "search.db") as connection:
        query = "SELECT sequence, data FROM hybridcsp_events WHERE kind = ? LIMIT 1"
        sequence, data = connection.execute(query, (kind,)).fetchone()
        connection.execute(
            "UPDATE hybridcsp_events SET data = ? WHERE sequence = ?", (json.dumps(json.loads(data) | fields), sequence)
        )
    connection.close()


def overwrite(directory, at, data):
    with (directory / "search.db").open("r+b") as stream:
        stream.seek(at if at >= 0 else (directory / "search.db").stat().st_size // 4096 // 2 * 4096)
        stream.write(data)


DAMAGE = {
    "a page in the middle": lambda run: overwrite(run, -1, b"\xff" * 200),
    "the header": lambda run: overwrite(run, 0, b"\x00" * 100),
    "the page size": lambda run: overwrite(run, 16, b"\x00\x03"),
    "cut in half": lambda run: os.truncate(run / "search.db", (run / "search.db").stat().st_size // 2),
    "no database": lambda run: (run / "search.db").write_text("a shopping list, and a long one\n" * 100),
    "all structures missing": lambda run: change(run, "DELETE FROM systems"),
    "one structure missing": lambda run: change(run, "DELETE FROM systems WHERE id = 17"),
    "no table of structures": lambda run: change(run, "DROP TABLE systems"),
    "no version": lambda run: change(run, "DELETE FROM information"),
    "short positions": lambda run: change(run, "UPDATE systems SET positions = x'00'"),
    "text for numbers": lambda run: change(run, "UPDATE systems SET numbers = 'copper'"),
    "elements that do not exist": lambda run: change(
        run, "UPDATE systems SET numbers = x'ff7f0000ff7f0000ff7f0000ff7f0000'"
    ),
    "events that are no JSON": lambda run: change(run, "UPDATE hybridcsp_events SET data = '{' WHERE sequence = 9"),
    "events that are lists": lambda run: change(run, "UPDATE hybridcsp_events SET data = '[1]' WHERE sequence = 9"),
    "events that are two": lambda run: change(run, "UPDATE hybridcsp_events SET data = '{},{}' WHERE sequence = 9"),
    "events that are nested": lambda run: change(
        run, "UPDATE hybridcsp_events SET data = ? WHERE sequence = 9", "[" * 100_000 + "]" * 100_000
    ),
    "events that are bytes": lambda run: change(run, "UPDATE hybridcsp_events SET data = x'ff00' WHERE sequence = 9"),
    "events without structure": lambda run: change(run, "UPDATE hybridcsp_events SET row = NULL"),
    "events without fields": lambda run: change(run, "UPDATE hybridcsp_events SET data = '{}' WHERE kind = 'relaxed'"),
    "enthalpies that are text": lambda run: edit(run, "relaxed", enthalpy_per_atom="low"),
    "minima that do not exist": lambda run: edit(run, "relaxed", minimum=999, opened=False),
    "candidates that do not exist": lambda run: edit(run, "relaxed", candidate=999),
    "candidates that are lists": lambda run: edit(run, "relaxed", candidate=[1]),
    "costs that are numbers": lambda run: edit(run, "proposed", cost=3),
    "operators that are no words": lambda run: edit(run, "proposed", operator="#!"),
    "settings without a problem": lambda run: edit(run, "opened", settings={"seed": 1}),
    "settings that are a list": lambda run: edit(run, "opened", settings=[1, 2]),
    "a problem with strange fields": lambda run: edit(run, "opened", settings={"problem": {"formule": "Cu"}}),
    "a problem that is none": lambda run: edit(run, "opened", settings={"problem": {"formula": "Xx2"}}),
    "a newer format": lambda run: edit(run, "opened", format=99),
    "newer tables of ASE": lambda run: change(run, "UPDATE information SET value = '99' WHERE name = 'version'"),
    "tables of something else": lambda run: change(run, "DROP TABLE hybridcsp_events"),
}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_raises_an_error_that_names_the_file(run, damage, write):
    DAMAGE[damage](run)
    with pytest.raises(ArchiveError, match=r"search\.db"):
        look(run, write)
    EventLog(run.parent / "elsewhere", write=True).close()
    if not write:
        assert sorted(path.name for path in run.iterdir()) == ["search.db", "search.lock"]


def test_a_log_that_was_damaged_does_not_keep_the_lock(run):
    DAMAGE["a newer format"](run)
    with pytest.raises(ArchiveError, match=r"format 99.*use the version that wrote it"):
        Archive(run, write=True)
    with pytest.raises(ArchiveError) as again:
        Archive(run, write=True)
    assert not isinstance(again.value, LockedError)


def test_bytes_that_changed_somewhere_cause_no_other_error(run):
    file = run / "search.db"
    sound = file.read_bytes()
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = bytearray(sound)
        for at in rng.integers(0, len(data), 1 + seed % 20):
            data[at] = rng.integers(256)
        file.write_bytes(data)
        try:
            look(run)
        except ArchiveError as error:
            refused += 1
            assert "search.db" in str(error)
    assert refused > 0


def test_empty_or_invalid_write_ahead_logs_are_ignored(run):
    for text in (b"", b"garbage" * 1000):
        (run / "search.db-wal").write_bytes(text)
        assert look(run).formula == "Cu"


def test_archives_of_earlier_versions_are_read_as_they_are(tmp_path):
    """They were written row by row by ASE, whose rows may hold constraints."""
    from ase.constraints import FixAtoms

    candidate = {"candidate": 1, "source": "seeds", "operator": "seed"}
    cost = {"force_calls": 5, "seconds": 1.5}
    proposed = candidate | {"parents": [], "tag": {}, "cost": cost, "level": "relax", "owner": "workers"}
    end = candidate | {
        "level": "relax",
        "cost": cost,
        "detail": "",
        "relaxation": 1,
        "force_calls": 10,
        "calculator": "emt (ase 3.29)",
        "energy": -3.5,
        "enthalpy": -3.5,
        "enthalpy_per_atom": -3.5,
        "max_force": 0.0,
        "max_stress_residual": 0.0,
        "converged": True,
        "objectives": {},
        "spacegroup": 225,
        "spacegroup_loose": 225,
        "minimum": 1,
        "opened": True,
        "absorbed": None,
    }
    atoms = bulk("Cu")
    atoms.set_constraint(FixAtoms([0]))
    database = ase.db.connect(tmp_path / "search.db")
    events = [("opened", None, {"format": 1, "settings": {"problem": {"formula": "Cu"}}})]
    events += [
        (kind, database.write(atoms, event=kind), data) for kind, data in (("proposed", proposed), ("relaxed", end))
    ]
    with sqlite3.connect(tmp_path / "search.db") as connection:
        connection.execute(
            "CREATE TABLE hybridcsp_events "
            "(sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, row INTEGER, data TEXT NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO hybridcsp_events VALUES (?, ?, ?, ?)",
            [(n, kind, row, json.dumps(data)) for n, (kind, row, data) in enumerate(events, start=1)],
        )
    connection.close()
    with Archive(tmp_path, write=True) as archive:
        (minimum,) = archive.minima()
        assert (minimum.enthalpy_per_atom, minimum.spacegroup, minimum.best.cost.force_calls) == (-3.5, 225, 5)
        assert (minimum.atoms.positions == bulk("Cu").positions).all()
        record_proposals(archive, [bulk("Cu")])
    assert Archive(tmp_path).candidates == 2


# Directories


NAMES = [
    "a#1",
    "a?mode=memory",
    "a%41",
    "a%20b",
    "[a]",
    "[bold]",
    "two words",
    "it's",
    'quo"te',
    "new\nline",
    "-dash",
    "C#/run",
    "a@1",
    "postgresql:x",
    "file:x",
    "ü",
    "x" * 200,
    os.fsdecode(b"by\xfftes"),
]


@pytest.mark.parametrize("name", NAMES)
def test_directories_may_have_any_name(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(name, 3)
    assert look(name).formula == "Cu"
    assert look(name, write=True).formula == "Cu"
    assert [os.fsdecode(path) for path in os.listdir(".")] == [name.split("/")[0]]  # noqa: PTH208
    assert sorted(os.listdir(name)) == ["search.db", "search.lock"]  # noqa: PTH208


def test_a_relative_directory_stays_the_same_when_the_program_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Archive("run", write=True) as archive:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir("other")
        archive.open_session({"problem": {"formula": "Cu"}})
        record_proposals(archive, [bulk("Cu")])
        assert len(archive.candidate(1).atoms) == 1
    assert list((tmp_path / "other").iterdir()) == []
    assert is_begun(tmp_path / "run")


def test_a_directory_that_is_removed_while_it_is_written_ends_the_writing(tmp_path):
    log = EventLog(tmp_path / "run", write=True)
    append(log, "a")
    shutil.rmtree(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(ArchiveError, match="was removed, moved or replaced"):
            append(log, "b")
    log.close()
    assert not (tmp_path / "run").exists()


def test_a_database_that_is_replaced_while_it_is_written_is_left_alone(tmp_path):
    log = EventLog(tmp_path, write=True)
    (tmp_path / "search.db").unlink()
    (tmp_path / "search.db").write_text("somebody else's")
    with pytest.raises(ArchiveError, match="replaced"):
        append(log, "b")
    log.close()
    assert (tmp_path / "search.db").read_text() == "somebody else's"


def test_an_empty_directory_holds_no_search(tmp_path):
    with pytest.raises(ArchiveError, match=r"there is no search\.db"):
        Archive(tmp_path)


@pytest.mark.parametrize("write", [True, False])
def test_a_database_of_another_program_is_left_alone(tmp_path, write):
    ase.db.connect(tmp_path / "search.db").write(bulk("Cu"))
    before = (tmp_path / "search.db").read_bytes()
    with pytest.raises(ArchiveError, match="not a database of hybridcsp"):
        Archive(tmp_path, write=write)
    assert (tmp_path / "search.db").read_bytes() == before


@pytest.mark.parametrize("write", [True, False])
def test_a_file_that_is_not_a_database_is_left_alone(tmp_path, write):
    text = "a shopping list, long enough to look like something, but no database\n" * 10
    (tmp_path / "search.db").write_text(text)
    with pytest.raises(ArchiveError, match="not a database of a search"):
        Archive(tmp_path, write=write)
    assert (tmp_path / "search.db").read_text() == text


@pytest.mark.parametrize("name", ["search.lock", "search.db", "search.db-wal", "search.db-shm", "search.db-journal"])
@pytest.mark.parametrize("there", [True, False])
def test_no_symbolic_link_is_followed(tmp_path, name, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("precious")
    run = fill(tmp_path / "run", 1)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    with pytest.raises(ArchiveError, match="symbolic link, which is not followed"):
        Archive(run, write=True)
    assert victim.exists() == there
    assert not there or victim.read_text() == "precious"


def test_a_run_directory_may_be_a_symbolic_link(tmp_path):
    run = fill(tmp_path / "run", 1)
    (tmp_path / "link").symlink_to(run)
    with Archive(tmp_path / "link", write=True) as archive:
        record_proposals(archive, [bulk("Cu")])
    assert Archive(run).candidates == 2


def test_a_file_that_is_not_a_lock_is_not_overwritten(tmp_path):
    (tmp_path / "search.lock").write_text("my notes on lock picking")
    with pytest.raises(ArchiveError, match="is not a lock file of hybridcsp"):
        Archive(tmp_path, write=True)
    assert (tmp_path / "search.lock").read_text() == "my notes on lock picking"


@pytest.mark.parametrize("name", ["search.lock", "search.db"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_paths_that_are_not_regular_files_are_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(ArchiveError, match=name):
        Archive(tmp_path, write=True)
    if name == "search.db":
        with pytest.raises(ArchiveError, match="not a regular file"):
            Archive(tmp_path)


def test_error_for_a_directory_without_a_search_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "config.toml").write_text("")
    for name, said in (("file", "is a file"), ("nowhere", "does not exist"), ("empty", "holds no search")):
        with pytest.raises(ArchiveError, match=said):
            Archive(tmp_path / name)
    with pytest.raises(ArchiveError, match=r"hybridcsp search .*prepared/config\.toml"):
        Archive(tmp_path / "prepared")


def test_a_closed_archive_can_be_read_without_write_permission(run, monkeypatch):
    """As for a user who may not write there, which nobody can try out who is root."""
    connect = Database._connect

    def refused(self, mode, more="", **options):
        if not more:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return connect(self, mode, more=more, **options)

    monkeypatch.setattr(Database, "_connect", refused)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert look(run).formula == "Cu"
    (run / "search.db-wal").write_bytes(b"events")
    with pytest.raises(ArchiveError, match="copy both files"):
        look(run)


# Full disks


def test_a_full_disk_loses_no_written_event_and_leaves_no_gap(tmp_path):
    """A limit on the size of files is what a full disk looks like to SQLite."""
    script = """
        import resource, sys
        from pathlib import Path
        from hybridcsp.errors import ArchiveError
        from hybridcsp.archive.event_log import EventLog
        from hybridcsp.archive.events import RunStopped
        def append(text):
            with log.transaction() as transaction:
                transaction.add(RunStopped(reason=text))
        log = EventLog(Path(sys.argv[1]), write=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        written = 0
        try:
            for _ in range(1000):
                append("x" * 1000)
                written += 1
        except ArchiveError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        try:
            append("after")
        except ArchiveError:
            print(written)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        log.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "no space is left" in said[0]
    assert f"hybridcsp resume {tmp_path / 'run'}" in said[0]
    log = EventLog(tmp_path / "run", write=True)
    assert [event.reason for event in log.read()] == ["x" * 1000] * int(said[1])
    assert int(said[1]) > 10
    append(log, "b")
    log.close()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["search.db", "search.lock"]


def test_a_directory_on_a_full_disk_is_refused(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(ArchiveError, match="no space is left"):
            Archive(tmp_path / "run", write=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Archive(tmp_path / "run", write=True) as archive:
        record_proposals(archive, [bulk("Cu")])
