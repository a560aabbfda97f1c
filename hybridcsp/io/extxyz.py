"""Reading of extended XYZ files, one frame at a time, so that an invalid frame does not affect the others."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import read_xyz

from hybridcsp.io.construction import MAX_ATOMS, checked
from hybridcsp.io.element_symbols import ISOTOPES
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.io.text_files import Lines

# Columns in Properties whose number has four digits or more.
_WIDE = re.compile(r"Properties\s*=\s*[\"'{]?[^\s\"'}]*:\s*\d{4}", re.IGNORECASE)


def read_extxyz(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a file; after an invalid frame, continue at the next line with a number of atoms."""
    with Lines(file) as lines:
        number = -1
        while head := lines.peek(1):
            first = head[0].strip()
            if not first:
                lines.skip(1)
                continue
            if not first.isdecimal() or len(first) > 9 or int(first) > MAX_ATOMS:
                yield lines.failure(f"expected a number of atoms up to {MAX_ATOMS}, not {first[:40]!r}")
                lines.skip(1)
                while (head := lines.peek(1)) and not head[0].strip().isdecimal():
                    lines.skip(1)
                continue
            text = lines.peek(int(first) + 2)
            number += 1
            if len(text) < int(first) + 2:
                yield lines.failure(f"the file ends after {max(len(text) - 2, 0)} of {first} atoms")
            else:
                yield _frame(text, lines, number)
            lines.skip(len(text))


def _frame(text: list[str], lines: Lines, number: int) -> Frame | ReadFailure:
    try:
        return Frame(atoms=checked(_atoms(text)), file=lines.file, number=number, line=lines.number)
    except StructureError as error:
        return lines.failure(error.reason)
    except Exception as error:  # noqa: BLE001  # ASE's reader may raise any exception for an invalid frame
        return lines.failure(f"{type(error).__name__}: {error}"[:200])


def _atoms(text: list[str]) -> Atoms:
    if _WIDE.search(text[1]):  # ASE would allocate that number of columns
        raise StructureError(1, "Properties states a number of columns above 999")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _parsed(text)
        except KeyError as error:
            if error.args[0] not in ISOTOPES:
                raise
            return _parsed(_without_isotopes(text))


def _parsed(text: list[str]) -> Atoms:
    # read_xyz instead of ase.io.read, whose overhead is as long as reading a small structure.
    (atoms,) = read_xyz(io.StringIO("".join(text)), index=0)
    return atoms


def _without_isotopes(text: list[str]) -> list[str]:
    """Replace deuterium and tritium, which ASE does not know, by hydrogen."""
    properties = re.search(r'Properties="?([\w:]+)', text[1])
    names = (properties[1] if properties else "species:S:1:pos:R:3").split(":")
    column = sum(int(names[at + 2]) for at in range(0, names.index("species"), 3))
    lines = text[:2]
    for line in text[2:]:
        tokens = line.split()
        tokens[column] = ISOTOPES.get(tokens[column], tokens[column])
        lines.append(" ".join(tokens) + "\n")
    return lines
