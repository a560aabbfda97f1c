"""Errors for what SQLite reports about the database of a run directory."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from shlex import quote

from hybridcsp.errors import ArchiveError


def missing(path: Path) -> str:
    """Return why there is no database at a path."""
    directory, name = path.parent, path.name
    if not directory.exists():
        return f"{directory} does not exist, so there is no {name} in it"
    if not directory.is_dir():
        return f"{directory} is a file, not a run directory, so there is no {name} in it"
    configuration = directory / "config.toml"
    hint = f"; start it with hybridcsp search {quote(str(configuration))}" if configuration.exists() else ""
    return f"{directory} holds no search: there is no {name} in it{hint}"


def not_read(path: Path, error: sqlite3.Error) -> ArchiveError:
    """Return the error to raise where a database cannot be read."""
    if not path.exists():
        return ArchiveError(missing(path))
    if is_kind(error, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return _unwritable(path, error)
    if is_kind(error, sqlite3.SQLITE_NOTADB):
        return ArchiveError(
            f"{path} is not a database of a search, or its beginning is damaged ({error}): choose another "
            f"directory, or use a copy of the file"
        )
    if is_kind(error, sqlite3.SQLITE_CORRUPT):
        return damaged(path, str(error))
    return ArchiveError(f"cannot use {path}: {error}")


def not_written(path: Path, error: sqlite3.Error) -> ArchiveError:
    """Return the error to raise where a database cannot be written."""
    is_damage = is_kind(error, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return not_read(path, error) if is_damage else _unwritable(path, error)


def damaged(path: Path, why: str) -> ArchiveError:
    """Return the error to raise where a database holds something that cannot be understood."""
    why = why if len(why) < 300 else f"{why[:300]} …"
    return ArchiveError(
        f"{path} is damaged or from another version ({why}): use a copy of it, or start again in another "
        f"directory; this prints what can still be read: sqlite3 {quote(str(path))} .recover"
    )


def is_kind(error: Exception, *codes: int) -> bool:
    """Return whether an error of SQLite has one of these primary result codes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def _unwritable(path: Path, error: Exception) -> ArchiveError:
    full = is_kind(error, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    why = f"no space is left on the disk, or a limit on files is reached ({error})" if full else str(error)
    return ArchiveError(
        f"cannot write to {path}: {why}. Everything recorded before is kept; when there is space, continue "
        f"with hybridcsp resume {quote(str(path.parent))}"
    )
