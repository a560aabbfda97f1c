"""Folder of environments: where it is, and whether programs in it may be run."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridcsp.errors import InputError, InstallationError
from hybridcsp.utils.files import folder_within, followed, make_folder
from hybridcsp.utils.locks import FileLock, LockFileError, LockHeldError
from hybridcsp.utils.paths import expanded

#: Variable of the environment that names another data folder.
VARIABLE = "HYBRIDCSP_DATA"

#: Folder of environments within the data folder.
FOLDER = "environments"

# Names of environments, which are also names of folders.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# Time in s to wait for the lock, which an installation that is killed holds until its child processes have ended.
_PATIENCE = 3.0


def data_folder() -> Path:
    """Return the data folder: ``HYBRIDCSP_DATA``, or the usual place for data of the user; it need not exist.

    Raises
    ------
    InputError
        If the variable holds a relative path.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        from platformdirs import user_data_path

        return user_data_path("hybridcsp", appauthor=False)
    folder = expanded(given)
    if not folder.is_absolute():
        raise InputError(VARIABLE, given, "the absolute path of a folder")
    return folder


def environments_folder() -> Path:
    """Return the folder of environments, which need not exist.

    Raises
    ------
    InputError
        If the data folder is a symbolic link that another user may have created, or if it or the folder in it can be
        written by others.
    """
    data = followed(data_folder(), VARIABLE, follow=True)
    folder = data / FOLDER
    check_ownership(folder, data)
    return folder


def make_environments_folder() -> Path:
    """Create the folder of environments unless it exists, and return it.

    Raises
    ------
    InputError
        If it cannot be created, or as for :func:`environments_folder`.
    """
    folder = environments_folder()
    make_folder(folder.parent, key=VARIABLE)
    return folder_within(folder.parent, folder.name)


def is_name(name: str) -> bool:
    """Return whether a text can be the name of an environment."""
    return bool(_NAME.fullmatch(name))


def check_ownership(folder: Path, data: Path) -> None:
    """Check that only the user, root, or the owner of the data folder can have put programs into a folder.

    Parameters
    ----------
    folder
        A folder in the data folder; it need not exist.
    data
        The data folder, whose owner the user trusts by having named it.

    Raises
    ------
    InputError
        If the folder is a symbolic link, belongs to someone else or can be written by everybody.
    """
    try:
        found = folder.lstat()
        trusted = {0, os.geteuid(), data.stat().st_uid}
    except OSError:  # it does not exist, or cannot be read
        return
    if stat.S_ISLNK(found.st_mode):
        raise InputError("folder", folder, "a folder, not a symbolic link; remove the link")
    if not stat.S_ISDIR(found.st_mode):
        raise InputError("folder", folder, "a folder; a file is in its place")
    if found.st_uid not in trusted:
        raise InputError(
            "folder", folder, reason=f"it belongs to the user {found.st_uid}, who may have put programs there"
        )
    if found.st_mode & stat.S_IWOTH:
        raise InputError("folder", folder, reason="everybody has the right to write to it; remove that with chmod o-w")


@contextmanager
def locked(folder: Path) -> Iterator[FileLock]:
    """Hold the lock of the folder of environments.

    Raises
    ------
    InputError
        If the folder cannot be written.
    InstallationError
        If another process installs or removes an environment.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            lock = FileLock(folder / "environments.lock")
            break
        except LockHeldError as error:
            if time.monotonic() > end:
                raise InstallationError(
                    f"{error.holder} installs or removes an environment in {folder}: wait until it ends"
                ) from error
            time.sleep(0.1)
        except LockFileError as error:
            raise InstallationError(str(error)) from error
        except OSError as error:
            reason = f"it cannot be written ({error.strerror}); {VARIABLE} names another data folder"
            raise InputError("folder", folder, reason=reason) from error
    try:
        yield lock
    finally:
        lock.release()
