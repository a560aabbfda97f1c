"""Reading of tables (CSV) of crystals: columns of CIFs or of pymatgen's structures, and samples of CrystalFormer."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.errors import UnreadableError
from hybridcsp.io import crystalformer
from hybridcsp.io.cif import read_cif
from hybridcsp.io.construction import plain_values
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.io.json_structures import structure_of_pymatgen
from hybridcsp.utils.reading import LONGEST_LINE, lines_of, open_text

#: Names of the column of CIFs in a table.
_CIF_COLUMNS = ("cif", "structure", "cif_string")

#: Columns that pandas writes for the index of a table.
_UNNAMED = re.compile(r"Unnamed: \d+")

_WHOLE = re.compile(r"[+-]?\d{1,18}")

_Row = Mapping[str, Any]


def read_table(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a table, one of each row; other columns become ``info``.

    The table has a column ``cif`` (or ``structure``, ``cif_string``) of CIFs or of the dictionaries of pymatgen's
    structures, as CrystalFormer's ``awl2struct.py`` writes them; or the columns of CrystalFormer's samples
    (:mod:`hybridcsp.io.crystalformer`). Headers that are repeated between rows are skipped.

    Raises
    ------
    UnreadableError
        If the table has no such columns.
    """
    csv.field_size_limit(LONGEST_LINE)
    with open_text(file) as text:
        rows = csv.DictReader(lines_of(text, file))
        names = tuple(rows.fieldnames or ())
        columns, build = _reader(names, file)
        for number in count():
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield ReadFailure(file=file, line=rows.line_num, reason=f"row {number + 1}: {error}")
                continue
            if row is None:
                return
            line = rows.line_num
            if all(row[name] == name for name in columns):
                continue
            try:
                atoms, name = build(row)
            except StructureError as error:
                yield ReadFailure(file=file, line=line, reason=f"row {number + 1}: {error.reason}")
            else:
                properties = {key: value for key, value in row.items() if key not in columns}
                atoms.info = _properties(properties) | atoms.info
                yield Frame(atoms=atoms, file=file, number=number, line=line, name=name)


def _reader(names: tuple[str, ...], file: Path) -> tuple[tuple[str, ...], Callable[[_Row], tuple[Atoms, str]]]:
    """Return the columns that describe the crystal, and the function that builds it from a row."""
    columns = tuple(name for name in names if name.strip().lower() in _CIF_COLUMNS)
    if columns:
        return columns, lambda row: _described(row[columns[0]] or "")
    if set(crystalformer.COLUMNS) <= set(names):
        group = crystalformer.group_of_file(file)
        if crystalformer.GROUP not in names and group is None:
            raise UnreadableError(
                file,
                f"the table has CrystalFormer's columns but no column {crystalformer.GROUP}, so that its name must "
                "state the space group, as in output_225.csv",
            )
        columns = tuple(name for name in names if name in crystalformer.EVERY_COLUMN)
        return columns, lambda row: (crystalformer.crystal(row, group), "")
    raise UnreadableError(
        file,
        f"the table has no column of CIFs, named {' or '.join(_CIF_COLUMNS)}, and not the columns "
        f"{', '.join(crystalformer.COLUMNS)} of CrystalFormer",
    )


def _described(text: str) -> tuple[Atoms, str]:
    """Return the crystal, and its name if there is one, of a CIF or of the dictionary of a pymatgen structure."""
    if text.lstrip().startswith("{"):
        try:
            found = ast.literal_eval(text.strip())  # evaluates numbers, texts and containers only
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            raise StructureError(0, "it is not the dictionary of a pymatgen structure") from None
        return structure_of_pymatgen(found), ""
    read = next(read_cif(io.StringIO(text, newline=None)), (1, "the CIF is empty"))
    if isinstance(read, tuple):
        raise StructureError(0, read[1])
    return read.atoms, read.name


def _properties(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the cells of a row by the names of their columns, those that are numbers as numbers."""
    named = {
        name.strip(): _number(text.strip())
        for name, text in row.items()
        if isinstance(name, str) and isinstance(text, str) and text.strip()
    }
    return plain_values({name: value for name, value in named.items() if name and not _UNNAMED.fullmatch(name)})


def _number(text: str) -> str | int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
