"""The Python interpreters in which calculators are built."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.environments import environment
from hybridcsp.relaxation.calculators.server.builders import BUILDERS
from hybridcsp.utils.paths import absolute_program


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter that runs calculator servers.

    Attributes
    ----------
    path
        Absolute path. Links in it are kept, because the interpreter of a virtual environment is one.
    isolated
        Whether it ignores ``PYTHONPATH`` and the packages in the user's home.
    """

    path: str
    isolated: bool = False

    @property
    def command(self) -> list[str]:
        """The beginning of its command line."""
        return [self.path, "-I"] if self.isolated else [self.path]


def find_interpreter(choice: CalculatorChoice) -> Interpreter | None:
    """Return the interpreter of a calculator; ``None`` stands for the interpreter of hybridcsp itself.

    Raises
    ------
    InputError
        If there is no such interpreter.
    CalculatorError
        If the environment that was installed for the calculator cannot be used.
    """
    if choice.python is not None:
        return Interpreter(_program(choice.python))
    name = choice.calculator.partition(":")[0] if isinstance(choice.calculator, str) else ""
    installed = environment(name) if name in BUILDERS else None
    return None if installed is None else Interpreter(installed.python, isolated=True)


def _program(python: str) -> str:
    """Return the absolute path of the interpreter that a user has named."""
    if os.sep not in python and not python.startswith("~"):
        found = shutil.which(python)
        if found is None:
            raise InputError(
                "python", python, reason="there is no such program on the PATH; give the path of an interpreter"
            )
        return str(Path(found).absolute())
    try:
        path = Path(absolute_program(python, Path.cwd()))
        if path.is_dir():
            inside = path / "bin" / "python"
            hint = f"did you mean {inside}?" if inside.exists() else "give the path of a Python interpreter in it"
            raise InputError("python", python, reason=f"this is a folder; {hint}")
        if not path.is_file():
            link = f", because it is a link to {path.readlink()}, which does not exist" if path.is_symlink() else ""
            raise InputError(
                "python", python, reason=f"there is no such file{link}; give the path of a Python interpreter"
            )
    except (OSError, RuntimeError) as error:  # too long for a name, not accessible, or in the home of an unknown user
        raise InputError("python", python, reason=str(error)) from error
    if not os.access(path, os.X_OK):
        raise InputError("python", python, reason="this file is not executable; give the path of a Python interpreter")
    return str(path)
