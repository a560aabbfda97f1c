"""Installation of environments with ``venv`` and ``pip``."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

from hybridcsp.errors import InputError, InstallationError
from hybridcsp.relaxation.calculators.environments.environment import (
    DESCRIPTION,
    FORMAT,
    Environment,
    delete,
    find,
    log_of,
    processes_of,
)
from hybridcsp.relaxation.calculators.environments.folders import VARIABLE, locked, make_environments_folder
from hybridcsp.relaxation.calculators.environments.recipes import Recipe
from hybridcsp.utils import process_watch
from hybridcsp.utils.activity import announce
from hybridcsp.utils.files import atomic_write, open_log
from hybridcsp.utils.locks import FileLock
from hybridcsp.utils.processes import end_processes
from hybridcsp.utils.text import printable_line

# Options of pip that would install into another place than the environment.
_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON", "PIP_DRY_RUN")

_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]")
_NO_NETWORK = re.compile(
    r"NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution|ConnectTimeout|"
    r"NameResolutionError|ReadTimeout|ProxyError|Network is unreachable|Connection (?:refused|reset|aborted)|SSLError"
)
_MISSING = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([^\s;(]+)")
_COLLECTED = re.compile(r"Collecting ([^\s;(]+)")
_DOWNLOADED = re.compile(r"\s*Downloading \S*?([^\s/]+?)(?:\.metadata)? \(([^)]+)\)")


def install(recipe: Recipe, *, wheels: Path | None = None) -> Environment:
    """Install an environment, unless it is there already with the same packages.

    The steps are announced (:mod:`hybridcsp.utils.activity`). After an error, or when this process is killed, no
    environment of this name can be used.

    Parameters
    ----------
    recipe
        Name and packages.
    wheels
        Folder of wheels, from which alone packages are taken; by default pip uses the index that it is configured for.

    Raises
    ------
    InputError
        If the data folder cannot be written, or ``wheels`` is not a folder of wheels.
    InstallationError
        If there is not enough space or no network, a wheel is missing, another process installs or uses the
        environment, or anything else fails; the message names the log.
    """
    if wheels is not None:
        check_wheels(wheels)
        wheels = wheels.resolve()
    folder = make_environments_folder()
    with locked(folder) as lock:
        present = find(recipe.name)
        if present is not None and not present.fault and not present.outdated:
            return present
        if users := processes_of(folder / recipe.name):
            raise InstallationError(
                f"the present environment {recipe.name} is in use by process {users[0]}: wait until it ends"
            )
        target, log = folder / recipe.name, log_of(folder, recipe.name)
        delete(target)
        check_space(folder, recipe)
        try:
            log.unlink(missing_ok=True)
            with _space_errors_converted(recipe, folder):
                _Installation(recipe, target, log, lock).run(wheels)
        except BaseException:
            delete(target)
            raise
    made = find(recipe.name)
    if made is None or made.fault:
        raise InstallationError(f"the environment {recipe.name} was removed while it was installed; install it again")
    return made


def check_space(folder: Path, recipe: Recipe) -> None:
    """Check that an environment and its wheels fit on the disk of a folder.

    Raises
    ------
    InstallationError
        If they do not.
    """
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, recipe.size + recipe.download
    if free < needed:
        raise InstallationError(
            f"the environment {recipe.name} needs {gigabytes(needed)} while it is installed, and the disk of {folder} "
            f"has {gigabytes(free)} left: free some space, or name a data folder on another disk with {VARIABLE}"
        )


def gigabytes(size: int) -> str:
    """Return a size in bytes as a text in GB, or in MB if it is small."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


class _Installation:
    """One installation: the programs that it runs, and their output."""

    def __init__(self, recipe: Recipe, target: Path, log: Path, lock: FileLock) -> None:
        self._recipe, self._target, self._log, self._lock = recipe, target, log, lock
        self._python = str(target / "bin" / "python")

    def run(self, wheels: Path | None) -> None:
        recipe, target = self._recipe, self._target
        announce("making a virtual environment")
        self._call("the virtual environment cannot be made", [sys.executable, "-I", "-m", "venv", str(target)])
        requirements, temporary = target / "requirements.txt", target / "tmp"
        requirements.write_text(recipe.requirements, encoding="utf-8")
        temporary.mkdir()
        announce("resolving the packages")
        self._call(
            "pip failed",
            [*_pip(self._python, wheels), "-r", str(requirements)],
            environment=_environment_of_pip(temporary, offline=wheels is not None),
            wheels=wheels,
        )
        announce(f"importing {recipe.module}")
        self._call(
            f"its module {recipe.module} cannot be imported", [self._python, "-I", "-c", f"import {recipe.module}"]
        )
        shutil.rmtree(temporary)
        self._describe()

    def _describe(self) -> None:
        """Write the description, which makes the environment complete."""
        site = next((self._target / "lib").glob("python3*/site-packages"))
        found = {one.name: one.version for one in distributions(path=[str(site)])}
        description = {
            "format": FORMAT,
            "name": self._recipe.name,
            "python": platform.python_version(),
            "requirements": self._recipe.digest,
            "packages": dict(sorted(found.items())),
            "size": size_of(self._target),
        }
        with atomic_write(self._target / DESCRIPTION) as file:
            json.dump(description, file, indent=1)

    def _call(
        self,
        failure: str,
        command: list[str],
        *,
        environment: Mapping[str, str] | None = None,
        wheels: Path | None = None,
    ) -> None:
        """Run a program that ends with this process; its output goes to the log.

        Raises
        ------
        InstallationError
            If it fails.
        """
        with open_log(self._log) as log:
            start = log.tell()
            log.write(f"$ {' '.join(command)}\n".encode())
            process = subprocess.Popen(
                [sys.executable, "-I", str(process_watch.__file__), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._target.parent,
                env=environment or _plain_environment(),
                # If this process is killed, its lock is held until the program has ended, a second later.
                pass_fds=(self._lock.fileno(),),
                start_new_session=True,
            )
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    if step := _step(line.decode(errors="replace")):
                        announce(step)
                status = process.wait()
            finally:
                end_processes([process])
        if status != 0:
            with self._log.open("rb") as file:
                file.seek(start)
                output = file.read().decode(errors="replace")
            raise InstallationError(self._explanation(failure, status, output, wheels))

    def _explanation(self, failure: str, status: int, output: str, wheels: Path | None) -> str:
        """Return a sentence about a program that failed."""
        if _NO_SPACE.search(output):
            reason = f"the disk of {self._target.parent} is full"
        elif "ensurepip is not available" in output:
            reason = (
                "this Python lacks the module ensurepip, which virtual environments need (on Debian and Ubuntu the "
                "package python3-venv has it)"
            )
        elif missing := _MISSING.search(output):
            python = f"Python {platform.python_version()} on {platform.machine()}"
            if wheels is not None:
                reason = f"{wheels} has no wheel of {missing[1]} for {python}"
            elif _NO_NETWORK.search(output):
                reason = "there is no network; --wheels FOLDER installs from a folder of wheels"
            else:
                reason = f"the index of pip has no {missing[1]} for {python}"
        elif _NO_NETWORK.search(output):
            reason = "the network failed; --wheels FOLDER installs from a folder of wheels"
        elif status in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
            reason = f"{failure}, because it was killed by {signal.Signals(status - 128).name}"
        else:
            said = [line for line in output.splitlines() if line.lower().startswith("error")]
            last = said or [line for line in output.splitlines()[1:] if line.strip()] or [f"exit status {status}"]
            reason = f"{failure} ({printable_line(last[-1].strip())})"
        return f"the environment {self._recipe.name} was not installed: {reason}. Log: {self._log}"


def size_of(folder: Path) -> int:
    """Return the space in bytes that a folder takes on its disk; symbolic links are not followed."""
    return sum(
        (Path(root) / name).lstat().st_blocks * 512 for root, below, names in os.walk(folder) for name in below + names
    )


def check_wheels(wheels: Path) -> None:
    """Check that a folder of wheels exists and contains a wheel.

    Raises
    ------
    InputError
        If it does not.
    """
    if not wheels.is_dir():
        raise InputError("--wheels", wheels, "an existing folder of wheels")
    if not any(wheels.glob("*.whl")):
        raise InputError("--wheels", wheels, reason="this folder contains no wheel (*.whl)")


def _pip(python: str, wheels: Path | None) -> list[str]:
    """Return the command line that installs packages, which are still to be named."""
    options = ["--disable-pip-version-check", "--no-input", "--no-cache-dir", "--progress-bar", "off", "--retries", "2"]
    source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    return [python, "-I", "-m", "pip", "install", *options, *source]


def _plain_environment() -> dict[str, str]:
    """Return the environment variables without those of this interpreter, such as ``PYTHONPATH``."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def _environment_of_pip(temporary: Path, *, offline: bool) -> dict[str, str]:
    """Return the environment variables for pip: wheels are unpacked on the same disk, and into no other place."""
    kept = {key: value for key, value in _plain_environment().items() if key not in _ELSEWHERE}
    if offline:  # no other folder or index that the user has configured
        kept = {key: value for key, value in kept.items() if not key.startswith("PIP_")}
        kept["PIP_CONFIG_FILE"] = os.devnull
    return kept | {"TMPDIR": str(temporary)}


def _step(line: str) -> str:
    """Return the activity that a line of pip's output begins, or an empty text."""
    if found := _DOWNLOADED.match(line):
        return f"downloading {found[1]} ({found[2]})"
    if found := _COLLECTED.match(line):
        return f"resolving {found[1]}"
    if line.startswith("Installing collected packages"):
        return f"unpacking {line.count(',') + 1} packages"
    return ""


@contextmanager
def _space_errors_converted(recipe: Recipe, folder: Path) -> Iterator[None]:
    """Convert errors of writing in this process: a full disk, or a folder that is removed meanwhile."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = f"the disk of {folder} is full" if full else f"{error.filename or folder}: {error.strerror}"
        raise InstallationError(f"the environment {recipe.name} was not installed: {reason}.") from error
