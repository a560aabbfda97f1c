"""Formats that are read with ASE: those of which its readers only parse text.

ASE has readers that unpickle, that import or start the program of a file, that write beside it, or that follow names of
other files. So a file is not given to whatever ASE takes it for, but only to one of those listed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype

from hybridcsp.errors import UnreadableError
from hybridcsp.io.construction import checked
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.utils.reading import open_regular, plain_copy

#: ASE's names of the formats, and what people call them.
FORMATS = {
    "aims": "FHI-aims geometry.in",
    "cfg": "AtomEye",
    "espresso-in": "Quantum ESPRESSO input",
    "espresso-out": "Quantum ESPRESSO output",
    "gen": "DFTB+",
    "magres": "Magres",
    "rmc6f": "RMCProfile",
    "siesta-xv": "SIESTA .XV",
    "vasp-out": "VASP OUTCAR",
    "vasp-xdatcar": "VASP XDATCAR",
    "vasp-xml": "VASP vasprun.xml",
    "xsf": "XCrySDen",
}

#: Names of files in a folder that are taken for such: others there are a code's input or output, or something else.
_NAMES = (".gen", ".pwi", ".pwo", ".xsf", "OUTCAR", "vasprun.xml")

_PICKLES = (".pckl", ".pkl", ".pickle")

#: Larger files (in bytes) are not read: most of these readers take all of a file into memory.
_LARGEST = 64 << 20


def is_named_for_ase(file: Path) -> bool:
    """Whether the name of a file in a folder is that of a structure file that ASE reads."""
    return file.suffix.lower() in _NAMES or file.name in _NAMES


def read_with_ase(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a file in one of :data:`FORMATS`, which it is by its name or by its content.

    Raises
    ------
    UnreadableError
        If it is of another format, or too large.
    Exception
        Whatever ASE's readers raise, which may be anything.
    """
    if file.suffix.lower() in _PICKLES:
        raise UnreadableError(file, "not readable: pickles can run code and are never read; write extxyz instead")
    with plain_copy(file) as plain:
        with open_regular(plain) as stream:
            size = stream.seek(0, 2)
        if size == 0:
            return
        if size > _LARGEST:
            raise UnreadableError(file, f"not readable: more than {_LARGEST >> 20} MiB; extended XYZ may be longer")
        for number, atoms in enumerate(_frames(plain, _format(plain, file))):
            try:
                yield Frame(atoms=checked(atoms), file=file, number=number)
            except StructureError as error:
                yield ReadFailure(file=file, line=1, reason=f"structure {number + 1}: {error.reason}")


def _format(plain: Path, file: Path) -> str:
    # The absolute path, so that no name can be taken for a database server's address.
    try:
        found = filetype(str(plain.absolute()))
    except (UnknownFileTypeError, OSError, ValueError, UnicodeError):
        found = ""
    if found not in FORMATS:
        known = ", ".join(FORMATS.values())
        raise UnreadableError(
            file,
            f"not readable: not a format that is read by this name. CIF, POSCAR, extended XYZ, ASE's databases and "
            f"trajectories, pymatgen's JSON and tables of CIFs are; so are {known}",
        )
    return str(found)


def _frames(plain: Path, format: str) -> Iterator[Any]:
    frames = iread(str(plain.absolute()), index=":", format=format, do_not_split_by_at_sign=True)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = next(frames, None)
        if atoms is None:
            return
        yield atoms
