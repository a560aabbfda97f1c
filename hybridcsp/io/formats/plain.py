"""Format of plain structure files, which belong to no search code.

All files that :func:`hybridcsp.io.structure_files.read_structures` reads are supported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.errors import InputError
from hybridcsp.io.formats.base import Format, Record, SeedSettings
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import is_structure_file, read_structures, structure_files
from hybridcsp.io.structure_writer import structure_writer
from hybridcsp.io.text_files import finite


class Plain(Format):
    """Structure files; an invalid frame does not affect the others."""

    name = "plain"

    def recognises(self, path: Path) -> bool:
        """Return whether this is a structure file by its name, or a folder that contains one."""
        return any(is_structure_file(file) for file in structure_files(path))

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield the structures of a file, or of all structure files in a folder in order of their names."""
        for found in read_structures(path):
            yield found if isinstance(found, ReadFailure) else record_of(found)

    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write structures with their energies and annotations, in the format given by the file extension."""
        n = 0
        with structure_writer(path) as write:
            for record in records:
                n += 1
                write(as_atoms(record))
            if n == 0:
                raise InputError("structures", 0, reason="there is no structure to write")
        return f"{n} structures in {path}."


def record_of(frame: Frame) -> Record:
    """Convert a frame to a record; energies, origin and generation are taken from its annotations."""
    atoms, info = frame.atoms, frame.atoms.info
    energy = None if atoms.calc is None else _number(atoms.calc.results.get("energy"))
    enthalpy = _number(info.get("enthalpy"))
    if enthalpy is None and (per_atom := _number(info.get("enthalpy_per_atom"))) is not None:
        enthalpy = per_atom * len(atoms)
    generation = _number(info.get("generation"))
    default = frame.name or f"{frame.file.stem}-{frame.number + 1}"
    return Record(
        atoms=Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True),
        energy=energy,
        enthalpy=enthalpy,
        pressure_gpa=_number(info.get("pressure_gpa")),
        id=str(info.get("id", info.get("candidate", default))),
        origin=str(info.get("origin", info.get("operator", ""))),
        generation=None if generation is None else int(generation),
        calculator=str(info.get("calculator", "")),
        failure=str(info.get("failure", "")),
        file=frame.file,
        line=frame.line,
    )


def as_atoms(record: Record) -> Atoms:
    """Convert a record to ``Atoms`` with its energy in a calculator and its other data in ``info``."""
    atoms = record.atoms.copy()
    known = {
        "id": record.id,
        "origin": record.origin,
        "generation": record.generation,
        "enthalpy": record.enthalpy,
        "pressure_gpa": record.pressure_gpa,
        "calculator": record.calculator,
        "failure": record.failure,
    }
    atoms.info = {key: value for key, value in known.items() if value not in ("", None)}
    atoms.calc = None if record.energy is None else SinglePointCalculator(atoms, energy=record.energy)
    return atoms


def _number(value: object) -> float | None:
    try:
        return None if value is None else finite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
