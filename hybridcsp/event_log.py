"""The run directory's database: an append-only log of events, with their structures as rows of an ASE database.

``search.db`` is an ASE SQLite database that ``ase db`` and ``ase gui`` open; one more table in it,
``hybridcsp_events``, holds the order of events. Both are written in one transaction; nothing is ever updated or
deleted.

While it is written, the database has a write-ahead log (``search.db-wal``, ``search.db-shm``) beside it, because with a
rollback journal each transaction waits for several flushes of the disk, tens of milliseconds. What was appended is with
the operating system and survives every end of the process, ``kill -9`` included. A power cut leaves a sound database
too, but one that may lack the last :data:`FLUSH_SECONDS`: only if the last flush is longer ago is a transaction flushed
as well. What comes in slowly, a relaxation by DFT or one that a person tells, is thus on the disk at once. Closing
leaves everything in the one file.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.db
from ase import Atoms

from hybridcsp.errors import ArchiveError, LockedError

DATABASE = "search.db"
LOCK = "search.lock"
FORMAT = 1

#: What comes within so many seconds of the last flush of the disk may be lost in a power cut; not if the process dies.
FLUSH_SECONDS = 5.0

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
        self._connection: sqlite3.Connection | None = None  # held as long as the lock
        self._next_flush = 0.0
        self._seconds_between_flushes = 0.0
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
                self._open()
            with closing(self._connect()) as connection:
                self._last = int(connection.execute(f"SELECT COALESCE(MAX(sequence), 0) FROM {_TABLE}").fetchone()[0])
        except sqlite3.Error as error:
            self.close()
            raise ArchiveError(f"cannot use {self.path}: {error}") from error
        except ArchiveError:
            self.close()
            raise

    def _open(self) -> None:
        # One thread at a time appends, but not always the one that opened the log.
        self._connection = connection = sqlite3.connect(self.path, timeout=20, check_same_thread=False)
        with suppress(sqlite3.OperationalError):  # where somebody reads just now it stays as it is: slower
            connection.execute("PRAGMA journal_mode = WAL")
        self._database.connection, self._database.change_count = connection, 0
        self._database._initialize(connection)
        with connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_TABLE} "
                "(sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, row INTEGER, data TEXT NOT NULL)"
            )
        # Only with a write-ahead log is a database sound after a power cut without having been flushed every time.
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        self._seconds_between_flushes = FLUSH_SECONDS if mode == "wal" else 0.0

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
        if self._connection is None:
            raise ArchiveError(f"{self.path} was opened for reading")
        if not events:
            return
        lines = [json.dumps(event.data) for event in events]
        flush = time.monotonic() >= self._next_flush
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}")
        self._database.change_count = 0  # ASE commits on its own after 5,000 accesses
        with self._connection as connection:
            for number, (event, line) in enumerate(zip(events, lines, strict=True), start=self._last + 1):
                if event.atoms is not None:
                    keys = {"event": event.kind, "sequence": number, **event.keys}
                    event.row = self._database.write(event.atoms, key_value_pairs=keys)
                    event.atoms = None
                connection.execute(f"INSERT INTO {_TABLE} VALUES (?, ?, ?, ?)", (number, event.kind, event.row, line))
                event.sequence = number
        self._last += len(events)
        if flush:
            self._next_flush = time.monotonic() + self._seconds_between_flushes

    def read(self) -> Iterator[Event]:
        """Yield all events in order, without their structures."""
        with closing(self._connect()) as connection:
            query = f"SELECT sequence, kind, row, data FROM {_TABLE} ORDER BY sequence"
            for sequence, kind, row, data in connection.execute(query):
                yield Event(kind=kind, data=json.loads(data), sequence=sequence, row=row)

    def atoms(self, row: int) -> Atoms:
        """Return the structure of one row, with its results in a ``SinglePointCalculator``."""
        with self._database if self._connection is None else nullcontext(self._database) as database:
            return database.get(id=row).toatoms()

    def close(self) -> None:
        """Leave everything in one file and give the lock back; a second call does nothing."""
        if self._connection is not None:
            self._database.connection = None
            self._connection.execute("PRAGMA busy_timeout = 100")
            # Where somebody has it open, an empty write-ahead log may stay beside it.
            with suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()
            self._connection = None
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
