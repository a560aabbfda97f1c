import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase.build import bulk

from hybridcsp.archive.event_log import Event, EventLog
from hybridcsp.errors import ArchiveError, LockedError


def test_events_come_back_in_order_with_their_structures(tmp_path):
    log = EventLog(tmp_path, write=True)
    copper = bulk("Cu")
    copper.positions[0] = [1 / 3, 1e-17, np.pi]
    log.append([Event(kind="opened", data={"a": [1, None]}), Event(kind="proposed", data={}, atoms=copper)])
    log.append([Event(kind="stopped", data={"reason": "enough"})])
    log.close()

    read = list(EventLog(tmp_path, write=False).read())
    assert [(event.sequence, event.kind) for event in read] == [(1, "opened"), (2, "proposed"), (3, "stopped")]
    assert read[0].data == {"a": [1, None]}
    again = EventLog(tmp_path, write=False).atoms(read[1].row)
    assert (again.positions == copper.positions).all()  # bit for bit


def test_it_is_an_ase_database(tmp_path):
    log = EventLog(tmp_path, write=True)
    log.append([Event(kind="rejected", data={}, atoms=bulk("Cu"), keys={"reason": "distance", "candidate": 7})])
    row = ase.db.connect(tmp_path / "search.db").get(event="rejected")
    assert row.reason == "distance"
    assert row.candidate == 7
    assert row.sequence == 1


def test_events_of_one_batch_are_written_all_or_none(tmp_path):
    log = EventLog(tmp_path, write=True)
    good, bad = Event(kind="a", data={}, atoms=bulk("Cu")), Event(kind="b", data={}, atoms=bulk("Cu"), keys={"id": 3})
    with pytest.raises(ValueError, match="Bad key"):
        log.append([good, bad])
    assert list(log.read()) == []
    assert len(ase.db.connect(tmp_path / "search.db")) == 0
    log.append([Event(kind="c", data={})])
    assert [event.sequence for event in log.read()] == [1]


def test_a_second_writer_is_told_who_holds_the_directory(tmp_path):
    log = EventLog(tmp_path, write=True)
    with pytest.raises(LockedError, match=f"in use by process {os.getpid()}"):
        EventLog(tmp_path, write=True)
    EventLog(tmp_path, write=False)  # readers are welcome
    log.close()
    EventLog(tmp_path, write=True).close()


def test_a_file_system_without_locks_is_refused_in_words(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(ArchiveError, match=r"search\.lock cannot be locked .*No locks available.*another disk"):
        EventLog(tmp_path, write=True)


def test_the_lock_dies_with_its_holder(tmp_path):
    script = f"""
        import os
        from pathlib import Path
        from hybridcsp.event_log import Event, EventLog
        log = EventLog(Path({str(tmp_path)!r}), write=True)
        log.append([Event(kind="a", data={{}})])
        log.append([Event(kind="b", data={{}})])  # within FLUSH_SECONDS
        os.kill(os.getpid(), 9)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == -9
    log = EventLog(tmp_path, write=True)
    assert [event.kind for event in log.read()] == ["a", "b"]
    log.close()


def test_readers_see_what_was_appended_and_closing_leaves_one_file(tmp_path):
    log = EventLog(tmp_path, write=True)
    reader = EventLog(tmp_path, write=False)
    for kind in "abc":
        log.append([Event(kind=kind, data={}, atoms=bulk("Cu"))])
        assert [event.kind for event in reader.read()][-1] == kind
    with ase.db.connect(tmp_path / "search.db") as database:  # else ASE leaves its connection to the garbage collector
        assert len(reader.atoms(3)) == len(database.get(event="c").toatoms()) == 1
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.db", "search.lock"]


def test_closing_while_somebody_reads_loses_nothing(tmp_path):
    log = EventLog(tmp_path, write=True)
    log.append([Event(kind=kind, data={}) for kind in "abc"])
    events = EventLog(tmp_path, write=False).read()
    assert next(events).kind == "a"
    log.append([Event(kind="d", data={})])
    log.close()
    assert [event.kind for event in events] == ["b", "c"]  # as it was when reading began
    again = EventLog(tmp_path, write=True)
    assert [event.kind for event in again.read()] == ["a", "b", "c", "d"]
    again.close()


def test_readers_do_not_write(tmp_path):
    EventLog(tmp_path, write=True).close()
    with pytest.raises(ArchiveError, match="opened for reading"):
        EventLog(tmp_path, write=False).append([Event(kind="a", data={})])


def test_an_empty_directory_holds_no_search(tmp_path):
    with pytest.raises(ArchiveError, match=r"there is no search\.db"):
        EventLog(tmp_path, write=False)


@pytest.mark.parametrize("write", [True, False])
def test_a_database_of_something_else_is_left_alone(tmp_path, write):
    ase.db.connect(tmp_path / "search.db").write(bulk("Cu"))
    before = (tmp_path / "search.db").read_bytes()
    with pytest.raises(ArchiveError, match="database of something else"):
        EventLog(tmp_path, write=write)
    assert (tmp_path / "search.db").read_bytes() == before


@pytest.mark.parametrize("write", [True, False])
def test_a_file_that_is_no_database_is_left_alone(tmp_path, write):
    (tmp_path / "search.db").write_text("a shopping list, long enough to look like something, but no database\n" * 10)
    with pytest.raises(ArchiveError, match="not a database of a search"):
        EventLog(tmp_path, write=write)


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="cannot write to the run directory"):
        EventLog(tmp_path / "file" / "run", write=True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that even root cannot write to")
def test_a_read_only_directory_is_refused():
    with pytest.raises(ArchiveError, match="cannot write to the run directory"):
        EventLog(Path("/proc/self"), write=True)
