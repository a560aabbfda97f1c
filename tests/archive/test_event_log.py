import json
import sqlite3

import ase.db
import numpy as np
import pytest
from ase.build import bulk

from hybridcsp.archive.event_log import EventLog
from hybridcsp.archive.events import CandidateProposed, CandidateRejected, RunStopped, SessionOpened
from hybridcsp.archive.structure_rows import Row
from hybridcsp.core.records import Cost
from hybridcsp.errors import ArchiveError


def append(log, *reasons):
    """Append the ends of runs, events without structures."""
    with log.transaction() as transaction:
        return [transaction.add(RunStopped(reason=reason)) for reason in reasons]


def reasons(log):
    return [event.reason for event in log.read()]


def proposed(**changes):
    values = {"candidate": 1, "source": "random", "operator": "random", "parents": (), "tag": {}, "level": "relax"}
    return CandidateProposed(**values | {"cost": Cost(), "owner": "workers"} | changes)


def rejected():
    return CandidateRejected(candidate=7, source="random", operator="random", reason="distance", detail="")


def test_events_are_read_in_order_with_their_structures(tmp_path):
    log = EventLog(tmp_path, write=True)
    copper = bulk("Cu")
    copper.positions[0] = [1 / 3, 1e-17, np.pi]
    with log.transaction() as transaction:
        transaction.add(SessionOpened(format=1, settings={"a": [1, None]}))
        added = transaction.add(proposed(), Row(atoms=copper))
    assert (added.sequence, added.row) == (2, 1)
    append(log, "enough")
    log.close()

    read = list(EventLog(tmp_path, write=False).read())
    assert [(event.sequence, event.kind) for event in read] == [(1, "opened"), (2, "proposed"), (3, "stopped")]
    assert read[0].settings == {"a": [1, None]}
    again = EventLog(tmp_path, write=False).atoms(read[1].row)
    assert (again.positions == copper.positions).all()  # bit for bit


def test_events_of_some_kinds_can_be_read_alone(tmp_path):
    with_structure = EventLog(tmp_path, write=True)
    with with_structure.transaction() as transaction:
        transaction.add(proposed(), Row(atoms=bulk("Cu")))
        transaction.add(RunStopped(reason="enough"))
        transaction.add(rejected(), Row(atoms=bulk("Cu")))
    read = with_structure.read(CandidateRejected, RunStopped)
    assert [(event.sequence, event.kind) for event in read] == [(2, "stopped"), (3, "rejected")]


def test_events_of_unknown_kinds_are_skipped_but_keep_their_numbers(tmp_path):
    log = EventLog(tmp_path, write=True)
    append(log, "a")
    log.close()
    with sqlite3.connect(tmp_path / "search.db") as connection:
        connection.execute("INSERT INTO hybridcsp_events VALUES (2, 'invented', NULL, ?)", (json.dumps({"x": 1}),))
    connection.close()
    log = EventLog(tmp_path, write=True)
    append(log, "b")
    assert [(event.sequence, event.reason) for event in log.read()] == [(1, "a"), (3, "b")]


def test_the_log_is_an_ase_database(tmp_path):
    log = EventLog(tmp_path, write=True)
    with log.transaction() as transaction:
        transaction.add(rejected(), Row(atoms=bulk("Cu"), keys={"reason": "distance", "candidate": 7}))
    row = ase.db.connect(tmp_path / "search.db").get(event="rejected")
    assert row.reason == "distance"
    assert row.candidate == 7
    assert row.sequence == 1


def test_events_of_one_transaction_are_written_all_or_none(tmp_path):
    log = EventLog(tmp_path, write=True)
    with pytest.raises(ValueError, match="Bad key"), log.transaction() as transaction:
        transaction.add(rejected(), Row(atoms=bulk("Cu")))
        transaction.add(rejected(), Row(atoms=bulk("Cu"), keys={"id": 3}))
    assert list(log.read()) == []
    assert len(ase.db.connect(tmp_path / "search.db")) == 0
    append(log, "c")
    assert [event.sequence for event in log.read()] == [1]


def test_nothing_is_written_if_the_block_of_a_transaction_raises(tmp_path):
    log = EventLog(tmp_path, write=True)
    with pytest.raises(RuntimeError), log.transaction() as transaction:
        transaction.add(RunStopped(reason="a"))
        raise RuntimeError
    append(log, "b")
    assert [(event.sequence, event.reason) for event in log.read()] == [(1, "b")]


def test_transactions_of_a_group_are_kept_together_at_its_end(tmp_path):
    log, reader = EventLog(tmp_path, write=True), EventLog(tmp_path, write=False)
    append(log, "a")
    with log.grouped():
        append(log, "b")
        append(log, "c")
        assert reasons(reader) == ["a"]
    assert reasons(reader) == ["a", "b", "c"]
    append(log, "d")
    assert reasons(reader) == ["a", "b", "c", "d"]


def test_a_group_keeps_what_it_has_when_its_log_is_read_or_closed_or_a_second_has_passed(tmp_path, monkeypatch):
    log, reader = EventLog(tmp_path, write=True), EventLog(tmp_path, write=False)
    with log.grouped():
        append(log, "a")
        assert reasons(log) == ["a"] == reasons(reader)
        append(log, "b")
        assert reasons(reader) == ["a"]
        monkeypatch.setattr("hybridcsp.archive.database.GROUP_SECONDS", 0.0)
        reasons(log)
        append(log, "c")
        assert reasons(reader) == ["a", "b", "c"]
        monkeypatch.undo()
        append(log, "d")
        log.close()
    assert reasons(reader) == ["a", "b", "c", "d"]


def test_a_transaction_that_raises_takes_nothing_else_of_its_group_with_it(tmp_path):
    log = EventLog(tmp_path, write=True)
    with pytest.raises(RuntimeError), log.grouped():
        append(log, "a")
        with pytest.raises(ValueError, match="Bad key"), log.transaction() as transaction:
            transaction.add(rejected(), Row(atoms=bulk("Cu")))
            transaction.add(rejected(), Row(atoms=bulk("Cu"), keys={"id": 3}))
        append(log, "b")
        raise RuntimeError
    assert [(event.sequence, event.reason) for event in log.read()] == [(1, "a"), (2, "b")]


def test_readers_see_appended_events_and_closing_leaves_one_file(tmp_path):
    log = EventLog(tmp_path, write=True)
    reader = EventLog(tmp_path, write=False)
    for candidate in (1, 2, 3):
        with log.transaction() as transaction:
            transaction.add(proposed(candidate=candidate), Row(atoms=bulk("Cu"), keys={"candidate": candidate}))
        assert [event.candidate for event in reader.read()][-1] == candidate
    with ase.db.connect(tmp_path / "search.db") as database:  # else ASE leaves its connection to the garbage collector
        assert len(reader.atoms(3)) == len(database.get(candidate=3).toatoms()) == 1
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.db", "search.lock"]


def test_closing_while_another_process_reads_loses_nothing(tmp_path):
    log = EventLog(tmp_path, write=True)
    append(log, *"abc")
    events = EventLog(tmp_path, write=False).read()
    assert next(events).reason == "a"
    append(log, "d")
    log.close()
    assert [event.reason for event in events] == ["b", "c"]  # as it was when reading began
    again = EventLog(tmp_path, write=True)
    assert reasons(again) == ["a", "b", "c", "d"]
    again.close()


def test_readers_do_not_write(tmp_path):
    EventLog(tmp_path, write=True).close()
    with pytest.raises(ArchiveError, match="opened for reading"):
        append(EventLog(tmp_path, write=False), "a")
