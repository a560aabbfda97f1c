"""Reading of structure files with ASE, limited to formats whose readers only parse text.

Other readers of ASE unpickle data, import or run programs that a file names, write next to it, or open other files.
Files are therefore passed only to the readers of the formats listed here.
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

#: Names of the formats in ASE, and their usual names.
ASE_FORMATS = {
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

#: Extensions and names of the files that are read from a folder; others may be input or output of any program.
_NAMES = (".gen", ".pwi", ".pwo", ".xsf", "OUTCAR", "vasprun.xml")

_PICKLES = (".pckl", ".pkl", ".pickle")

#: Extensions of files of PyTorch, which are pickles, too.
_TORCH_FILES = (".pt", ".pth", ".ckpt")

#: Maximum size of a file in bytes; most of these readers load the whole file into memory.
_MAX_SIZE = 64 << 20


def is_named_for_ase(file: Path) -> bool:
    """Return whether a file in a folder has the name of a structure file that ASE reads."""
    return file.suffix.lower() in _NAMES or file.name in _NAMES


def read_with_ase(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a file in one of :data:`ASE_FORMATS`, recognised by name or content.

    Raises
    ------
    UnreadableError
        If the file has another format or is too large.
    Exception
        ASE's readers may raise any exception for damaged files.
    """
    if file.suffix.lower() in _PICKLES:
        raise UnreadableError(
            file, "not readable: pickles can run code and are never read; write the structures as extended XYZ instead"
        )
    if file.suffix.lower() in _TORCH_FILES:
        raise UnreadableError(
            file,
            "not readable: files of PyTorch are pickles, which can run code and are never read; convert it to extended "
            "XYZ where it was written, with examples/external/diffcsp_to_extxyz.py for results of DiffCSP",
        )
    with plain_copy(file) as plain:
        with open_regular(plain) as stream:
            size = stream.seek(0, 2)
        if size == 0:
            return
        if size > _MAX_SIZE:
            raise UnreadableError(
                file, f"not readable: larger than {_MAX_SIZE >> 20} MiB; convert it to extended XYZ, which has no limit"
            )
        for number, atoms in enumerate(_frames(plain, _format(plain, file))):
            try:
                yield Frame(atoms=checked(atoms), file=file, number=number)
            except StructureError as error:
                yield ReadFailure(file=file, line=1, reason=f"structure {number + 1}: {error.reason}")


def _format(plain: Path, file: Path) -> str:
    # An absolute path, so that ASE cannot interpret the name as the address of a database server.
    try:
        found = filetype(str(plain.absolute()))
    except (UnknownFileTypeError, OSError, ValueError, UnicodeError):
        found = ""
    if found not in ASE_FORMATS:
        known = ", ".join(ASE_FORMATS.values())
        raise UnreadableError(
            file,
            f"not readable: the format is unknown or does not match the name. CIF, POSCAR, extended XYZ, ASE databases "
            f"and trajectories, pymatgen's JSON and tables of CIFs are read; so are {known}",
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
