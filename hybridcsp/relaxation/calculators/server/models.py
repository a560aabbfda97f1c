"""Elements, model files and packages of machine-learned potentials."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from .exceptions import BuildError

#: Modules of the packages that potentials need, and how these are installed.
PACKAGES = {
    "mace": (
        "mace",
        "pip install 'hybridcsp[mace]' installs mace-torch beside hybridcsp, and hybridcsp calculators install mace in "
        "an environment of its own",
    ),
    "sevennet": (
        "sevenn",
        "hybridcsp calculators install sevennet installs it in an environment of its own",
    ),
}


def missing_package(calculator: str, reason: object) -> BuildError:
    """Return the error for a potential whose package cannot be imported.

    Parameters
    ----------
    calculator
        A key of :data:`PACKAGES`.
    reason
        The exception of the import, or another explanation.
    """
    package, hint = PACKAGES[calculator]
    return BuildError(f"{calculator}: {sys.executable} cannot import the package {package} ({reason}); {hint}")


def split_model(argument: str, names: Collection[str]) -> tuple[Path, str | None]:
    """Return the path or name in the argument of a potential, and what follows it after a colon.

    Parameters
    ----------
    argument
        A path or a name, also with a colon and the name of one of several outputs of the model.
    names
        The names of models.

    Returns
    -------
    tuple of Path, and str or None
        The path may be one of the names.
    """
    path = _expanded(argument)
    model, colon, part = argument.rpartition(":")
    if colon and not path.is_file() and (model in names or _expanded(model).is_file()):
        return _expanded(model), part
    return path, None


def _expanded(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  # the method of Path raises an error for an unknown user


def check_elements(model: str, numbers: Any, known: Iterable[int]) -> None:
    """Check that a potential knows the elements of a structure.

    Raises
    ------
    ValueError
        If it does not know one of them; the message lists the elements that it knows.
    """
    known = set(known)
    unknown = sorted(set(np.unique(numbers).tolist()) - known)
    if unknown:
        elements = ", ".join(chemical_symbols[number] for number in sorted(known))
        names = ", ".join(chemical_symbols[number] for number in unknown)
        raise ValueError(f"{model} does not know {names}; it knows {elements}")
