"""Writing of structures to files of common formats, chosen by the file extension."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import stat
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import ase.io
import numpy as np
from ase import Atoms

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.utils.files import atomic_folder, atomic_write, is_stream, make_folder
from hybridcsp.utils.text import printable_line

#: CIF items by their keys in ``atoms.info``; other keys become ``_hybridcsp_KEY``, with the unit of an enthalpy.
CIF_ITEMS = {
    "rank": "_hybridcsp_rank",
    "energy": "_hybridcsp_energy_ev",
    "enthalpy": "_hybridcsp_enthalpy_ev",
    "spacegroup": "_hybridcsp_space_group_number",
}

_COMPRESSIONS: Mapping[str, Callable[[IO[bytes]], AbstractContextManager[Any]]] = {
    ".gz": lambda file: gzip.GzipFile("", "wb", fileobj=file, mtime=0),  # without name and time, for reproducible files
    ".bz2": partial(bz2.BZ2File, mode="wb"),
    ".xz": partial(lzma.LZMAFile, mode="wb"),
}


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A format of structure files.

    Attributes
    ----------
    name
        The name for ``--format``.
    endings
        File extensions, the usual one first.
    text
        A function that returns a structure in this format, given its number in the file (from 1) and whether a CIF
        contains symmetry operations.
    opening, between, closing
        Text before, between and after the structures of a file.
    single
        Whether a file contains only one structure.
    """

    name: str
    endings: tuple[str, ...]
    text: Callable[[Atoms, int, bool], str]
    opening: str = ""
    between: str = ""
    closing: str = ""
    single: bool = False


def format_of(output: Path | str, name: str | None = None, *, key: str = "output") -> FileFormat:
    """Return the format of a file, by name or by the file extension.

    Parameters
    ----------
    output
        The file or folder.
    name
        A key of :data:`FILE_FORMATS`; ``None`` to use the file extension.
    key
        The name of the option for error messages.

    Raises
    ------
    InputError
        If the extension is unknown, or belongs to a format other than the named one.
    """
    if name is not None and name not in FILE_FORMATS:
        raise UnknownNameError("format", name, FILE_FORMATS)
    chosen = None if name is None else FILE_FORMATS[name]
    if _is_folder(output) or _is_special(Path(output)):
        return chosen or FILE_FORMATS["extxyz"]
    stem, _ = _uncompressed(Path(output).name)
    by_name = next((one for one in FILE_FORMATS.values() if _has_name_of(stem, one)), None)
    ending = re.search(r"\.[^\W\d]\w*$", stem)
    if by_name is not None and chosen in (None, by_name):
        return by_name
    if by_name is not None and chosen is not None:
        raise InputError(key, output, f"a file name for {chosen.name}, such as {_example(stem, chosen)}")
    if chosen is None or ending is not None:
        known = [chosen] if chosen is not None else FILE_FORMATS.values()
        endings = ", ".join(ending for one in known for ending in one.endings)
        raise InputError(key, output, f"a file name with a known extension: {endings} (each may be followed by .gz)")
    return chosen


@contextmanager
def structure_writer(
    output: Path | str, format: str | None = None, *, symmetric: bool = False, key: str = "output", follow: bool = True
) -> Iterator[Callable[[Atoms], Path]]:
    """Open a file for structures, or a folder with one file for each structure.

    Parameters
    ----------
    output
        The file, which may be compressed (``.gz``, ``.bz2``, ``.xz``), or a folder: an existing one, a name that ends
        with a slash, or a name without extension if a file of the format contains only one structure.
    format
        A key of :data:`FILE_FORMATS`; by default given by the file extension.
    symmetric
        Whether a CIF contains the standard cell with its symmetry operations instead of all atoms.
    key
        The name of the option for error messages.
    follow
        Whether a symbolic link is followed: see :func:`hybridcsp.utils.files.atomic_write`.

    Yields
    ------
    callable
        A function that writes one structure with its energy and the annotations in ``atoms.info``, and returns the path
        of its file. Files appear when the block ends, and not at all if it raises an error.

    Raises
    ------
    InputError
        If the extension is wrong, or the files cannot be written.
    """
    chosen = format_of(output, format, key=key)
    output, folder_named = Path(output), _is_folder(output)
    if folder_named or (chosen.single and not _has_name_of(output.name, chosen) and not _is_special(output)):
        with atomic_folder(output, key=key) as folder:
            yield _Folder(folder, output, chosen, symmetric).add
        return
    if not is_stream(output):
        make_folder(output.parent, key=key)
    with ExitStack() as stack:
        stream: IO[Any]
        _, compression = _uncompressed(output.name)
        if compression is None:
            stream = stack.enter_context(atomic_write(output, key=key, follow=follow))
        else:
            raw = stack.enter_context(atomic_write(output, "wb", key=key, follow=follow))
            packed = stack.enter_context(_COMPRESSIONS[compression](raw))
            stream = stack.enter_context(io.TextIOWrapper(packed, "utf-8", "backslashreplace", "\n"))
        writer = _File(stream, output, chosen, symmetric, key)
        stream.write(chosen.opening)
        yield writer.add
        stream.write(chosen.closing)


def labelled(atoms: Atoms) -> tuple[str, dict[str, Any]]:
    """Return the reduced formula of a structure, and its annotations with its energy in eV if it has one."""
    formula = to_pymatgen(atoms).composition.reduced_formula
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in atoms.info.items()}
    known = {_key(key): _safe(value) for key, value in plain.items() if isinstance(value, str | int | float)}
    if atoms.calc is not None and "energy" in atoms.calc.results:
        known["energy"] = float(atoms.calc.results["energy"])
    return re.sub(r"[^A-Za-z0-9]", "", formula), known


class _File:
    """Writer of structures to one open file."""

    def __init__(self, stream: IO[str], path: Path, format: FileFormat, symmetric: bool, key: str) -> None:
        self._stream, self._path, self._format, self._symmetric, self._key = stream, path, format, symmetric, key
        self._number = 0

    def add(self, atoms: Atoms) -> Path:
        if self._number and self._format.single:
            folder = f"{str(self._path).removesuffix(self._path.suffix)}/"
            allowed = f"a folder ({folder}) for several structures, since a {self._format.name} file contains one"
            raise InputError(self._key, self._path, allowed)
        self._stream.write(self._format.between if self._number else "")
        self._number += 1
        self._stream.write(self._format.text(atoms, self._number, self._symmetric))
        return self._path


class _Folder:
    """Writer of structures to one file each, named after rank, formula and space group."""

    def __init__(self, folder: Path, final: Path, format: FileFormat, symmetric: bool) -> None:
        self._folder, self._final, self._format, self._symmetric = folder, final, format, symmetric
        self._number = 0

    def add(self, atoms: Atoms) -> Path:
        self._number += 1
        formula, known = labelled(atoms)
        group = known.get("spacegroup")
        parts = [f"{known.get('rank', self._number):04}", formula[:60], *([] if group is None else [f"sg{group}"])]
        name = "_".join(parts) + self._format.endings[0]
        text = self._format.opening + self._format.text(atoms, 1, self._symmetric) + self._format.closing
        (self._folder / name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        return self._final / name


def extxyz_text(atoms: Atoms) -> str:
    """Return one frame of an extended XYZ file, with the annotations in ``atoms.info`` in a form that is read back."""
    written = atoms.copy()
    written.info = {_extxyz_key(key, value): _safe(value) for key, value in atoms.info.items()}
    written.calc = atoms.calc
    text = io.StringIO()
    ase.io.write(text, written, format="extxyz")
    return text.getvalue()


def _extxyz(atoms: Atoms, number: int, symmetric: bool) -> str:
    return extxyz_text(atoms)


def _extxyz_key(key: object, value: Any) -> str:
    """Return the name of an annotation, another one if the format gives it a meaning that the value does not have."""
    name = _key(key)
    reserved = name.lower() in ("", "lattice", "properties", "pbc") or (
        name in ("stress", "virial") and np.shape(value) not in ((3, 3), (6,))
    )
    return f"property_{name}" if reserved else name


def _cif(atoms: Atoms, number: int, symmetric: bool) -> str:
    from pymatgen.io.cif import CifWriter

    # With a tolerance, pymatgen writes the standard cell with symmetry operations; without one, the given cell in P1.
    block = str(CifWriter(to_pymatgen(atoms), symprec=0.01 if symmetric else None))
    _, _, body = block.partition("data_")
    _, _, items = body.partition("\n")
    formula, known = labelled(atoms)
    name = f"rank{known['rank']}" if "rank" in known else f"structure{number}"
    own = "".join(f"{_cif_item(key)}  {_cif_value(known[key])}\n" for key in known)
    return f"data_{name}_{formula[:60]}\n{own}{items.rstrip()}\n\n"


def _cif_item(key: str) -> str:
    return CIF_ITEMS.get(key, f"_hybridcsp_{key.replace('enthalpy_per_atom', 'enthalpy_ev_per_atom')}")


def _cif_value(value: float | str) -> str:
    """Return a number or text as a CIF value, in ASCII and with at most 2048 characters on a line."""
    if not isinstance(value, str):
        return f"{value:.10g}" if isinstance(value, float) else str(int(value))
    text = textwrap.shorten(value, 1000).encode("ascii", "backslashreplace").decode()
    quote = next((mark for mark in "'\"" if mark not in text), None)
    return f"\n;{text}\n;" if quote is None else f"{quote}{text}{quote}"


def _poscar(atoms: Atoms, number: int, symmetric: bool) -> str:
    from pymatgen.io.vasp import Poscar

    title = " ".join([str(atoms.symbols), *(f"{key}={value}" for key, value in labelled(atoms)[1].items())])
    poscar = Poscar(to_pymatgen(atoms), comment=title[:200], sort_structure=True)
    return str(poscar.get_str(significant_figures=16))


def _res(atoms: Atoms, number: int, symmetric: bool) -> str:
    from pymatgen.io.res import ResWriter

    formula, known = labelled(atoms)
    structure = to_pymatgen(atoms)
    enthalpy = known["enthalpy_per_atom"] * len(atoms) if "enthalpy_per_atom" in known else known.get("enthalpy")
    if enthalpy is None:
        return f"{ResWriter(structure)}\n"
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    remarks = [f"{key} {value}"[:200] for key, value in known.items()]
    seed = f"{formula}-hybridcsp-{known.get('rank', number)}"
    return f"{ResWriter(ComputedStructureEntry(structure, enthalpy, data={'seed': seed, 'rems': remarks}))}\n"


def _json(atoms: Atoms, number: int, symmetric: bool) -> str:
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    formula, known = labelled(atoms)
    structure = to_pymatgen(atoms)
    if "energy" not in known:
        return json.dumps(structure.as_dict())
    name = str(known.get("candidate", known.get("id", f"{formula}-{number}")))
    entry = ComputedStructureEntry(structure, known["energy"], data=known, entry_id=name)
    return json.dumps(entry.as_dict())


def _safe(value: Any) -> Any:
    return printable_line(value) if isinstance(value, str) else value


def _key(key: object) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", str(key))


#: Formats by name.
FILE_FORMATS: Mapping[str, FileFormat] = {
    one.name: one
    for one in (
        FileFormat(name="extxyz", endings=(".extxyz", ".xyz"), text=_extxyz),
        FileFormat(name="cif", endings=(".cif",), text=_cif),
        FileFormat(name="poscar", endings=(".vasp", ".poscar"), text=_poscar, single=True),
        FileFormat(name="res", endings=(".res",), text=_res),
        FileFormat(name="json", endings=(".json",), text=_json, opening="[\n", between=",\n", closing="\n]\n"),
    )
}


def _uncompressed(name: str) -> tuple[str, str | None]:
    """Split a file name into the name without the extension of a compression, and that extension."""
    ending = next((ending for ending in _COMPRESSIONS if name.lower().endswith(ending)), None)
    return (name, None) if ending is None else (name[: -len(ending)], ending)


def _has_name_of(name: str, format: FileFormat) -> bool:
    named = format.single and re.match(r"(POSCAR|CONTCAR)(?![A-Za-z])", name, re.IGNORECASE)
    return bool(named) or _uncompressed(name)[0].lower().endswith(format.endings)


def _example(name: str, format: FileFormat) -> str:
    return f"{Path(name).stem}{format.endings[0]}"


def _is_folder(output: Path | str) -> bool:
    return str(output).endswith("/") or Path(output).is_dir()


def _is_special(output: Path) -> bool:
    """Return whether a path is not a regular file or folder: a FIFO, a device or the standard output."""
    try:
        mode = output.stat().st_mode
    except (OSError, ValueError):
        return is_stream(output)
    return is_stream(output) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
