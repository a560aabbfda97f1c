"""The lock of a run directory: one process writes to it at a time."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from hybridcsp.errors import ArchiveError, LockedError

LOCK = "search.lock"

#: What the text of every lock begins with; it names who holds it.
_HOLDER = b"process "


class DirectoryLock:
    """Holds ``search.lock`` of a directory, which is created where it is missing, until it is released.

    The lock belongs to the open file and goes with the process, however that ends; the text in the file only names the
    holder. A symbolic link is not followed, and a file that is not a lock is not overwritten.

    Parameters
    ----------
    directory
        The run directory.

    Raises
    ------
    ArchiveError
        If nothing can be written there, or ``search.lock`` is something else.
    LockedError
        If somebody else holds the lock.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK
        try:
            directory.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            if path.is_symlink():
                raise ArchiveError(f"{path} is a symbolic link, which is not followed: remove it")
            descriptor = os.open(path, flags, 0o644)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ArchiveError(f"cannot write to the run directory {directory} ({LOCK}): {why}") from error
        self._descriptor: int | None = descriptor
        try:
            _take(descriptor, path)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the directory to others; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _take(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ArchiveError(f"{path} is not a file: remove it")
    text = os.pread(descriptor, 200, 0)
    if text and not text.startswith(_HOLDER):
        raise ArchiveError(f"{path} is not a lock of hybridcsp: move it away, or choose another directory")
    if not _locked(descriptor, path):
        holder = text.decode(errors="replace").strip() or "another process"
        raise LockedError(f"{path.parent} is in use by {holder}")
    with suppress(OSError):  # on a full disk the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%s%d on %s\n" % (_HOLDER, os.getpid(), socket.gethostname().encode()), 0)


def _locked(descriptor: int, path: Path) -> bool:
    """Lock an open file, if nobody else has."""
    import fcntl  # not on Windows, where the rest of this package can be imported

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks
        raise ArchiveError(f"{path} cannot be locked ({error.strerror}): choose a directory on another disk") from error
    return True
