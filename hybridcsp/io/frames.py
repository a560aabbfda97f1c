"""Structure files: what every reader of structures shares, and the files of no particular search code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ase import Atoms


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Frame:
    """One crystal of a file.

    Attributes
    ----------
    atoms
        The crystal, with what the file says of it in ``info``, and a calculator with its energy where it has one.
    file
        Where it is; for a member of an archive the archive's path with the member's behind it.
    number
        Its place in the file, counted from 0; rows of a table and entries of a list are counted too.
    line
        Its first line, counted from 1.
    name
        What the file calls it, empty where it has no name.
    """

    atoms: Atoms
    file: Path
    number: int
    line: int = 1
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Something in a file that is no structure: where it begins (lines count from 1), and why not."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"
