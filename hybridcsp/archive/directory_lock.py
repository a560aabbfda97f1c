"""The lock of a run directory, which lets one process at a time write to it."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from hybridcsp.errors import ArchiveError, LockedError

LOCK = "search.lock"

#: Beginning of the text of every lock file, which names the process that holds the lock.
_HOLDER = b"process "


class DirectoryLock:
    """The lock ``search.lock`` of a directory, which is held until it is released; a missing directory is created.

    The lock belongs to the open file and ends with the process, however that ends; the text in the file only names the
    holder. A symbolic link is not followed, and a file that is not a lock is not overwritten.

    Parameters
    ----------
    directory
        Run directory.

    Raises
    ------
    ArchiveError
        If the directory cannot be written, or ``search.lock`` is not a lock file of hybridcsp.
    LockedError
        If another process holds the lock.
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
        """Release the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _take(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ArchiveError(f"{path} is not a regular file: remove it")
    text = os.pread(descriptor, 200, 0)
    if text and not text.startswith(_HOLDER):
        raise ArchiveError(f"{path} is not a lock file of hybridcsp: move it away, or choose another directory")
    if not _locked(descriptor, path):
        holder = text.decode(errors="replace").strip() or "another process"
        raise LockedError(f"{path.parent} is in use by {holder}: wait until it ends, or choose another directory")
    with suppress(OSError):  # the lock holds on a full disk too
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%s%d on %s\n" % (_HOLDER, os.getpid(), socket.gethostname().encode()), 0)


def _locked(descriptor: int, path: Path) -> bool:
    """Lock an open file, and return whether no other process holds its lock."""
    import fcntl  # missing on Windows, where the rest of this package can be imported

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems do not support locks
        raise ArchiveError(f"{path} cannot be locked ({error.strerror}): choose a directory on another disk") from error
    return True
