"""Files of structures that a person brings: CIF, POSCAR, extended XYZ, databases, archives and tables of them.

This is the one way in: seeds, ``import``, templates, targets and training data are read by :func:`read_structures`, and
what it yields has passed :func:`hybridcsp.io.crystals.check_crystal`. Pickles are never read.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import ase.db
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread
from ase.io.formats import get_compression, open_with_compression

from hybridcsp.errors import UnreadableError
from hybridcsp.io import Broken, Frame
from hybridcsp.io.cif import read_cif
from hybridcsp.io.crystals import accepted
from hybridcsp.io.extxyz import read_extxyz
from hybridcsp.io.poscar import read_poscars
from hybridcsp.io.text import BrokenError, Lines
from hybridcsp.structure import from_pymatgen
from hybridcsp.utils.reading import read_json

_PICKLES = (".pckl", ".pkl", ".pickle")

#: What ASE reads in a folder: other files there are a code's input or output, or have nothing to do with structures.
_OTHERS = (".gen", ".pwi", ".pwo", ".res", ".traj", ".xsf", "OUTCAR", "vasprun.xml")

#: Columns of a table in which a CIF is looked for.
_CIF_COLUMNS = ("cif", "structure", "cif_string")

_Reader = Callable[[Path], Iterator[Frame | Broken]]


def structure_files(path: Path) -> list[Path]:
    """Return the file itself, or a folder's structure files by name: no hidden files, none of folders inside."""
    if not path.is_dir():
        return [path]
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    return [file for file in files if is_structure_file(file)]


def is_structure_file(file: Path) -> bool:
    """Whether a file is one of structures by its name."""
    return _reader(file) is not None or file.suffix.lower() in _OTHERS or file.name in _OTHERS


def read_structures(path: Path) -> Iterator[Frame | Broken]:
    """Yield the structures of a file or folder one after the other, without holding them all.

    A zip archive gives the structures of the files in it, a table (.csv, it may be compressed) those in its column of
    CIFs. A folder gives those of its structure files, by name; other files in it are passed over. Whatever else is read
    by ASE. What cannot be read, and what is no crystal, is a :class:`~hybridcsp.io.Broken` with the reason.
    """
    for file in structure_files(path):
        nothing = True
        try:
            for found in (_reader(file) or _of_ase)(file):
                nothing = False
                yield found
        except UnreadableError as error:
            yield Broken(file=error.file, line=error.line, reason=error.reason)
        except Exception as error:  # noqa: BLE001  # readers of libraries let any error through that a broken file causes
            yield Broken(file=file, line=1, reason=f"not readable: {type(error).__name__}: {error}"[:300])
        else:
            if nothing:
                yield Broken(file=file, line=1, reason="holds no structure")


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
        return _of_json
    if file.name.endswith(".db"):
        return _of_database
    if file.name.lower().endswith(".zip"):
        return _of_archive
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _of_poscar
    return None


def _of_cif(file: Path) -> Iterator[Frame | Broken]:
    with Lines(file) as lines:
        for number, found in enumerate(read_cif(lines)):
            if isinstance(found, tuple):
                line, reason = found
                yield Broken(file=file, line=line, reason=reason)
            else:
                yield Frame(atoms=found.atoms, file=file, number=number, line=found.line, name=found.name)


def _of_poscar(file: Path) -> Iterator[Frame | Broken]:
    for number, block in enumerate(read_poscars(file)):
        if isinstance(block, Broken):
            yield block
        else:
            name = f"{file.name}-{number + 1}"
            yield Frame(atoms=block.atoms, file=file, number=number, line=block.line, name=name)


def _of_archive(file: Path) -> Iterator[Frame | Broken]:
    with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
        for member in sorted(archive.infolist(), key=lambda info: info.filename):
            name = PurePosixPath(member.filename).name
            if member.is_dir() or name.startswith(".") or member.filename.startswith("__MACOSX/"):
                continue
            # Under its last name only: a path in an archive may lead anywhere.
            plain = Path(folder) / name
            with archive.open(member) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
            for found in read_structures(plain):
                yield replace(found, file=file / member.filename)
            plain.unlink()


def _of_table(file: Path) -> Iterator[Frame | Broken]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_with_compression(str(file), "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        columns = [name for name in rows.fieldnames or () if name.strip().lower() in _CIF_COLUMNS]
        if not columns:
            raise ValueError(f"a column named {' or '.join(_CIF_COLUMNS)} is needed")
        for number, row in enumerate(rows):
            line = rows.line_num
            found = next(read_cif(io.StringIO(row[columns[0]] or "", newline=None)), (1, "an empty CIF"))
            if isinstance(found, tuple):
                yield Broken(file=file, line=line, reason=f"row {number + 1}: {found[1]}")
            else:
                yield Frame(atoms=found.atoms, file=file, number=number, line=line, name=found.name)


def _of_ase(file: Path) -> Iterator[Frame | Broken]:
    if get_compression(str(file))[1]:
        # ASE would read it in place, but seeks back for each frame: quadratic in their number.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / file.stem
            with open_with_compression(str(file), "rb") as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
            for found in _of_ase(plain):
                yield replace(found, file=file)
            return
    if file.suffix.lower() in _PICKLES:
        raise ValueError("pickles can run code and are never read; write extxyz instead")
    if file.stat().st_size == 0:
        return
    # The absolute path, so that no name can be taken for a database server's address.
    frames = iread(str(file.resolve()), index=":", do_not_split_by_at_sign=True)
    number = 0
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = next(frames, None)
        if atoms is None:
            return
        yield _checked(atoms, file, number)
        number += 1


def _checked(atoms: Atoms, file: Path, number: int, name: str = "", line: int = 1) -> Frame | Broken:
    try:
        return Frame(atoms=accepted(atoms), file=file, number=number, line=line, name=name)
    except BrokenError as error:
        return Broken(file=file, line=line, reason=error.reason)


def _of_database(file: Path) -> Iterator[Frame | Broken]:
    database = ase.db.connect(file.resolve(), type="db", use_lock_file=False)
    for number, row in enumerate(database.select()):
        atoms = row.toatoms()
        atoms.info |= dict(row.key_value_pairs)
        yield _checked(atoms, file, number, f"{file.stem}-{row.id}", row.id)


def _of_json(file: Path) -> Iterator[Frame | Broken]:
    """Read pymatgen's structures and computed entries (one, or a list of them), or ASE's database in JSON.

    Only the two classes named here are built, and by name, whatever else the file asks for.
    """
    content = read_json(file)
    if isinstance(content, dict) and {"ids", "nextid"} <= content.keys():
        yield from _of_ase(file)
        return
    for number, entry in enumerate(content if isinstance(content, list) else [content]):
        yield _entry(entry, file, number)


def _entry(entry: Any, file: Path, number: int) -> Frame | Broken:
    from pymatgen.core import Structure

    where = f"entry {number + 1}"
    if not isinstance(entry, dict):
        return Broken(file=file, line=1, reason=f"{where} is no pymatgen Structure or ComputedStructureEntry")
    described = entry.get("structure", entry)
    try:
        atoms = accepted(from_pymatgen(Structure.from_dict(described)))
    except BrokenError as error:
        return Broken(file=file, line=1, reason=f"{where}: {error.reason}")
    except Exception as error:  # noqa: BLE001  # pymatgen lets any error through that a broken description causes
        return Broken(file=file, line=1, reason=f"{where}: {type(error).__name__}: {error}"[:200])
    energy = entry.get("energy") if "structure" in entry else None
    if isinstance(energy, int | float):
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
    return Frame(atoms=atoms, file=file, number=number, name=str(entry.get("entry_id") or ""))
