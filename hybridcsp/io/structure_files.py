"""Files of structures that a person brings: CIF, POSCAR, extended XYZ, databases, archives and tables of them.

This is the one way in: seeds, ``import``, templates, targets and training data are read by :func:`read_structures`, and
what it yields has passed :func:`hybridcsp.io.construction.check_crystal`. Pickles are never read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from hybridcsp.errors import UnreadableError
from hybridcsp.io.ase_databases import read_database
from hybridcsp.io.ase_formats import is_named_for_ase, read_with_ase
from hybridcsp.io.ase_trajectories import read_trajectory
from hybridcsp.io.cif import read_cif
from hybridcsp.io.extxyz import read_extxyz
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.json_structures import read_json_structures
from hybridcsp.io.poscar import read_poscars
from hybridcsp.io.res import read_res
from hybridcsp.io.text_files import Lines
from hybridcsp.io.zip_archives import members
from hybridcsp.utils.reading import LONGEST_LINE, lines_of, open_text

#: Columns of a table in which a CIF is looked for.
_CIF_COLUMNS = ("cif", "structure", "cif_string")

_Reader = Callable[[Path], Iterator[Frame | ReadFailure]]


def structure_files(path: Path) -> list[Path]:
    """Return the file itself, or a folder's structure files by name: no hidden files, none of folders inside."""
    try:
        if not path.is_dir():
            return [path]
        files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise UnreadableError(path, f"a folder that cannot be read ({error.strerror})") from error
    return [file for file in files if is_structure_file(file)]


def is_structure_file(file: Path) -> bool:
    """Whether a file is one of structures by its name."""
    return _reader(file) is not None or is_named_for_ase(file)


def read_structures(path: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a file or folder one after the other, without holding them all.

    A zip archive gives the structures of the files in it, a table (.csv, it may be compressed) those in its column of
    CIFs. A folder gives those of its structure files, by name; other files in it are passed over. Some other formats
    are read by ASE (:data:`~hybridcsp.io.ase_formats.FORMATS`). What cannot be read, and what is no crystal, is a
    :class:`~hybridcsp.io.frames.ReadFailure` with the reason.
    """
    for file in structure_files(path):
        nothing = True
        try:
            for found in (_reader(file) or read_with_ase)(file):
                nothing = False
                yield found
        except UnreadableError as error:
            yield ReadFailure(file=error.file, line=error.line, reason=error.reason)
        except Exception as error:  # noqa: BLE001  # readers of libraries let any error through that a broken file causes
            yield ReadFailure(file=file, line=1, reason=f"not readable: {type(error).__name__}: {error}"[:300])
        else:
            if nothing:
                yield ReadFailure(file=file, line=1, reason="holds no structure")


def _reader(file: Path) -> _Reader | None:
    """Return the reader for a file of this name, ``None`` where ASE decides."""
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower())
    if name.endswith((".extxyz", ".xyz")):
        return read_extxyz
    if name.endswith((".cif", ".mcif")):
        return _of_cif
    if name.endswith(".csv"):
        return _of_table
    if name.endswith(".json"):
        return read_json_structures
    if name.endswith(".res"):
        return read_res
    if name.endswith(".db"):
        return read_database
    if name.endswith(".traj"):
        return read_trajectory
    if name.endswith(".zip"):
        return _of_archive
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _of_poscar
    return None


def _of_cif(file: Path) -> Iterator[Frame | ReadFailure]:
    with Lines(file) as lines:
        for number, found in enumerate(read_cif(lines)):
            if isinstance(found, tuple):
                line, reason = found
                yield ReadFailure(file=file, line=line, reason=reason)
            else:
                yield Frame(atoms=found.atoms, file=file, number=number, line=found.line, name=found.name)


def _of_poscar(file: Path) -> Iterator[Frame | ReadFailure]:
    for number, block in enumerate(read_poscars(file)):
        if isinstance(block, ReadFailure):
            yield block
        else:
            name = f"{file.name}-{number + 1}"
            yield Frame(atoms=block.atoms, file=file, number=number, line=block.line, name=name)


def _of_archive(file: Path) -> Iterator[Frame | ReadFailure]:
    for name, member in members(file):
        if isinstance(member, UnreadableError):
            yield ReadFailure(file=member.file, line=1, reason=member.reason)
        else:
            for found in read_structures(member):
                yield replace(found, file=file / name)


def _of_table(file: Path) -> Iterator[Frame | ReadFailure]:
    csv.field_size_limit(LONGEST_LINE)
    with open_text(file) as text:
        rows = csv.DictReader(lines_of(text, file))
        columns = [name for name in rows.fieldnames or () if name.strip().lower() in _CIF_COLUMNS]
        if not columns:
            raise UnreadableError(file, f"a table without a column named {' or '.join(_CIF_COLUMNS)}")
        for number in count():
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield ReadFailure(file=file, line=rows.line_num, reason=f"row {number + 1}: {error}")
                continue
            if row is None:
                return
            line = rows.line_num
            found = next(read_cif(io.StringIO(row[columns[0]] or "", newline=None)), (1, "an empty CIF"))
            if isinstance(found, tuple):
                yield ReadFailure(file=file, line=line, reason=f"row {number + 1}: {found[1]}")
            else:
                yield Frame(atoms=found.atoms, file=file, number=number, line=line, name=found.name)
