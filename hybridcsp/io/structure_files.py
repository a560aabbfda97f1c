"""Reading of structure files of users: CIF, POSCAR, extended XYZ, databases, zip archives and tables.

Seeds, imported structures, templates, targets and training data are all read by :func:`read_structures`, which checks
every structure with :func:`hybridcsp.io.construction.check_crystal`. Pickles are never read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from hybridcsp.errors import UnreadableError
from hybridcsp.io.ase_databases import read_database
from hybridcsp.io.ase_formats import is_named_for_ase, read_with_ase
from hybridcsp.io.ase_trajectories import read_trajectory
from hybridcsp.io.cif import read_cif
from hybridcsp.io.extxyz import read_extxyz
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.generated_files import without_copies
from hybridcsp.io.json_structures import read_json_structures
from hybridcsp.io.poscar import read_poscars
from hybridcsp.io.relaxation_folders import RELAXED, is_relaxation, is_without_crystals, why_without_crystals
from hybridcsp.io.res import read_res
from hybridcsp.io.tables import read_table
from hybridcsp.io.text_files import Lines
from hybridcsp.io.zip_archives import members

#: End of the name of the card of a data set.
CARD = ".card.json"

_Reader = Callable[[Path], Iterator[Frame | ReadFailure]]


def structure_files(path: Path) -> list[Path]:
    """Return the path of a file, or those of a folder's structure files sorted by name.

    The folder of a relaxation of a data set stands for the file of its converged crystals. Of other folders, hidden
    files, subfolders, the cards of data sets, and files whose structures another file of the folder holds as well are
    omitted.

    Raises
    ------
    UnreadableError
        If the folder cannot be read.
    """
    try:
        if not path.is_dir():
            return [path]
        if is_relaxation(path):
            return [path / RELAXED]
        files = sorted(
            entry
            for entry in path.iterdir()
            if entry.is_file() and not entry.name.startswith(".") and not entry.name.endswith(CARD)
        )
    except OSError as error:
        raise UnreadableError(path, f"the folder cannot be read ({error.strerror})") from error
    return without_copies([file for file in files if is_structure_file(file)])


def is_structure_file(file: Path) -> bool:
    """Return whether a file has the name of a structure file."""
    return _reader(file) is not None or is_named_for_ase(file)


def read_structures(path: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a file or folder one at a time.

    Parameters
    ----------
    path
        A structure file, which may be compressed; a zip archive of structure files; a table (``.csv``,
        :func:`~hybridcsp.io.tables.read_table`); or a folder, whose structure files (:func:`structure_files`) are read
        in order of their names, without copies (:func:`~hybridcsp.io.generated_files.without_copies`).
        Formats without a reader of our own are read with ASE if they are in
        :data:`~hybridcsp.io.ase_formats.ASE_FORMATS`.

    Yields
    ------
    Frame or ReadFailure
        A structure, or the reason why a part of a file cannot be read or is not a valid structure.
    """
    for file in structure_files(path):
        nothing = True
        try:
            for found in (_reader(file) or read_with_ase)(file):
                nothing = False
                yield found
        except UnreadableError as error:
            yield ReadFailure(file=error.file, line=error.line, reason=error.reason)
        except Exception as error:  # noqa: BLE001  # readers of libraries raise any exception for damaged files
            yield ReadFailure(file=file, line=1, reason=f"not readable: {type(error).__name__}: {error}"[:300])
        else:
            if nothing:
                reason = why_without_crystals(file) if is_without_crystals(file) else "it contains no structure"
                yield ReadFailure(file=file, line=1, reason=reason)


def _reader(file: Path) -> _Reader | None:
    """Return the reader for the name of a file; ``None`` if ASE is to recognise the format."""
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower())
    if name.endswith((".extxyz", ".xyz")):
        return read_extxyz
    if name.endswith((".cif", ".mcif")):
        return _read_cif_file
    if name.endswith(".csv"):
        return read_table
    if name.endswith(".json"):
        return read_json_structures
    if name.endswith(".res"):
        return read_res
    if name.endswith(".db"):
        return read_database
    if name.endswith(".traj"):
        return read_trajectory
    if name.endswith(".zip"):
        return _read_archive
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _read_poscar_file
    return None


def _read_cif_file(file: Path) -> Iterator[Frame | ReadFailure]:
    with Lines(file) as lines:
        for number, found in enumerate(read_cif(lines)):
            if isinstance(found, tuple):
                line, reason = found
                yield ReadFailure(file=file, line=line, reason=reason)
            else:
                yield Frame(atoms=found.atoms, file=file, number=number, line=found.line, name=found.name)


def _read_poscar_file(file: Path) -> Iterator[Frame | ReadFailure]:
    for number, block in enumerate(read_poscars(file)):
        if isinstance(block, ReadFailure):
            yield block
        else:
            name = f"{file.name}-{number + 1}"
            yield Frame(atoms=block.atoms, file=file, number=number, line=block.line, name=name)


def _read_archive(file: Path) -> Iterator[Frame | ReadFailure]:
    for name, member in members(file):
        if isinstance(member, UnreadableError):
            yield ReadFailure(file=member.file, line=1, reason=member.reason)
        else:
            for found in read_structures(member):
                yield replace(found, file=file / name)
