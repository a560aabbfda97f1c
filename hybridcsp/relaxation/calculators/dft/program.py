"""Programs that are run in a folder until they end, with the end of their output if they fail.

A program is started from a list of arguments, never through a shell. It stays in the process group of the worker, with
which it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hybridcsp.relaxation.calculators.jobs import TimeUsedUpError
from hybridcsp.utils.files import end_of_log

#: Number of lines and characters of an output that an error shows.
_LINES, _CHARACTERS = 25, 1500

# Time in s that a program has to end after it was asked to.
_GRACE = 5.0


class ProgramError(Exception):
    """A program that failed, or whose output does not hold the results; the message ends with that of the output."""


def run_program(
    command: Sequence[str],
    folder: Path,
    output: str,
    *,
    seconds: float | None = None,
    inherited: Sequence[int] = (),
) -> None:
    """Run a program in a folder and wait for its end.

    Parameters
    ----------
    command
        The program and its arguments.
    folder
        Working directory of the program.
    output
        Name of a file in the folder, to which the standard output and the standard error are written.
    seconds
        Time in s after which the program is ended; ``None`` for no limit.
    inherited
        File descriptors that the program keeps open, such as that of a lock.

    Raises
    ------
    ProgramError
        If it cannot be started, or its exit status is not 0.
    TimeUsedUpError
        If it takes longer.
    """
    file = folder / output
    with file.open("wb") as stream:
        try:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(inherited),
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ProgramError(f"{command[0]} cannot be started: {reason}") from error
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeUsedUpError(f"{command[0]} ran for {seconds:.0f} s until the time limit{tail(file)}") from None
        finally:
            _end(process)
    if status < 0:
        name = signal.Signals(-status).name
        raise ProgramError(f"{command[0]} was killed by {name}{tail(file)}")
    if status > 0:
        raise ProgramError(f"{command[0]} ended with exit status {status}{tail(file)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs: first in order, so that mpirun ends its processes too."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tail(*files: Path) -> str:
    """Return the last lines of the first of some outputs that is not empty, as the end of a sentence."""
    for file in files:
        with suppress(OSError):
            if text := end_of_log(file):
                lines = "\n".join(line.rstrip() for line in text.splitlines()[-_LINES:] if line.strip())
                return f"; the end of {file.name}:\n{lines[-_CHARACTERS:]}"
    return ""


def find_program(name: str, folder: Path) -> str | None:
    """Return the absolute path of a program that can be executed, or ``None``.

    Parameters
    ----------
    name
        Name of a program on the ``PATH``, or a path that may be relative to ``folder``.
    folder
        The folder of the file that names it.
    """
    if os.sep not in name and not name.startswith("~"):
        return shutil.which(name)
    return shutil.which(os.path.abspath(folder / os.path.expanduser(name)))  # noqa: PTH100, PTH111  # links are kept
