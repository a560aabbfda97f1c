"""The run directory's database: an append-only log of events, with their structures as rows of an ASE database.

``search.db`` is an ASE SQLite database that ``ase db`` and ``ase gui`` open; one more table in it,
``hybridcsp_events``, holds the order of events. Both are written in one transaction; no event is ever updated or
deleted. The one thing that changes in rows is which of them have the key ``best``: it follows from the events.

While it is written, the database has a write-ahead log (``search.db-wal``, ``search.db-shm``) beside it, because with a
rollback journal each transaction waits for several flushes of the disk, tens of milliseconds. What was appended is with
the operating system and survives every end of the process, ``kill -9`` included. A power cut leaves a sound database
too, but one that may lack the last :data:`FLUSH_SECONDS`: only if the last flush is longer ago is a transaction flushed
as well. What comes in slowly, a relaxation by DFT or one that a person tells, is thus on the disk at once. Closing
leaves everything in the one file.

A run directory may come from somebody else: nothing that its files name is imported or run, no symbolic link is
followed, and every kind of damage is an :class:`ArchiveError` that says which file it is in.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import quote as percent_encoded

from ase import Atoms

from hybridcsp.archive import structure_rows
from hybridcsp.archive.directory_lock import DirectoryLock
from hybridcsp.errors import ArchiveError

DATABASE = "search.db"
FORMAT = 1

#: What comes within so many seconds of the last flush of the disk may be lost in a power cut; not if the process dies.
FLUSH_SECONDS = 5.0

_TABLE = "hybridcsp_events"

#: What SQLite may put beside a database.
_BESIDE = ("", "-wal", "-shm", "-journal")

# Events are decoded so many at a time, because the names of their fields are then held once.
_TOGETHER = 1000

_CACHE_KIB = 65536


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
    calculator
        What the row calls the calculator of its results.
    displaced
        The events of relaxations that are not the best of any minimum any more, until it is written.
    sequence, row
        Filled in when it is written: the number of the event and of the structure's row.
    """

    kind: str
    data: dict[str, Any]
    atoms: Atoms | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    calculator: str = ""
    displaced: list[Event] = field(default_factory=list)
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
        self.directory = Path(os.path.abspath(directory))  # noqa: PTH100  # links are not followed
        self.path = self.directory / DATABASE
        self._lock: DirectoryLock | None = None
        self._writer: sqlite3.Connection | None = None  # held as long as the lock
        self._reader: sqlite3.Connection | None = None  # held while something is read
        self._depth = 0
        self._identity: tuple[int, int] | None = None
        self._broken: ArchiveError | None = None
        self._next_flush = 0.0
        self._seconds_between_flushes = 0.0
        if write:
            self._lock = DirectoryLock(self.directory)
        try:
            self._check_files(write)
            with self.reading():
                if write:
                    self._open()
                else:
                    self._check_tables(self._connection())
                self._last = self._highest(self._connection())
        except BaseException:
            self.close()
            raise

    def _check_files(self, write: bool) -> None:
        for suffix in _BESIDE:
            file = self.path.with_name(DATABASE + suffix)
            try:
                mode = (file.stat() if not suffix and not write else file.lstat()).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise ArchiveError(f"cannot read {file}: {error.strerror}") from error
            if stat.S_ISLNK(mode):
                raise ArchiveError(f"{file} is a symbolic link, which is not followed: put the file itself there")
            if not stat.S_ISREG(mode):
                raise ArchiveError(f"{file} is not a file: choose another directory")
        if not write and not self.path.exists():
            raise ArchiveError(self._nothing_there())

    def _nothing_there(self) -> str:
        if not self.directory.exists():
            return f"{self.directory} is not there, and so there is no {DATABASE} in it"
        if not self.directory.is_dir():
            return f"{self.directory} is a file, not a run directory: there is no {DATABASE} in it"
        configuration = self.directory / "config.toml"
        hint = f"; begin it with hybridcsp search {quote(str(configuration))}" if configuration.exists() else ""
        return f"{self.directory} holds no search: there is no {DATABASE} in it{hint}"

    def _open(self) -> None:
        # One thread at a time appends, but not always the one that opened the log.
        self._writer = connection = self._connect("rwc", check_same_thread=False)
        connection.isolation_level = None  # transactions begin and end where they are written below
        self._check_tables(connection)
        with suppress(sqlite3.OperationalError):  # where somebody reads just now it stays as it is: slower
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        with self._transaction():  # all tables or none: a kill leaves an empty database, which is begun again
            tables = _tables(connection)
            if "systems" not in tables:
                structure_rows.create_tables(connection)
                structure_rows.prepare_best(connection)
            if _TABLE not in tables:
                connection.execute(
                    f"CREATE TABLE {_TABLE} "
                    "(sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, row INTEGER, data TEXT NOT NULL)"
                )
        found = self.path.stat()
        self._identity = found.st_dev, found.st_ino
        # Only with a write-ahead log is a database sound after a power cut without having been flushed every time.
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        self._seconds_between_flushes = FLUSH_SECONDS if mode == "wal" else 0.0

    def _connect(self, mode: str, *, more: str = "", check_same_thread: bool = True) -> sqlite3.Connection:
        # As a percent-encoded URI, in which no character of a directory's name has a meaning of its own.
        name = percent_encoded(os.fsencode(self.path))
        uri = f"file:{name}?mode={mode}{more}"
        return sqlite3.connect(uri, uri=True, timeout=20, check_same_thread=check_same_thread)

    def _connection(self) -> sqlite3.Connection:
        """Return what structures are read with: the writer's own connection, or one that only reads."""
        if self._writer is not None:
            return self._writer
        if self._reader is None:
            self._reader = self._read_only()
        return self._reader

    def _read_only(self) -> sqlite3.Connection:
        try:
            connection = self._connect("ro", check_same_thread=False)
            _tables(connection)
        except sqlite3.OperationalError as error:
            if os.access(self.directory, os.W_OK):
                raise
            if not _is_kind(error, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            # SQLite puts files beside a database with a write-ahead log even to read it, unless nothing is in the log.
            log = self.path.with_name(f"{DATABASE}-wal")
            if log.exists() and log.stat().st_size > 0:
                raise ArchiveError(
                    f"{self.path} cannot be read where nothing can be written, because its last events are still in "
                    f"{log.name}: copy both files to a directory of yours"
                ) from error
            connection = self._connect("ro", more="&immutable=1", check_same_thread=False)
        return connection

    def _check_tables(self, connection: sqlite3.Connection) -> None:
        tables = _tables(connection)
        # A file with no tables is what a kill during the very first write leaves behind.
        if tables and _TABLE not in tables:
            raise ArchiveError(f"{self.path} is a database of something else; choose another directory")
        if tables:
            (version,) = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
            if int(version) > structure_rows.VERSION:
                raise ArchiveError(
                    f"{self.path} has ASE's tables of version {version}; this version of hybridcsp knows those up to "
                    f"{structure_rows.VERSION}: use the version that wrote it"
                )

    @staticmethod
    def _highest(connection: sqlite3.Connection) -> int:
        if _TABLE not in _tables(connection):
            return 0
        (last,) = connection.execute(f"SELECT COALESCE(MAX(sequence), 0) FROM {_TABLE}").fetchone()
        return int(last)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn whatever a damaged database causes while it is read into an error that says what to do.

        A reader keeps its connection as long as the outermost block lasts: many structures are read with one, and a
        writer that closes in the meantime finds nobody in its way.

        Raises
        ------
        ArchiveError
            In place of any error of SQLite, of JSON, or of what is missing or of another kind than it should be.
        """
        self._depth += 1
        try:
            yield
        except ArchiveError:
            raise
        except sqlite3.Error as error:
            if not self.path.exists():
                raise ArchiveError(self._nothing_there()) from error
            if _is_kind(error, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise self._unwritable(error) from error
            if _is_kind(error, sqlite3.SQLITE_NOTADB):
                raise ArchiveError(
                    f"{self.path} is not a database of a search, or its beginning is damaged ({error}): choose another "
                    f"directory, or use a copy of the file"
                ) from error
            if _is_kind(error, sqlite3.SQLITE_CORRUPT):
                raise self._damaged(str(error)) from error
            raise ArchiveError(f"cannot use {self.path}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._close_reader()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _damaged(self, why: str) -> ArchiveError:
        why = why if len(why) < 300 else f"{why[:300]} …"
        return ArchiveError(
            f"{self.path} is damaged or from another version ({why}): use a copy of it, or start again in another "
            f"directory; what can still be read of it: sqlite3 {quote(str(self.path))} .recover"
        )

    def _unwritable(self, error: Exception) -> ArchiveError:
        full = _is_kind(error, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        why = f"no space is left on the disk, or a limit on files is reached ({error})" if full else str(error)
        return ArchiveError(
            f"cannot write to {self.path}: {why}. What was recorded before is kept; when there is room: "
            f"hybridcsp resume {quote(str(self.directory))}"
        )

    @property
    def writable(self) -> bool:
        """Whether this process holds the lock."""
        return self._lock is not None

    def append(self, events: Sequence[Event]) -> None:
        """Write events in one transaction and number them; after a crash either all are there or none.

        Raises
        ------
        ArchiveError
            If they cannot be written, for lack of space for instance. Then nothing else can be written either until the
            directory is opened again: what comes later would build on what is missing.
        """
        if self._writer is None:
            raise ArchiveError(f"{self.path} is closed, or was opened for reading only")
        if self._broken is not None:
            raise self._broken
        if not events:
            return
        lines = [json.dumps(event.data) for event in events]
        self._check_place()
        flush = time.monotonic() >= self._next_flush
        try:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if flush else 'NORMAL'}")
            with self._transaction() as connection:
                self._insert(connection, events, lines)
        except sqlite3.Error as error:
            self._broken = self._unwritable(error)
            raise self._broken from error
        for number, event in enumerate(events, start=self._last + 1):
            event.sequence, event.atoms = number, None
            event.displaced = []  # or each would keep all that came before it
        self._last += len(events)
        if flush:
            self._next_flush = time.monotonic() + self._seconds_between_flushes

    def _insert(self, connection: sqlite3.Connection, events: Sequence[Event], lines: Sequence[str]) -> None:
        row = structure_rows.next_id(connection)
        rows = []
        for number, event in enumerate(events, start=self._last + 1):
            if event.atoms is None:
                continue
            event.row, row = row, row + 1
            keys = {"event": event.kind, "sequence": number, **event.keys}
            rows.append((event.row, structure_rows.Row(atoms=event.atoms, keys=keys, calculator=event.calculator)))
        structure_rows.insert(connection, rows)
        for event in events:
            for displaced in event.displaced:
                if displaced.row is not None:
                    structure_rows.take_best(connection, displaced.row)
        connection.executemany(
            f"INSERT INTO {_TABLE} VALUES (?, ?, ?, ?)",
            (
                (number, event.kind, event.row, line)
                for number, (event, line) in enumerate(zip(events, lines, strict=True), start=self._last + 1)
            ),
        )

    def mark_best(self, rows: Iterable[int | None]) -> None:
        """Mark the rows of the best relaxations in a database of an earlier version, which did not do it."""
        assert self._writer is not None
        with self.reading():
            if structure_rows.is_best_marked(self._writer):
                return
            with self._transaction() as connection:
                structure_rows.prepare_best(connection)
                for row in rows:
                    if row is not None:
                        structure_rows.put_best(connection, row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._writer is not None
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                connection.execute("ROLLBACK")
            raise

    def _check_place(self) -> None:
        """See to it that what is written is still where people look for it: SQLite does not notice a removed file."""
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            self._broken = ArchiveError(
                f"{self.directory} was removed, moved or replaced while it was written to; what was found is lost from "
                f"there on"
            )
            raise self._broken

    def read(self) -> Iterator[Event]:
        """Yield all events in order, without their structures."""
        with self.reading(), closing(self._read_only()) as connection:
            if _TABLE not in _tables(connection):
                return
            query = f"SELECT sequence, kind, row, data FROM {_TABLE} ORDER BY sequence"
            events = connection.execute(query)
            while rows := events.fetchmany(_TOGETHER):
                decoded = _decoded([data for _, _, _, data in rows])
                for (sequence, kind, row, _), data in zip(rows, decoded, strict=True):
                    yield Event(kind=kind, data=data, sequence=sequence, row=row)

    def atoms(self, row: int) -> Atoms:
        """Return the structure of one row, with its results in a ``SinglePointCalculator``."""
        with self.reading():
            return structure_rows.read(self._connection(), row)

    def check_structures(self, rows: set[int]) -> None:
        """See to it that there are structures in rows of these numbers; damage is found now and not in hours.

        Raises
        ------
        ArchiveError
            If one is missing, or the table that they are in is damaged.
        """
        with self.reading():
            if rows:
                # The table itself is gone through, not an index of it.
                found = self._connection().execute("SELECT id FROM systems NOT INDEXED")
                missing = rows.difference(id_ for (id_,) in found)
                if missing:
                    raise LookupError(f"{len(missing)} of {len(rows)} structures are missing")

    def close(self) -> None:
        """Leave everything in one file and give the lock back; a second call does nothing."""
        if self._writer is not None:
            # Where somebody has it open, or there is no room, a write-ahead log stays beside it, and nothing is lost.
            with suppress(sqlite3.Error):
                self._writer.execute("PRAGMA busy_timeout = 100")
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._writer.execute("PRAGMA journal_mode = DELETE")
            with suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None
        self._close_reader()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _is_kind(error: Exception, *codes: int) -> bool:
    """Whether an error of SQLite is of one of these kinds, whatever more it says of it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def _decoded(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return what lines of JSON hold: decoded at once, so that the names in them are held in memory once."""
    try:
        found = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        found = [json.loads(line) for line in lines]
    if len(found) != len(lines) or not all(isinstance(data, dict) for data in found):
        raise ValueError("an event is not what hybridcsp writes")
    return found  # type: ignore[no-any-return]
