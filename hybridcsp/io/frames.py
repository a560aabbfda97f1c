"""The records that readers of structure files yield: structures, and failures to read one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ase import Atoms


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Frame:
    """One structure read from a file.

    Attributes
    ----------
    atoms
        The structure, with the file's annotations in ``info``, and with a calculator that holds its energy if the file
        states one.
    file
        The file that contains it; for a member of a zip archive, the archive's path followed by the member's.
    number
        Its position in the file, counted from 0; rows of a table and entries of a list that cannot be read count too.
    line
        The number of its first line, counted from 1.
    name
        The name that the file gives it; empty if it gives none.
    """

    atoms: Atoms
    file: Path
    number: int
    line: int = 1
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class ReadFailure:
    """A part of a file that could not be read as a structure.

    Attributes
    ----------
    file
        The file.
    line
        The line where the failure was found, counted from 1.
    reason
        The cause, for the user.
    """

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


class StructureError(Exception):
    """Raised inside readers for text or numbers that do not describe a valid structure.

    Readers catch it and yield a :class:`ReadFailure` instead, so that reading goes on behind the invalid structure.

    Parameters
    ----------
    offset
        Number of lines from the beginning of the structure to the cause.
    reason
        The cause, for the user.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason
