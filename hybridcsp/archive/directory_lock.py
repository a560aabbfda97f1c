"""The lock of a run directory, which lets one process at a time write to it."""

from __future__ import annotations

from pathlib import Path

from hybridcsp.errors import ArchiveError, InputError, LockedError
from hybridcsp.utils.files import check_folder
from hybridcsp.utils.locks import FileLock, LockFileError, LockHeldError

LOCK = "search.lock"


def check_directory(directory: Path) -> None:
    """Check that a run directory can be made and written, without making it.

    Raises
    ------
    ArchiveError
        If not.
    """
    try:
        check_folder(directory)
    except InputError as error:
        why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error.clause
        raise ArchiveError(f"cannot write to the run directory {directory}: {why}") from error


class DirectoryLock(FileLock):
    """The lock ``search.lock`` of a directory, which is held until it is released; a missing directory is created.

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
        try:
            directory.mkdir(parents=True, exist_ok=True)
            super().__init__(directory / LOCK)
        except LockHeldError as error:
            reason = f"{directory} is in use by {error.holder}: wait until it ends, or choose another directory"
            raise LockedError(reason) from error
        except LockFileError as error:
            raise ArchiveError(str(error)) from error
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ArchiveError(f"cannot write to the run directory {directory} ({LOCK}): {why}") from error
