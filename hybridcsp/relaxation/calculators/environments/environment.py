"""Installed environments: finding, listing and removing them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridcsp.errors import CalculatorError, InputError, InstallationError, UnknownNameError, UnreadableError
from hybridcsp.relaxation.calculators.environments.folders import (
    check_ownership,
    environments_folder,
    is_name,
    locked,
)
from hybridcsp.relaxation.calculators.environments.recipes import RECIPES
from hybridcsp.utils.reading import read_json

#: File in an environment that is written last and describes it.
DESCRIPTION = "environment.json"

#: Version of the contents of the description.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment in the data folder.

    Attributes
    ----------
    name
        Name of the calculator for which it was made.
    folder
        Its folder.
    complete
        Whether its installation has ended.
    packages
        Versions of its packages by name.
    size
        Size in bytes; 0 if it is not complete.
    python_version
        Version of its interpreter, such as "3.11.7".
    digest
        SHA-256 of the pinned packages from which it was made.
    """

    name: str
    folder: Path
    complete: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    python_version: str = ""
    digest: str = ""

    @property
    def python(self) -> str:
        """Path of its Python interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def outdated(self) -> bool:
        """Whether this version of hybridcsp would install other packages."""
        recipe = RECIPES.get(self.name)
        return self.complete and recipe is not None and recipe.digest != self.digest

    @property
    def fault(self) -> str:
        """The reason why the environment cannot be used, or an empty text."""
        if not self.complete:
            return "its installation did not end"
        target = Path(self.python).resolve()
        if not target.exists():
            return f"its Python interpreter {target} does not exist any more"
        # The name of an interpreter that has been replaced by another version tells the version: python3.12.
        found = re.fullmatch(r"python(3\.\d+)", target.name)
        made_with = ".".join(self.python_version.split(".")[:2])
        if found and found[1] != made_with:
            return f"its Python interpreter {target} was replaced; it was made with Python {made_with}"
        return ""

    @property
    def state(self) -> str:
        """Description of the state in words."""
        if self.fault:
            return f"unusable: {self.fault}"
        return "other packages than this version of hybridcsp installs" if self.outdated else "ready"


def environment(name: str) -> Environment | None:
    """Return the environment of a calculator.

    Parameters
    ----------
    name
        Name of the calculator, without an argument.

    Returns
    -------
    Environment or None
        ``None`` if none has been installed completely.

    Raises
    ------
    CalculatorError
        If its interpreter does not exist any more.
    InputError
        If another user may have put it there.
    """
    found = find(name)
    if found is None or not found.complete:
        return None
    if found.fault:
        raise CalculatorError(
            f"the environment {name} cannot be used: {found.fault}; "
            f"hybridcsp calculators install {name} installs it again"
        )
    return found


def find(name: str) -> Environment | None:
    """Return an environment in any state, or ``None`` if there is no folder of this name."""
    if not is_name(name):
        return None
    folder = environments_folder()
    check_ownership(folder / name, folder.parent)
    try:
        if not (folder / name).is_dir():
            return None
    except OSError:  # a folder that the user may not read
        return None
    return _described(folder / name)


def listed() -> list[Environment]:
    """Return all environments by name, also those that cannot be used."""
    folder = environments_folder()
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
    found = []
    for name in names:
        if is_name(name) and (folder / name).is_dir():
            with suppress(InputError):  # a folder of another user, which is never used
                check_ownership(folder / name, folder.parent)
                found.append(_described(folder / name))
    return found


def remove(name: str) -> Environment:
    """Delete an environment, and return what it was.

    Raises
    ------
    InputError
        If there is none of this name, or the folder cannot be written.
    InstallationError
        If a process uses the environment, another one installs or removes, or it cannot be deleted.
    """
    folder = environments_folder()
    found = find(name)
    if found is None:
        installed = [one.name for one in listed()]
        if installed:
            raise UnknownNameError("environment", name, installed)
        raise InputError("environment", name, reason=f"no environment is installed in {folder}")
    with locked(folder):
        if users := processes_of(found.folder):
            shown = ", ".join(map(str, users))
            plural = "es" * (len(users) > 1)
            raise InstallationError(f"the environment {name} is in use by process{plural} {shown}: wait until it ends")
        delete(found.folder)
        log_of(folder, name).unlink(missing_ok=True)
    return found


def delete(folder: Path) -> None:
    """Delete the folder of an environment, its description first, so that a part of it is never used.

    Raises
    ------
    InstallationError
        If it cannot be deleted.
    """
    try:
        (folder / DESCRIPTION).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise InstallationError(f"{error.filename or folder} cannot be deleted: {error.strerror}") from error


def processes_of(folder: Path) -> list[int]:
    """Return the process ids of programs that run with the interpreter of an environment."""
    import psutil

    python = str(folder / "bin") + os.sep
    users = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if command and command[0].startswith(python):
                users.append(process.pid)
    return users


def log_of(folder: Path, name: str) -> Path:
    """Return the log of the installation of an environment."""
    return folder / f"{name}.log"


def _described(folder: Path) -> Environment:
    blank = Environment(name=folder.name, folder=folder)
    try:
        content: Any = read_json(folder / DESCRIPTION)
    except UnreadableError:
        return blank
    match content:
        case {
            "format": int(),
            "packages": dict() as packages,
            "size": int(size),
            "python": str(version),
            "requirements": str(digest),
        }:
            return Environment(
                name=folder.name,
                folder=folder,
                complete=True,
                packages={str(key): str(value) for key, value in packages.items()},
                size=size,
                python_version=version,
                digest=digest,
            )
    return blank
