"""The run directory's database: an append-only log of events, with their structures as rows of an ASE database.

``search.db`` is an ASE SQLite database that ``ase db`` and ``ase gui`` open; one more table in it,
``hybridcsp_events``, holds the order of events. Both are written in one transaction; nothing is ever updated or
deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.db
from ase import Atoms

from hybridcsp.errors import ArchiveError, LockedError

DATABASE = "search.db"
LOCK = "search.lock"
FORMAT = 1
_TABLE = "hybridcsp_events"


@dataclass(kw_only=True, eq=False)
class Event:
    """One thing that happened.

    Attributes
    ----------
    kind
        "opened", "called", "proposed", "relaxed", "failed", "rejected", "stopped", …
    data
        Plain JSON.
    atoms
        The structure that goes with it, if any; once it is written, :meth:`EventLog.atoms` has it.
    keys
        Key-value pairs of the structure's row, for people who look with ``ase db``.
    sequence, row
        Filled in when it is written: the number of the event and of the structure's row.
    """

    kind: str
    data: dict[str, Any]
    atoms: Atoms | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    sequence: int = 0
    row: int | None = None


class EventLog:
    """The log in one run directory.

    Parameters
    ----------
    directory
        The run directory.
    write
        Whether to create or append; holds the directory's lock until :meth:`close`. Readers need no lock.

    Raises
    ------
    ArchiveError
        If the directory cannot be written, or holds no log (when reading), or a database of something else.
    LockedError
        If somebody else is writing.
    """

    def __init__(self, directory: Path, *, write: bool) -> None:
        self.path = directory / DATABASE
        self._lock: int | None = None
        if write:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                self._lock = _acquire(directory / LOCK)
            except OSError as error:
                raise ArchiveError(f"cannot write to the run directory {directory}: {error.strerror}") from error
        elif not self.path.is_file():
            raise ArchiveError(f"{directory} holds no search: there is no {DATABASE} in it")
        try:
            if self.path.exists():
                self._check()
            self._database = ase.db.connect(self.path, type="db", use_lock_file=False)
            if write:
                with self._database as database:
                    database._initialize(database.connection)
                    database.connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {_TABLE} "
                        "(sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, row INTEGER, data TEXT NOT NULL)"
                    )
            with closing(self._connect()) as connection:
                self._last = int(connection.execute(f"SELECT COALESCE(MAX(sequence), 0) FROM {_TABLE}").fetchone()[0])
        except sqlite3.Error as error:
            self.close()
            raise ArchiveError(f"cannot use {self.path}: {error}") from error
        except ArchiveError:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=20)

    def _check(self) -> None:
        try:
            with closing(self._connect()) as connection:
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.DatabaseError as error:
            raise ArchiveError(f"{self.path} is not a database of a search: {error}") from error
        # A file with no tables is what a kill during the very first write leaves behind.
        if tables and _TABLE not in tables:
            raise ArchiveError(f"{self.path} is a database of something else; choose another directory")

    @property
    def writable(self) -> bool:
        """Whether this process holds the lock."""
        return self._lock is not None

    def append(self, events: Sequence[Event]) -> None:
        """Write events in one transaction and number them; after a crash either all are there or none."""
        if not self.writable:
            raise ArchiveError(f"{self.path} was opened for reading")
        if not events:
            return
        lines = [json.dumps(event.data) for event in events]
        with self._database as database:
            for number, (event, line) in enumerate(zip(events, lines, strict=True), start=self._last + 1):
                if event.atoms is not None:
                    keys = {"event": event.kind, "sequence": number, **event.keys}
                    event.row = database.write(event.atoms, key_value_pairs=keys)
                    event.atoms = None
                database.connection.execute(
                    f"INSERT INTO {_TABLE} VALUES (?, ?, ?, ?)", (number, event.kind, event.row, line)
                )
                event.sequence = number
        self._last += len(events)

    def read(self) -> Iterator[Event]:
        """Yield all events in order, without their structures."""
        with closing(self._connect()) as connection:
            query = f"SELECT sequence, kind, row, data FROM {_TABLE} ORDER BY sequence"
            for sequence, kind, row, data in connection.execute(query):
                yield Event(kind=kind, data=json.loads(data), sequence=sequence, row=row)

    def atoms(self, row: int) -> Atoms:
        """Return the structure of one row, with its results in a ``SinglePointCalculator``."""
        return self._database.get(id=row).toatoms()

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _acquire(path: Path) -> int:
    # The lock belongs to the open file and goes with the process, however that ends; the text in it only names the
    # holder.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise LockedError(f"{path.parent} is in use by {holder}") from None
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor
