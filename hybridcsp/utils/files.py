"""Write files so that they are complete or not there at all, and never in somebody else's place."""

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

#: Errors while writing that mean that there is no room for it, or nobody left to read it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EIO)

#: A new file, in nobody's place and through nobody's symbolic link.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

_MOST_LINKS = 40  # as Linux follows


@contextmanager
def atomic_write(
    path: Path, mode: Literal["w", "wb"] = "w", *, key: str = "file", follow: bool = False
) -> Iterator[IO[Any]]:
    r"""Open a file for writing that gets its name when it is complete, and does not appear at all after an error.

    Text is written as UTF-8 with ``\n`` at the end of lines. A file that is replaced keeps its permissions. Into the
    standard output (``-``, ``/dev/stdout``), a FIFO or a character device (``/dev/null``) the text goes directly; these
    are never replaced.

    Parameters
    ----------
    path
        The file. Its folder has to be there: :func:`make_folder`.
    mode
        ``"w"`` for text, ``"wb"`` for bytes.
    key
        What an error calls the file: the option that a person gave it with.
    follow
        Whether a symbolic link at ``path`` may lead to the file: for names that a person has typed. Only links that
        belong to the user (or to root), in a folder that not everybody may write to, are followed; every other link
        is refused, because it may have been put there to have another file overwritten.

    Yields
    ------
    IO
        The open file.

    Raises
    ------
    InputError
        If the file cannot be written there.
    """
    with _in_words(key, path):
        target, kind = _destination(path, key, follow)
        direct = None if kind is None or stat.S_ISREG(kind) else _direct_stream(target, mode)
    if direct is not None:
        with _no_room_in_words(key, path), direct as stream:
            yield stream
            stream.flush()
        return
    temporary = target.with_name(_temporary_name())
    try:
        with _in_words(key, path):
            # The kernel applies the umask; a file that is replaced gets its own mode back once it is complete.
            stream = _open(os.open(temporary, _NEW, 0o666 if kind is None else 0o600), mode)
        try:
            with _no_room_in_words(key, path):
                yield stream
            with _in_words(key, path):
                stream.flush()
                if kind is not None:
                    os.fchmod(stream.fileno(), stat.S_IMODE(kind))
                os.fsync(stream.fileno())
        finally:
            with suppress(OSError):  # after an error, what is left in its buffer does not fit either
                stream.close()
        with _in_words(key, path):
            temporary.replace(target)
        _sync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, key: str = "folder") -> Iterator[Path]:
    """Give a folder for several files, which get their place when all of them are complete.

    Parameters
    ----------
    path
        Where the files belong: a new folder, or one that holds nothing of any of their names.
    key
        What an error calls the folder.

    Yields
    ------
    Path
        The folder to write them to.

    Raises
    ------
    InputError
        If they cannot be written there.
    """
    with _in_words(key, path):
        target = _followed(path, key, follow=True)
        if target.exists() and not target.is_dir():
            raise InputError(key, str(path), "a folder; this is a file")
    make_folder(target.parent, key=key)
    temporary = target.parent / _temporary_name()
    try:
        with _in_words(key, path):
            temporary.mkdir()
        with _no_room_in_words(key, path):
            yield temporary
        with _in_words(key, path):
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
    """Make a folder, and those it lies in, where they are missing.

    Raises
    ------
    InputError
        If that cannot be done.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(key, str(path), "a folder; there is a file in its place") from error
    except OSError as error:
        raise InputError(key, str(path), f"a folder that can be made ({_reason(error)})") from error


def open_log(path: Path, *, key: str = "log") -> IO[bytes]:
    """Open a file that a program writes its output to, at its end; it is made where it is missing.

    Parameters
    ----------
    path
        The file. Its folder has to be there: :func:`folder_within`.
    key
        What an error calls the file.

    Raises
    ------
    InputError
        If something else than a file is in its place, a symbolic link for instance, or it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO without reader: no wait
    with _in_words(key, path):
        if path.is_symlink():
            raise InputError(key, str(path), "a file, not a symbolic link; remove the link")
        descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(key, str(path), "a file that output can be added to; there is something else in its place")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "ab")


def end_of_log(path: Path, most: int = 4096, start: int = 0) -> str:
    """Return the end of a file that a program has written its output to, which may be of any length.

    Parameters
    ----------
    path
        The file.
    most
        Bytes that are read at most.
    start
        Bytes at the beginning of the file that are left out.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - most))
        return file.read(most).decode(errors="replace").strip()


def folder_within(folder: Path, *names: str) -> Path:
    """Make a folder below another one, through nobody's symbolic link, and return it.

    Parameters
    ----------
    folder
        One that a person named, such as a run directory; links that lead to it are followed.
    names
        Of the folders below it, from the outermost.

    Raises
    ------
    InputError
        If one of these is a symbolic link or a file, or cannot be made.
    """
    for name in names:
        folder = folder / name
        if folder.is_symlink():
            raise InputError("folder", str(folder), "a folder, not a symbolic link; remove the link")
        make_folder(folder)
    return folder


def check_writable(path: Path, *, key: str = "file", follow: bool = False) -> None:
    """Find out before a long computation whether its result can be written; arguments as of :func:`atomic_write`.

    Raises
    ------
    InputError
        If it cannot.
    """
    with _in_words(key, path):
        target, kind = _destination(path, key, follow)
        if kind is None or stat.S_ISREG(kind):
            trial = target.with_name(_temporary_name())
            os.close(os.open(trial, _NEW, 0o600))
            trial.unlink()


def is_stream(path: Path) -> bool:
    """Whether a path names the standard output or an open descriptor, so that messages have to go elsewhere."""
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
    if descriptor is not None:  # a copy of it: to open its name would truncate the file that it may lead to
        return _open(os.dup(descriptor), mode)
    return _open(os.open(target, os.O_WRONLY), mode)


def _open(descriptor: int, mode: str) -> IO[Any]:
    if "b" in mode:
        return os.fdopen(descriptor, "wb")
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _destination(path: Path, key: str, follow: bool) -> tuple[Path, int | None]:
    """Return the file that a path leads to, with its mode, ``None`` if there is none yet.

    Raises
    ------
    InputError
        If it is something that cannot be written to.
    """
    if is_stream(path):
        return path, stat.S_IFIFO
    target = _followed(path, key, follow)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise InputError(key, str(path), f"in a folder that is there: {target.parent} is not") from None
        return target, None
    if stat.S_ISDIR(mode):
        raise InputError(key, str(path), "a file, not a folder")
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise InputError(key, str(path), f"a file, not a {'socket' if stat.S_ISSOCK(mode) else 'disk'}")
    if stat.S_ISFIFO(mode) and not follow:  # nobody has asked for it, and to open it may wait for ever
        raise InputError(key, str(path), "a file, not a named pipe; remove it")
    if not os.access(target, os.W_OK):
        raise InputError(key, str(path), "a file that may be changed; this one is read-only")
    return target, mode


def _followed(path: Path, key: str, follow: bool) -> Path:
    target = path
    for _ in range(_MOST_LINKS):
        try:
            found = target.lstat()
        except FileNotFoundError:
            return target
        if not stat.S_ISLNK(found.st_mode):
            return target
        if not follow:
            raise InputError(key, str(path), "a file, not a symbolic link; remove the link")
        if found.st_uid not in (0, os.geteuid()) or target.parent.stat().st_mode & stat.S_IWOTH:
            raise InputError(
                key, str(path), f"a file, not a symbolic link that somebody else may have made; remove {target}"
            )
        target = target.parent / target.readlink()
    raise InputError(key, str(path), "a file, not symbolic links that lead nowhere")


def _move(files: list[Path], folder: Path, key: str) -> None:
    for file in files:
        if os.path.lexists(folder / file.name):
            raise InputError(key, str(folder), f"a folder that is new or empty: {file.name} is there already")
    for file in files:
        file.replace(folder / file.name)


@contextmanager
def _in_words(key: str, path: Path) -> Iterator[None]:
    """Turn what the operating system says about our own handling of the file into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(key, str(path), f"a place that can be written ({_reason(error)})") from error


@contextmanager
def _no_room_in_words(key: str, path: Path) -> Iterator[None]:
    """Do so for errors of writing only: what is written may come from files that have errors of their own."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise InputError(key, str(path), f"a place that can be written ({_reason(error)})") from error
        raise


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _sync(path: Path) -> None:
    # So that it survives a power failure; not every file system can do it for a folder.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
