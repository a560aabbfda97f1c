"""The database file of a run directory: opening, checking, reading and transactions.

``search.db`` is an ASE SQLite database that ``ase db`` and ``ase gui`` open, with one more table for events.

While it is written, SQLite keeps a write-ahead log next to the database (``search.db-wal``, ``search.db-shm``), because
with a rollback journal each transaction waits for several flushes of the disk, tens of milliseconds. A transaction that
was written is with the operating system and survives every end of the process, ``kill -9`` included. A power cut leaves
a sound database too, but one that may lack the last :data:`FLUSH_SECONDS`: a transaction is flushed only if the last
flush was longer ago. Events that come slowly, such as relaxations by DFT, are thus on the disk at once. Closing leaves
everything in one file.

A run directory may come from another person: nothing that its files name is imported or run, no symbolic link is
followed, and every kind of damage is an :class:`~hybridcsp.errors.ArchiveError` that names the file.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote as percent_encoded

from hybridcsp.archive import structure_rows
from hybridcsp.archive.database_errors import damaged, is_kind, missing, not_read, not_written
from hybridcsp.archive.directory_lock import DirectoryLock
from hybridcsp.errors import ArchiveError
from hybridcsp.utils.interrupts import uninterrupted

DATABASE = "search.db"

#: Name of the table of events.
EVENTS = "hybridcsp_events"

#: Seconds since the last flush of the disk within which a power cut may lose events; the end of the process never does.
FLUSH_SECONDS = 5.0

#: Longest time in s for which transactions of a group are not kept, unless a single one takes longer.
GROUP_SECONDS = 1.0

# Endings of the names of the files that SQLite keeps for a database.
_SUFFIXES = ("", "-wal", "-shm", "-journal")

_CACHE_KIB = 65536


class Database:
    """The database in one run directory.

    Parameters
    ----------
    directory
        Run directory.
    write
        Whether to create or change the database; this holds the lock of the directory until :meth:`close`. Readers need
        no lock.

    Raises
    ------
    ArchiveError
        If the directory cannot be written, if it holds no database (when reading), or if that is not one of hybridcsp.
    LockedError
        If another process writes to it.
    """

    def __init__(self, directory: Path, *, write: bool) -> None:
        self.directory = Path(os.path.abspath(directory))  # noqa: PTH100  # links are not followed
        self.path = self.directory / DATABASE
        self._lock: DirectoryLock | None = None
        self._writer: sqlite3.Connection | None = None  # held as long as the lock
        self._reader: sqlite3.Connection | None = None  # held within a block of reading()
        self._depth = 0
        self._identity: tuple[int, int] | None = None
        self._broken: ArchiveError | None = None
        self._groups = 0  # blocks of grouped() that are open
        self._group_end = 0.0
        self._flushes: bool | None = None  # whether the present transaction is flushed to the disk
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
                    self._check_tables(self.connection)
        except BaseException:
            self.close()
            raise

    @property
    def writable(self) -> bool:
        """Whether this object holds the lock of the directory."""
        return self._lock is not None

    @property
    def connection(self) -> sqlite3.Connection:
        """Connection for reading: that of the writer, or one that only reads."""
        if self._writer is not None:
            return self._writer
        if self._reader is None:
            self._reader = self.new_reader()
        return self._reader

    def new_reader(self) -> sqlite3.Connection:
        """Return a new connection that only reads; the caller closes it.

        Raises
        ------
        ArchiveError
            If SQLite would have to write to the directory in order to read, and may not.
        """
        try:
            connection = self._connect("ro", check_same_thread=False)
            _tables(connection)
        except sqlite3.OperationalError as error:
            if os.access(self.directory, os.W_OK):
                raise
            if not is_kind(error, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            # SQLite creates files even to read a database with a write-ahead log, unless nothing is in that log.
            log = self.path.with_name(f"{DATABASE}-wal")
            if log.exists() and log.stat().st_size > 0:
                raise ArchiveError(
                    f"{self.path} cannot be read in a directory without write permission, because its last events are "
                    f"still in {log.name}: copy both files to a directory of yours"
                ) from error
            connection = self._connect("ro", more="&immutable=1", check_same_thread=False)
        return connection

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise an error that says what to do in place of any error that a damaged database causes while it is read.

        A reader keeps its connection until the outermost block ends: many structures are read with one connection, and
        a writer that closes in the meantime is not blocked.

        Raises
        ------
        ArchiveError
            In place of any error of SQLite, of JSON, and of values that are missing or of the wrong type.
        """
        self._depth += 1
        try:
            yield
        except ArchiveError:
            raise
        except sqlite3.Error as error:
            raise not_read(self.path, error) from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise damaged(self.path, f"{type(error).__name__}: {error}") from error
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._close_reader()

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """Keep what the transactions of the block write together, at its end.

        Each of them is still written as a whole or not at all, and none without those before it, but a crash may lose
        those of the last :data:`GROUP_SECONDS`. Writing a hundred at once takes a fraction of the time.

        Raises
        ------
        ArchiveError
            As for :meth:`transaction`.
        """
        self._groups += 1
        try:
            yield
        finally:
            self._groups -= 1
            if not self._groups:
                self.commit()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write what the block executes in one transaction; after a crash either all of it is there or nothing.

        Raises
        ------
        ArchiveError
            If the database was opened for reading or is closed, or if it cannot be written, for lack of space for
            instance. After the latter nothing can be written until the directory is opened again: later events would
            build on those that are missing.
        """
        if self._writer is None:
            raise ArchiveError(f"{self.path} is closed, or was opened for reading only")
        if self._broken is not None:
            raise self._broken
        self._check_place()
        with self._writing():
            if not self._writer.in_transaction:
                self._begin(self._writer)
            try:
                with _all_or_nothing(self._writer):
                    yield self._writer
            finally:
                if not self._groups or time.monotonic() >= self._group_end:
                    self.commit()

    def commit(self) -> None:
        """Keep what transactions of a group have written so far.

        Raises
        ------
        ArchiveError
            If it cannot be written; nothing can be written then until the directory is opened again.
        """
        if self._writer is not None and self._writer.in_transaction:
            with self._writing(), uninterrupted():
                self._writer.execute("COMMIT")
            if self._flushes:
                self._next_flush = time.monotonic() + self._seconds_between_flushes

    def _begin(self, writer: sqlite3.Connection) -> None:
        now = time.monotonic()
        self._group_end, flushes = now + GROUP_SECONDS, now >= self._next_flush
        if flushes != self._flushes:
            self._flushes = flushes
            writer.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'NORMAL'}")
        writer.execute("BEGIN IMMEDIATE")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Let no error of SQLite pass without a note that nothing can be written any more."""
        try:
            yield
        except sqlite3.Error as error:
            self._broken = not_written(self.path, error)
            raise self._broken from error

    def close(self) -> None:
        """Leave everything in one file and release the lock; a second call does nothing."""
        if self._writer is not None:
            with suppress(ArchiveError):
                self.commit()
            # If another process has it open, or there is no space, the write-ahead log stays; nothing is lost.
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

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # Opening

    def _check_files(self, write: bool) -> None:
        for suffix in _SUFFIXES:
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
                raise ArchiveError(f"{file} is not a regular file: choose another directory")
        if not write and not self.path.exists():
            raise ArchiveError(missing(self.path))

    def _open(self) -> None:
        # One thread at a time writes, but not always the one that opened the database.
        self._writer = connection = self._connect("rwc", check_same_thread=False)
        connection.isolation_level = None  # transactions begin in _begin and end in commit
        self._check_tables(connection)
        with suppress(sqlite3.OperationalError):  # if another process is reading, the slower journal stays
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")  # what undoes a transaction of a group, otherwise a file
        connection.execute("BEGIN IMMEDIATE")
        # All tables or none: a kill leaves an empty database, which can be opened again.
        with _all_or_nothing(connection):
            tables = _tables(connection)
            if "systems" not in tables:
                structure_rows.create_tables(connection)
                structure_rows.prepare_best(connection)
            if EVENTS not in tables:
                connection.execute(
                    f"CREATE TABLE {EVENTS} "
                    "(sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, row INTEGER, data TEXT NOT NULL)"
                )
        connection.execute("COMMIT")
        found = self.path.stat()
        self._identity = found.st_dev, found.st_ino
        # Only with a write-ahead log is a database sound after a power cut if it was not flushed every time.
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        self._seconds_between_flushes = FLUSH_SECONDS if mode == "wal" else 0.0

    def _connect(self, mode: str, *, more: str = "", check_same_thread: bool = True) -> sqlite3.Connection:
        # As a percent-encoded URI, in which no character of a directory's name has a meaning of its own.
        name = percent_encoded(os.fsencode(self.path))
        uri = f"file:{name}?mode={mode}{more}"
        return sqlite3.connect(uri, uri=True, timeout=20, check_same_thread=check_same_thread)

    def _check_tables(self, connection: sqlite3.Connection) -> None:
        tables = _tables(connection)
        # A file without tables is left behind by a kill during the very first write.
        if tables and EVENTS not in tables:
            raise ArchiveError(f"{self.path} is not a database of hybridcsp: choose another directory")
        if tables:
            (version,) = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
            if int(version) > structure_rows.VERSION:
                raise ArchiveError(
                    f"{self.path} has ASE's tables of version {version}, and this version of hybridcsp reads versions "
                    f"up to {structure_rows.VERSION}: use the version that wrote it"
                )

    def _check_place(self) -> None:
        """Check that the database is still in its directory: SQLite does not notice that a file was removed."""
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            self._broken = ArchiveError(
                f"{self.directory} was removed, moved or replaced while it was written to: events from then on are lost"
            )
            raise self._broken


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    """Undo what the block has written in the open transaction, if it raises."""
    connection.execute("SAVEPOINT one")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back everything by itself
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        raise
    connection.execute("RELEASE one")


def has_events(connection: sqlite3.Connection) -> bool:
    """Return whether the table of events has been created."""
    return EVENTS in _tables(connection)


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
