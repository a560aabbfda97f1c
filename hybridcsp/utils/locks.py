"""Locks that let one process at a time write to a folder."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from hybridcsp.errors import HybridCSPError

#: Beginning of the text of every lock file, which names the process that holds the lock.
_HOLDER = b"process "


class LockFileError(HybridCSPError):
    """A lock file that cannot be used."""


class LockHeldError(HybridCSPError):
    """A lock that another process holds.

    Parameters
    ----------
    holder
        Description of the process.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"in use by {holder}")
        self.holder = holder


class FileLock:
    """A lock that is held until it is released.

    The lock belongs to the open file and ends with the process, however that ends; the text in the file only names the
    holder. A symbolic link is not followed, and a file that is not a lock is not overwritten.

    Parameters
    ----------
    path
        The lock file; its folder must exist.

    Raises
    ------
    OSError, ValueError
        If the file cannot be opened.
    LockFileError
        If it is not a lock file of hybridcsp, or the file system does not support locks.
    LockHeldError
        If another process holds the lock.
    """

    def __init__(self, path: Path) -> None:
        if path.is_symlink():
            raise LockFileError(f"{path} is a symbolic link, which is not followed: remove it")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor: int | None = os.open(path, flags, 0o644)
        try:
            _take(self._descriptor, path)
        except BaseException:
            self.release()
            raise

    def fileno(self) -> int:
        """Return the descriptor; a process that inherits it holds the lock as well.

        Raises
        ------
        ValueError
            If the lock has been released.
        """
        if self._descriptor is None:
            raise ValueError("the lock has been released")
        return self._descriptor

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _take(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise LockFileError(f"{path} is not a regular file: remove it")
    text = os.pread(descriptor, 200, 0)
    if text and not text.startswith(_HOLDER):
        raise LockFileError(f"{path} is not a lock file of hybridcsp: move it away, or choose another directory")
    if not _locked(descriptor, path):
        raise LockHeldError(text.decode(errors="replace").strip() or "another process")
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
        reason = f"{path} cannot be locked ({error.strerror}): choose a directory on another disk"
        raise LockFileError(reason) from error
    return True
