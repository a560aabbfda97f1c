"""Reading of ASE's SQLite databases row by row, without trusting or changing them.

ASE itself writes its tables into a file that has none, and builds the constraints and calculators that a row names.
Here only numbers and texts of the table ``systems`` are read, through a read-only connection.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from hybridcsp.errors import UnreadableError
from hybridcsp.io.construction import from_arrays
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.utils.reading import open_regular, parse_json, plain_copy

_MAGIC = b"SQLite format 3\0"

#: Maximum size of a text or array in bytes; the positions of 10,000 atoms take 240,000 bytes.
_MAX_VALUE_SIZE = 1 << 22

#: Maximum time of a query in seconds; reading a row takes much less.
_MAX_QUERY_TIME = 2.0

#: Versions of ASE's tables that have the columns below.
_VERSIONS = range(5, 10)

_COLUMNS = {
    "numbers": np.int32,
    "positions": np.float64,
    "cell": np.float64,
    "initial_magmoms": np.float64,
    "initial_charges": np.float64,
}
_ROW = f"SELECT {', '.join(_COLUMNS)}, pbc, energy, calculator, key_value_pairs FROM systems WHERE rowid = ?"
_PAGE = "SELECT rowid FROM systems WHERE rowid > ? ORDER BY rowid LIMIT 500"

# Behind damage, this number of row ids is tried one by one; then the steps double, up to a total number of steps.
_SINGLE_STEPS = 100
_MAX_STEPS = 150

#: Maximum size in bytes of a database with a write-ahead log, which is copied before it is read.
_MAX_COPY_SIZE = 2 << 30


def read_database(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of an ASE database; a damaged row does not affect the others.

    Raises
    ------
    UnreadableError
        If the file is not an ASE database, or cannot be opened.
    """
    with plain_copy(file) as plain, connection(plain) as database:
        try:
            _check(database, file)
        except sqlite3.Error as error:
            raise UnreadableError(file, f"the database is damaged ({error})") from error
        for number, row in enumerate(_rows(database, file)):
            yield row if isinstance(row, ReadFailure) else _frame(database, file, number, row)


@contextmanager
def connection(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a database without writing to it or to its folder; texts are returned as bytes.

    SQLite keeps a write-ahead log (``-wal``) next to some databases, and creates one when it reads them. A database
    without a log is therefore opened as immutable, and one with a log is copied together with it.

    Raises
    ------
    UnreadableError
        If the file is not an SQLite database, or cannot be opened.
    """
    with open_regular(file) as stream:
        head = stream.read(100)
    if not head.startswith(_MAGIC) or len(head) < 100:
        raise UnreadableError(file, "it is not an SQLite database" if head else "it is an empty file, not a database")
    has_log = head[18] == 2 or head[19] == 2
    log = file.with_name(f"{file.name}-wal")
    try:
        if has_log and log.exists() and log.stat().st_size:
            with _copied(file, log) as copy, closing(_open(copy, "mode=ro")) as opened:
                yield opened
        else:
            with closing(_open(file, "mode=ro&immutable=1" if has_log else "mode=ro")) as opened:
                yield opened
    except (OSError, sqlite3.OperationalError) as error:
        raise UnreadableError(file, f"the database cannot be read ({error})") from error


def _open(file: Path, options: str) -> sqlite3.Connection:
    name = quote(os.fsencode(file.absolute()))
    opened = sqlite3.connect(f"file:{name}?{options}", uri=True, timeout=5, check_same_thread=False)
    opened.text_factory = bytes
    opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_SIZE)
    opened.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    # Functions that a schema calls must not have side effects, and queries must not write.
    for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
        opened.execute(f"PRAGMA {pragma}")
    return opened


@contextmanager
def _copied(file: Path, log: Path) -> Iterator[Path]:
    size = file.stat().st_size + log.stat().st_size
    if size > _MAX_COPY_SIZE:
        raise UnreadableError(
            file, f"another program has it open, or has left {log.name} next to it; close that program first"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        for _ in range(3):
            before = file.stat().st_mtime_ns, log.stat().st_mtime_ns, log.stat().st_size
            for source, target in ((file, copy), (log, copy.with_name("copy.db-wal"))):
                with open_regular(source) as stream, target.open("wb") as written:
                    shutil.copyfileobj(stream, written)
            if before == (file.stat().st_mtime_ns, log.stat().st_mtime_ns, log.stat().st_size):
                yield copy
                return
        raise UnreadableError(file, "another program is writing to it; read it when that program has finished")


def _check(database: sqlite3.Connection, file: Path) -> None:
    found = _fetch(database, "SELECT type, sql FROM sqlite_master WHERE name = 'systems'")
    kind, definition = found[0] if found else (b"", b"")
    if kind != b"table" or not bytes(definition or b"").upper().startswith(b"CREATE TABLE"):
        raise UnreadableError(file, "it is an SQLite database of another program: it has no table 'systems' of ASE")
    columns = {
        name.decode(errors="replace")
        for _, name, *_, hidden in _fetch(database, "PRAGMA table_xinfo(systems)")
        if hidden == 0
    }
    missing = {*_COLUMNS, "pbc", "energy", "calculator", "key_value_pairs"} - columns
    if missing:
        raise UnreadableError(
            file, f"it does not have ASE's tables: 'systems' has no column {', '.join(sorted(missing))}"
        )
    try:
        version = _fetch(database, "SELECT value FROM information WHERE name = 'version'")
        number = int(version[0][0])
    except (sqlite3.OperationalError, IndexError, TypeError, ValueError):
        number = 2
    if number not in _VERSIONS:
        raise UnreadableError(
            file,
            f"it has version {number} of ASE's tables; versions {_VERSIONS[0]} to {_VERSIONS[-1]} are read. Convert it "
            f"with python -m ase.db.convert",
        )


def _rows(database: sqlite3.Connection, file: Path) -> Iterator[int | ReadFailure]:
    """Yield the row ids, and one failure for each damaged range of them."""
    last, steps = -(1 << 62), 0
    while True:
        try:
            page = [row for (row,) in _fetch(database, _PAGE, last)]
            if not all(before < row for before, row in pairwise([last, *page])):  # a damaged tree may lead in a circle
                raise sqlite3.DatabaseError("its rows are not in order")
        except sqlite3.Error as error:
            if steps == 0:
                where = f"after row {last}" if last > 0 else "from its beginning"
                yield ReadFailure(file=file, line=max(last, 0) + 1, reason=f"the database is damaged {where} ({error})")
            steps += 1
            if steps > _MAX_STEPS:
                return
            last = max(last, 0) + 2 ** max(0, steps - _SINGLE_STEPS)
            continue
        if not page:
            return
        steps = 0
        yield from page
        last = page[-1]


def _frame(database: sqlite3.Connection, file: Path, number: int, row: int) -> Frame | ReadFailure:
    try:
        ((*blobs, pbc, energy, calculator, pairs),) = _fetch(database, _ROW, row)
        arrays = {name: _array(name, value) for name, value in zip(_COLUMNS, blobs, strict=True)}
        if not isinstance(pbc, int):
            raise StructureError(0, "it does not state its periodicity")
        positions, moments = arrays["positions"], arrays["initial_magmoms"]
        n = 0 if arrays["numbers"] is None else len(arrays["numbers"])
        atoms = from_arrays(
            numbers=arrays["numbers"],
            positions=None if positions is None or positions.size % 3 else positions.reshape(-1, 3),
            cell=None if arrays["cell"] is None or arrays["cell"].size != 9 else arrays["cell"].reshape(3, 3),
            pbc=[bool(pbc & 1), bool(pbc & 2), bool(pbc & 4)],
            moments=moments.reshape(-1, 3) if moments is not None and 0 < moments.size == 3 * n else moments,
            charges=arrays["initial_charges"],
            energy=energy,
            calculator=calculator.decode(errors="replace") if isinstance(calculator, bytes) else None,
            info=parse_json(pairs, file) if isinstance(pairs, bytes) else None,
        )
    except (StructureError, UnreadableError) as error:
        return ReadFailure(file=file, line=row, reason=f"row {row}: {error.reason}")
    except (sqlite3.Error, ValueError) as error:
        return ReadFailure(file=file, line=row, reason=f"row {row}: it is damaged ({error})")
    return Frame(atoms=atoms, file=file, number=number, line=row, name=f"{file.stem}-{row}")


def _array(name: str, value: object) -> np.ndarray | None:
    if value is None:
        return None
    kind = np.dtype(_COLUMNS[name]).newbyteorder("<")
    if not isinstance(value, bytes) or len(value) % kind.itemsize:
        raise StructureError(0, f"the {name} are damaged")
    return np.frombuffer(value, kind)


def _fetch(database: sqlite3.Connection, query: str, *values: int) -> list[tuple[Any, ...]]:
    """Return the rows of a query.

    Raises
    ------
    sqlite3.OperationalError
        If it takes longer than :data:`_MAX_QUERY_TIME`.
    """
    end = time.monotonic() + _MAX_QUERY_TIME
    database.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    return database.execute(query, values).fetchall()
