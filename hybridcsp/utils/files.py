"""Safe writing of files: a file appears only when it is complete, and never through a symbolic link of another user."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Literal

from hybridcsp.errors import InputError

#: Errors of writing that mean that the disk is full, or that the reader of a pipe has gone.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EIO)

#: Flags that create a new file and follow no symbolic link.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

_MAX_LINKS = 40  # the limit of Linux


@contextmanager
def atomic_write(
    path: Path, mode: Literal["w", "wb"] = "w", *, key: str = "file", follow: bool = False
) -> Iterator[IO[Any]]:
    r"""Open a file for writing that gets its name when it is complete; after an error it does not appear at all.

    Text is written as UTF-8 with ``\n`` as line ending. A file that is replaced keeps its permissions. Output to the
    standard output (``-``, ``/dev/stdout``), a FIFO or a character device (``/dev/null``) is written directly; these
    are never replaced.

    Parameters
    ----------
    path
        The file. Its folder must exist: :func:`make_folder`.
    mode
        ``"w"`` for text, ``"wb"`` for bytes.
    key
        Name of the file in the error message: the option with which the user gave it.
    follow
        Whether to follow a symbolic link at ``path``; for names that the user has typed. Only links that belong to the
        user or to root, in a folder that is not writable for everybody, are followed; every other link is refused,
        because another user may have created it to have a file overwritten.

    Yields
    ------
    IO
        The open file.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with _errors_converted(key, path):
        target, kind = _destination(path, key, follow)
        direct = None if kind is None or stat.S_ISREG(kind) else _direct_stream(target, mode)
    if direct is not None:
        with _write_errors_converted(key, path), direct as stream:
            yield stream
            stream.flush()
        return
    temporary = target.with_name(_temporary_name())
    try:
        with _errors_converted(key, path):
            # The kernel applies the umask; a replaced file gets its permissions back when it is complete.
            stream = _open(os.open(temporary, _NEW, 0o666 if kind is None else 0o600), mode)
        try:
            with _write_errors_converted(key, path):
                yield stream
            with _errors_converted(key, path):
                stream.flush()
                if kind is not None:
                    os.fchmod(stream.fileno(), stat.S_IMODE(kind))
                os.fsync(stream.fileno())
        finally:
            with suppress(OSError):  # after an error, the rest of the buffer cannot be written either
                stream.close()
        with _errors_converted(key, path):
            temporary.replace(target)
        _sync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, key: str = "folder") -> Iterator[Path]:
    """Create a temporary folder for several files, which are moved to their place when all are complete.

    Parameters
    ----------
    path
        Final folder: a new one, or one that contains no file of the same name.
    key
        Name of the folder in the error message.

    Yields
    ------
    Path
        The temporary folder.

    Raises
    ------
    InputError
        If the files cannot be written.
    """
    with _errors_converted(key, path):
        target = followed(path, key, follow=True)
        if target.exists() and not target.is_dir():
            raise InputError(key, path, "a folder, not a file")
    make_folder(target.parent, key=key)
    temporary = target.parent / _temporary_name()
    try:
        with _errors_converted(key, path):
            temporary.mkdir()
        with _write_errors_converted(key, path):
            yield temporary
        with _errors_converted(key, path):
            for file in temporary.iterdir():
                _sync(file)
            if target.exists():
                _move(sorted(temporary.iterdir()), target, key)
            else:
                temporary.replace(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path, *, key: str = "folder") -> None:
    """Create a folder and its parents unless they exist.

    Raises
    ------
    InputError
        If the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(key, path, "a folder; a file is in its place") from error
    except OSError as error:
        raise InputError(key, path, reason=f"the folder cannot be made ({_reason(error)})") from error


def open_log(path: Path, *, key: str = "log") -> IO[bytes]:
    """Open a log file to append output to it; create it if necessary.

    Parameters
    ----------
    path
        The file. Its folder must exist: :func:`folder_within`.
    key
        Name of the file in the error message.

    Raises
    ------
    InputError
        If the path is not a regular file (a symbolic link, for instance), or cannot be written.
    """
    flags = (
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    )  # does not wait for a reader of a FIFO
    with _errors_converted(key, path):
        if path.is_symlink():
            raise InputError(key, path, "a file, not a symbolic link; remove the link")
        descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(key, path, "a regular file")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "ab")


def end_of_log(path: Path, most: int = 4096, start: int = 0) -> str:
    """Return the end of a log file of any length.

    Parameters
    ----------
    path
        The file.
    most
        Largest number of bytes to read.
    start
        Number of bytes at the beginning of the file to skip.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - most))
        return file.read(most).decode(errors="replace").strip()


def folder_within(folder: Path, *names: str) -> Path:
    """Create nested folders without following symbolic links, and return the innermost.

    Parameters
    ----------
    folder
        Folder that the user named, such as a run directory; symbolic links to it are followed.
    names
        Names of the nested folders, the outermost first.

    Raises
    ------
    InputError
        If one of them is a symbolic link or a file, or cannot be created.
    """
    for name in names:
        folder = folder / name
        if folder.is_symlink():
            raise InputError("folder", folder, "a folder, not a symbolic link; remove the link")
        make_folder(folder)
    return folder


def check_writable(path: Path, *, key: str = "file", follow: bool = False) -> None:
    """Check before a long computation that its result can be written; arguments as in :func:`atomic_write`.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with _errors_converted(key, path):
        target, kind = _destination(path, key, follow)
        if kind is None or stat.S_ISREG(kind):
            trial = target.with_name(_temporary_name())
            os.close(os.open(trial, _NEW, 0o600))
            trial.unlink()


def check_folder(path: Path, *, key: str = "folder") -> None:
    """Check before a long computation that files can be written to a folder, which need not exist and is not made.

    Raises
    ------
    InputError
        If the folder cannot be made, or files cannot be written there.
    """
    with _errors_converted(key, path):
        there = Path(os.path.abspath(path))  # noqa: PTH100  # links are not followed
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            raise InputError(key, path, "a folder; a file is in its place")
        trial = there / _temporary_name()
        os.close(os.open(trial, _NEW, 0o600))
        trial.unlink()


def check_output(path: Path, *, key: str = "file") -> None:
    """Check before a long computation that a file can be written, for which folders are made only later.

    Raises
    ------
    InputError
        If the file cannot be written, or its folder cannot be made.
    """
    if is_stream(path) or path.parent.is_dir():
        check_writable(path, key=key, follow=True)
    else:
        check_folder(path.parent, key=key)


def is_stream(path: Path) -> bool:
    """Return whether a path is the standard output or another open descriptor, which must stay free of messages."""
    return _descriptor(path) is not None


def _temporary_name() -> str:
    return f".hybridcsp-{secrets.token_hex(8)}.tmp"


def _descriptor(path: Path) -> int | None:
    named = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
    if (known := named.get(str(path))) is not None:
        return known
    found = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,6})", str(path))
    return int(found[1]) if found else None


def _direct_stream(target: Path, mode: str) -> AbstractContextManager[IO[Any]]:
    descriptor = _descriptor(target)
    if descriptor in (1, 2):
        stream = sys.stdout if descriptor == 1 else sys.stderr
        return nullcontext(stream.buffer if "b" in mode else stream)
    if descriptor is not None:  # duplicated, because opening its name may truncate the file behind it
        return _open(os.dup(descriptor), mode)
    return _open(os.open(target, os.O_WRONLY), mode)


def _open(descriptor: int, mode: str) -> IO[Any]:
    if "b" in mode:
        return os.fdopen(descriptor, "wb")
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _destination(path: Path, key: str, follow: bool) -> tuple[Path, int | None]:
    """Return the file to which a path leads, and its mode; ``None`` as mode if it does not exist yet.

    Raises
    ------
    InputError
        If the path cannot be written.
    """
    if is_stream(path):
        return path, stat.S_IFIFO
    target = followed(path, key, follow=follow)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise InputError(key, path, f"a file in an existing folder; {target.parent} does not exist") from None
        return target, None
    if stat.S_ISDIR(mode):
        raise InputError(key, path, "a file, not a folder")
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise InputError(key, path, f"a file, not a {'socket' if stat.S_ISSOCK(mode) else 'disk'}")
    if stat.S_ISFIFO(mode) and not follow:  # the user did not name it, and opening it may block
        raise InputError(key, path, "a file, not a named pipe; remove it")
    if not os.access(target, os.W_OK):
        raise InputError(key, path, "a writable file; this one is read-only")
    return target, mode


def followed(path: Path, key: str, *, follow: bool) -> Path:
    """Return the path to which symbolic links at a path lead.

    Parameters
    ----------
    path
        A file or folder, which need not exist.
    key
        Name of the path in the error message.
    follow
        As in :func:`atomic_write`.

    Raises
    ------
    InputError
        If a link must not be followed.
    """
    target = path
    for _ in range(_MAX_LINKS):
        try:
            found = target.lstat()
        except FileNotFoundError:
            return target
        if not stat.S_ISLNK(found.st_mode):
            return target
        if not follow:
            raise InputError(key, path, "a file, not a symbolic link; remove the link")
        if found.st_uid not in (0, os.geteuid()) or target.parent.stat().st_mode & stat.S_IWOTH:
            raise InputError(
                key, path, f"a file, not a symbolic link that another user may have created; remove {target}"
            )
        target = target.parent / target.readlink()
    raise InputError(key, path, "a file, not a cycle of symbolic links")


def _move(files: list[Path], folder: Path, key: str) -> None:
    for file in files:
        if os.path.lexists(folder / file.name):
            raise InputError(key, folder, f"a folder that is new or empty; {file.name} exists already")
    for file in files:
        file.replace(folder / file.name)


@contextmanager
def _errors_converted(key: str, path: Path) -> Iterator[None]:
    """Convert operating system errors into input errors."""
    try:
        yield
    except OSError as error:
        raise InputError(key, path, reason=f"it cannot be written ({_reason(error)})") from error


@contextmanager
def _write_errors_converted(key: str, path: Path) -> Iterator[None]:
    """Convert only errors of writing; the block may raise other errors, about files that it reads."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise InputError(key, path, reason=f"it cannot be written ({_reason(error)})") from error
        raise


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _sync(path: Path) -> None:
    # Survive a power failure; some file systems do not support this for folders.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
