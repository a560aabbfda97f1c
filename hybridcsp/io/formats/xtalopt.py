"""Format of XtalOpt: results in ``structure.state`` files, and seeds for ``seedStructures`` in its input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units

from hybridcsp.errors import InputError
from hybridcsp.io.construction import build_crystal
from hybridcsp.io.formats.base import Generational, Record, SeedSettings
from hybridcsp.io.frames import ReadFailure, StructureError
from hybridcsp.io.poscar import write_poscar
from hybridcsp.io.text_files import finite, parse_count, parse_float
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_text

_STATE = "structure.state"

#: Values of ``Structure::State`` in XtalOpt's structure.h, which its versions share.
_OPTIMIZED, _FAILED, _REMOVED, _RESTART = 0, 8, 9, 10
_DISMISSED, _OBJECTIVE_FAILED, _CONSTRAINT_FAILED = 14, 15, 16


class XtalOpt(Generational):
    """The files of XtalOpt."""

    name = "xtalopt"

    def recognises(self, path: Path) -> bool:
        """Return whether this is a folder that XtalOpt works in, or one of its state files."""
        return bool(_states(path)) if path.is_dir() else path.name == _STATE

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield the structures that XtalOpt has finished, generation by generation."""
        for file in [path] if path.is_file() else _states(path):
            try:
                record = _record(file)
            except StructureError as error:
                yield ReadFailure(file=file, line=error.offset, reason=error.reason)
                continue
            if record is not None:
                yield record

    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write ``seeds/<n>.POSCAR``, and ``seeds/seedStructures`` with the line for the input that names them."""
        # XtalOpt detects formats by content, or else by name, so the files are POSCARs by name too.
        files = []
        make_folder(path / "seeds", key="output")
        for n, record in enumerate(records, start=1):
            file = path / "seeds" / f"{n:05d}.POSCAR"
            title = f"{record.atoms.get_chemical_formula('reduce')} hybridcsp {record.id}".rstrip()
            with atomic_write(file) as stream:
                stream.write(write_poscar(record.atoms, title, settings.elements))
            files.append(file)
        if not files:
            raise InputError("structures", 0, reason="there is no structure to write")
        line = "seedStructures = " + ", ".join(str(file.resolve()) for file in files)
        with atomic_write(path / "seeds" / "seedStructures") as stream:
            stream.write(f"{line}\n")
        return (
            f"{len(files)} seeds in {path / 'seeds'}. XtalOpt (13 and later, without its window) reads them when it "
            f"starts: put the line in {path / 'seeds' / 'seedStructures'} into xtalopt.in. With its "
            f"window, add them on the search tab."
        )

    def finished_generations(self, path: Path) -> int:
        """Return the last generation that is complete, with all before it, while a later one exists."""
        done: dict[int, bool] = {}
        for file in _states(path):
            values = _values(file)
            generation = parse_count(values.get("generation")) or 0
            done[generation] = done.get(generation, True) and _is_done(values)
        ended = 0
        for generation in sorted(done)[:-1]:
            if not done[generation]:
                break
            ended = generation
        return ended


def _states(path: Path) -> list[Path]:
    if (path / _STATE).is_file():
        return [path / _STATE]
    named = [
        (int(tag.group(1)), int(tag.group(2)), folder / _STATE)
        for folder in path.iterdir()
        if (tag := re.fullmatch(r"(\d+)x(\d+)", folder.name)) and (folder / _STATE).is_file()
    ]
    return [file for *_, file in sorted(named)]


def _values(file: Path) -> dict[str, str]:
    r"""Read ``key=value`` lines; keys contain the groups of arrays, as in ``current\coords\1\x``."""
    found = {}
    for line in read_text(file).splitlines():
        key, equals, value = line.strip().partition("=")
        if equals:
            found[key] = value.strip('"')
    return found


def _status(values: dict[str, str]) -> int:
    status = parse_count(values.get("status"))
    return -1 if status is None else status


def _is_done(values: dict[str, str]) -> bool:
    return _outcome(values) is not None


def _outcome(values: dict[str, str]) -> str | None:
    """Return why a structure failed, an empty text if it succeeded, or ``None`` while it is being relaxed."""
    status, version = _status(values), parse_count(values.get("version")) or 1
    if status == _OPTIMIZED or (status == _RESTART and version < 5):  # 10 meant "duplicate" before version 5
        return ""
    if status == _FAILED:
        return "failed"
    if status in (_REMOVED, _DISMISSED, _OBJECTIVE_FAILED, _CONSTRAINT_FAILED):
        return "removed or dismissed"
    return None


def _record(file: Path) -> Record | None:
    values = _values(file)
    generation, number = parse_count(values.get("generation")), parse_count(values.get("id"))
    if generation is None or number is None:
        raise StructureError(1, "generation or id is missing: the file is cut off, or is not a state file of XtalOpt")
    if values.get("saveSuccessful", "true") != "true":
        raise StructureError(
            1, "XtalOpt was stopped while it wrote this file (saveSuccessful is not true), so it is incomplete"
        )
    failure = _outcome(values)
    if failure is None:
        return None
    atoms, energy, enthalpy = _current(values) if r"current\coords\size" in values else _last(values)
    pressure = None
    if enthalpy is None:
        enthalpy = energy  # XtalOpt: no enthalpy means zero pressure
    if energy is not None and enthalpy is not None:
        pressure = round((enthalpy - energy) / atoms.get_volume() / units.GPa, 6) + 0.0
    parents = values.get("parents", "")
    return Record(
        atoms=atoms,
        energy=None if failure else energy,
        enthalpy=None if failure else enthalpy,
        pressure_gpa=pressure,
        id=f"{generation}x{number}",
        origin=re.split(r"[:(]", parents)[0].strip(),
        generation=generation,
        failure=failure,
        file=file,
        line=1,
    )


def _current(values: dict[str, str]) -> tuple[Atoms, float | None, float | None]:
    atoms = _geometry(values, r"current\atomicNums", r"current\coords", r"current\cell")
    enthalpy = _float(values, r"current\enthalpy") if values.get(r"current\hasEnthalpy") == "true" else None
    return atoms, _float(values, r"current\energy"), enthalpy


def _last(values: dict[str, str]) -> tuple[Atoms, float | None, float | None]:
    """Return the last entry of the history, which is all that versions before 4 kept."""
    n = parse_count(values.get(r"history\atomicNums\size"))
    if not n:
        raise StructureError(1, "the file contains neither a current structure nor a history")
    atoms = _geometry(
        values,
        rf"history\atomicNums\{n}\atomicNums-{n - 1}",
        rf"history\coords\{n}\coords-{n - 1}",
        rf"history\cells\{n}",
    )
    enthalpy = _float(values, rf"history\enthalpies\{n}\value")
    return atoms, _float(values, rf"history\energies\{n}\value"), enthalpy or None


def _geometry(values: dict[str, str], numbers: str, coords: str, cell: str) -> Atoms:
    try:
        n = parse_count(values[rf"{numbers}\size"]) or 0
        species = np.array([int(values[rf"{numbers}\{i}\value"]) for i in range(1, n + 1)])
        places = np.array([[float(values[rf"{coords}\{i}\{x}"]) for x in "xyz"] for i in range(1, n + 1)])
        lattice = np.array([[float(values[rf"{cell}\{i}{j}"]) for j in range(3)] for i in range(3)])
    except KeyError as error:
        raise StructureError(1, f"{error.args[0]} is missing: the file is cut off") from None
    except ValueError as error:
        raise StructureError(1, str(error)) from None
    if n == 0 or not ((species > 0) & (species < 119)).all():
        raise StructureError(1, "there are no atoms, or their atomic numbers are not from 1 to 118")
    try:
        return build_crystal(species, places, lattice)
    except StructureError as error:
        raise StructureError(1, error.reason) from error


def _float(values: dict[str, str], key: str) -> float | None:
    """Return the number of a key, or ``None`` if the key does not occur.

    Raises
    ------
    StructureError
        If the value is not a finite number.
    """
    if key not in values:
        return None
    value = finite(parse_float(values[key]))
    if value is None:
        raise StructureError(1, f"{key} is {values[key][:20]!r}, not a number")
    return value
