"""Files of structures that a person brings: whatever ASE reads, archives and tables of CIFs, but never a pickle."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ase import Atoms
from ase.io import iread, read
from ase.io.formats import get_compression, open_with_compression

from hybridcsp.structure import is_finite_crystal

_PICKLES = (".pckl", ".pkl", ".pickle")

#: Columns of a table in which a CIF is looked for.
_CIF_COLUMNS = ("cif", "structure", "cif_string")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One structure of a file, or why there is none.

    Attributes
    ----------
    file, number
        Where it is; frames are counted from 0, rows of a table too.
    atoms
        As read; ``None`` where that failed.
    error
        What went wrong; then ``number`` is that of the first frame that is lost.
    """

    file: str
    number: int
    atoms: Atoms | None = None
    error: str = ""


def structure_files(path: Path) -> list[Path]:
    """Return the file itself, or a folder's files by name: not hidden ones, nor those of folders inside."""
    if not path.is_dir():
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))


def stream_frames(path: Path) -> Iterator[Frame]:
    """Yield the structures of a file or folder one after the other, without holding them all.

    A zip archive gives the structures of the files in it, a table (.csv, it may be compressed) those in its column of
    CIFs; everything else is left to ASE. What cannot be read becomes a frame with an error, not an exception.
    """
    for file in structure_files(path):
        number = 0
        try:
            for frame in _of_file(file):
                yield frame
                number = frame.number + 1
        except Exception as error:  # noqa: BLE001  # ASE's readers let any error through that a broken file causes
            yield Frame(file=str(file), number=number, error=f"not readable: {type(error).__name__}: {error}")
        else:
            if number == 0:
                yield Frame(file=str(file), number=0, error="holds no structure")


def read_frames(file: Path) -> list[Atoms]:
    """Read all frames of a file that ASE reads; it may be compressed (.gz, .bz2, .xz).

    Raises
    ------
    ValueError
        If it is a pickle by its name: pickles can run code.
    Exception
        Whatever ASE's readers raise, which may be anything.
    """
    return list(_frames_of_ase(file))


NO_CRYSTAL = "not a crystal: periodic in three directions, atoms, finite numbers, a volume"


def against(atoms: Atoms) -> str | None:
    """Say what keeps a structure from being a crystal of which every site is one element; ``None`` if nothing does."""
    if not is_finite_crystal(atoms):
        return NO_CRYSTAL
    return "partly occupied sites" if is_partly_occupied(atoms) else None


def is_partly_occupied(atoms: Atoms) -> bool:
    """Whether a site holds more than one element, or one with an occupancy below 1."""
    return any(len(site) > 1 or not all(map(_is_full, site.values())) for site in _occupancies(atoms))


def _is_full(occupancy: object) -> bool:
    return isinstance(occupancy, int | float) and occupancy >= 1  # a text is what ASE makes of damage


def _of_file(file: Path) -> Iterator[Frame]:
    names = [suffix.lower() for suffix in file.suffixes]
    if names[-1:] == [".zip"]:
        yield from _of_archive(file)
    elif ".csv" in names[-2:]:
        yield from _of_table(file)
    else:
        for number, atoms in enumerate(_frames_of_ase(file)):
            yield Frame(file=str(file), number=number, atoms=atoms)


def _of_archive(file: Path) -> Iterator[Frame]:
    with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
        for member in sorted(archive.infolist(), key=lambda info: info.filename):
            name = PurePosixPath(member.filename).name
            if member.is_dir() or name.startswith(".") or member.filename.startswith("__MACOSX/"):
                continue
            # Under its last name only: a path in an archive may lead anywhere.
            plain = Path(folder) / name
            with archive.open(member) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
            for frame in stream_frames(plain):
                where = f"{file}/{member.filename}"
                yield Frame(file=where, number=frame.number, atoms=frame.atoms, error=frame.error)
            plain.unlink()


def _of_table(file: Path) -> Iterator[Frame]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_with_compression(str(file), "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
        rows = csv.DictReader(text)
        columns = [name for name in rows.fieldnames or () if name.strip().lower() in _CIF_COLUMNS]
        if not columns:
            raise ValueError(f"a column named {' or '.join(_CIF_COLUMNS)} is needed")
        for number, row in enumerate(rows):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    atoms = read(io.StringIO(row[columns[0]] or ""), format="cif")
            except Exception as error:  # noqa: BLE001  # as above
                yield Frame(file=str(file), number=number, error=f"not a CIF: {type(error).__name__}: {error}")
            else:
                yield Frame(file=str(file), number=number, atoms=atoms)


def _frames_of_ase(file: Path) -> Iterator[Atoms]:
    if get_compression(str(file))[1]:
        # ASE would read it in place, but seeks back for each frame: quadratic in their number.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / file.stem
            with open_with_compression(str(file), "rb") as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
            yield from _frames_of_ase(plain)
            return
    if file.suffix.lower() in _PICKLES:
        raise ValueError("pickles can run code and are never read; write extxyz instead")
    if file.stat().st_size == 0:
        return
    # The absolute path, so that no name can be taken for a database server's address.
    frames = iread(str(file.resolve()), index=":", do_not_split_by_at_sign=True)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = next(frames, None)
        if atoms is None:
            return
        yield atoms


def _occupancies(atoms: Atoms) -> list[dict[Any, float]]:
    """Occupancies by element of each site, as ASE's CIF reader leaves them."""
    sites = atoms.info.get("occupancy")
    return [site for site in sites.values() if isinstance(site, dict)] if isinstance(sites, dict) else []
