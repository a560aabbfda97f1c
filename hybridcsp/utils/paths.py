"""Paths in settings: those that are relative to a folder are made absolute, and links are kept."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path in which ``~`` is the user's home; the home of an unknown user is left as it is written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # the method of Path raises an error for an unknown user


def absolute(path: str, folder: Path) -> str:
    """Return a path that is relative to ``folder``, or to the user's home (``~``), as an absolute one."""
    found = folder / expanded(path)
    return os.path.abspath(found)  # noqa: PTH100  # links are kept, because the Python of a virtual environment is one


def absolute_if_there(text: str, folder: Path) -> str:
    """Return the absolute path if ``text`` is that of an existing file or folder, and the text itself otherwise."""
    try:
        there = (folder / expanded(text)).exists()
    except OSError:  # too long for a name
        there = False
    return absolute(text, folder) if there else text


def absolute_argument(text: str, folder: Path, *, path: bool = False) -> str:
    """Return ``"NAME:ARGUMENT"`` with an absolute path if the argument is a path.

    Parameters
    ----------
    text
        A name with an argument; one without is returned as it is.
    folder
        The folder to which the path is relative.
    path
        Whether the argument is always a path, even if there is no such file.
    """
    name, colon, argument = text.partition(":")
    if not colon or not argument:
        return text
    path = path or "/" in argument or argument.startswith((".", "~"))
    return f"{name}:{absolute(argument, folder) if path else absolute_if_there(argument, folder)}"


def absolute_program(text: str, folder: Path) -> str:
    """Return the absolute path of a program; a name without ``/`` is one that is searched for on the ``PATH``."""
    return absolute(text, folder) if "/" in text or text.startswith("~") else text
