"""Structures in files of no search code: CIF, POSCAR, extended XYZ, ASE databases, pymatgen's JSON."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.errors import InputError
from hybridcsp.formats import Broken, Record, Settings
from hybridcsp.io.files import is_partly_occupied, structure_files
from hybridcsp.io.poscar import MOST_ATOMS, read_poscars
from hybridcsp.io.text import BrokenError, Lines, complaining, crystal, finite
from hybridcsp.structure import from_pymatgen
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_json


class Plain:
    """Files of structures; read one frame at a time, so that a broken one costs only itself."""

    name = "plain"

    def recognises(self, path: Path) -> bool:
        """Whether this is a structure file by its name, or a folder with one."""
        if path.is_dir():
            return any(_reader(file) for file in structure_files(path))
        return _reader(path) is not None

    def read(self, path: Path) -> Iterator[Record | Broken]:
        """Yield all structures, files by name; of a folder only the files that have a structure's name."""
        for file in structure_files(path):
            reader = _reader(file)
            if reader is not None:
                yield from reader(file)
            elif not path.is_dir():
                yield Broken(file=file, line=1, reason="neither CIF, POSCAR, extxyz, ASE database nor pymatgen JSON")

    def write(self, records: Iterable[Record], path: Path, settings: Settings) -> str:
        """Write extended XYZ, with energies, and what is known of each structure in its second line."""
        n = 0
        make_folder(path.parent, key="output")
        with atomic_write(path, key="output", follow=True) as stream:
            for record in records:
                n += 1
                ase.io.write(stream, _labelled(record), format="extxyz")
            if n == 0:
                raise InputError("structures", 0, "at least one structure to write")
        return f"{n} structures in {path}."


def _reader(file: Path) -> Callable[[Path], Iterator[Record | Broken]] | None:
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower())
    if name.endswith((".extxyz", ".xyz")):
        return _extxyz
    if name.endswith((".cif", ".mcif")):
        return _cif
    if file.name.endswith(".db"):
        return _database
    if name.endswith(".json"):
        return _json
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return _poscars
    return None


def _labelled(record: Record) -> Atoms:
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


def _recorded(atoms: Atoms, file: Path, line: int, default_id: str) -> Record | Broken:
    """Make a record of what ASE read."""
    info = atoms.info
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        return Broken(file=file, line=line, reason="no cell that is periodic in three directions")
    if is_partly_occupied(atoms):
        return Broken(file=file, line=line, reason="partly occupied sites")
    if len(atoms) == 0 or (atoms.numbers < 1).any():
        return Broken(file=file, line=line, reason="no atoms, or atoms of no element")
    energy = None
    if atoms.calc is not None:
        try:
            energy = finite(float(atoms.get_potential_energy()))
        except PropertyNotImplementedError:
            energy = None
    enthalpy = _number(info.get("enthalpy"))
    if enthalpy is None and (per_atom := _number(info.get("enthalpy_per_atom"))) is not None:
        enthalpy = per_atom * len(atoms)
    try:
        bare = crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    except BrokenError as error:
        return Broken(file=file, line=line, reason=error.reason)
    generation = _number(info.get("generation"))
    return Record(
        atoms=bare,
        energy=energy,
        enthalpy=enthalpy,
        pressure_gpa=_number(info.get("pressure_gpa")),
        id=str(info.get("id", info.get("candidate", default_id))),
        origin=str(info.get("origin", info.get("operator", ""))),
        generation=None if generation is None else int(generation),
        calculator=str(info.get("calculator", "")),
        failure=str(info.get("failure", "")),
        file=file,
        line=line,
    )


def _number(value: object) -> float | None:
    try:
        return None if value is None else finite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _parsed(text: str, format: str, file: Path, line: int, default_id: str) -> Record | Broken:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = ase.io.read(io.StringIO(text), format=format, index=0)
        return _recorded(atoms, file, line, default_id)
    except Exception as error:  # noqa: BLE001  # ASE's readers raise anything for a broken file, or leave anything
        return Broken(file=file, line=line, reason=f"{type(error).__name__}: {error}"[:200])


@complaining
def _extxyz(file: Path) -> Iterator[Record | Broken]:
    with Lines(file) as lines:
        frame = 0
        while head := lines.peek(1):
            first = head[0].strip()
            if not first:
                lines.skip(1)
                continue
            if not first.isdecimal() or len(first) > 9 or int(first) > MOST_ATOMS:
                yield lines.broken(f"expected a number of atoms, at most {MOST_ATOMS}, not {first[:40]!r}")
                lines.skip(1)
                while (head := lines.peek(1)) and not head[0].strip().isdecimal():
                    lines.skip(1)
                continue
            text = lines.peek(int(first) + 2)
            frame += 1
            if len(text) < int(first) + 2:
                yield lines.broken(f"the file ends after {max(len(text) - 2, 0)} of {first} atoms")
            else:
                yield _parsed("".join(text), "extxyz", file, lines.number, f"{file.stem}-{frame}")
            lines.skip(len(text))


@complaining
def _cif(file: Path) -> Iterator[Record | Broken]:
    """Read block by block: one begins with ``data_``."""
    with Lines(file) as lines:
        block: list[str] = []
        begun = 1
        while head := lines.peek(1):
            if head[0].lower().startswith("data_") and any(line.lower().startswith("data_") for line in block):
                yield _cif_block(block, file, begun)
                block, begun = [], lines.number
            block.append(head[0])
            lines.skip(1)
        if any(line.strip() for line in block):
            yield _cif_block(block, file, begun)


def _cif_block(block: list[str], file: Path, line: int) -> Record | Broken:
    title = next((text.strip()[5:] for text in block if text.lower().startswith("data_")), "")
    return _parsed("".join(block), "cif", file, line, title or file.stem)


@complaining
def _poscars(file: Path) -> Iterator[Record | Broken]:
    for number, block in enumerate(read_poscars(file), start=1):
        if isinstance(block, Broken):
            yield block
        else:
            yield Record(atoms=block.atoms, id=f"{file.name}-{number}", file=file, line=block.line)


@complaining
def _database(file: Path) -> Iterator[Record | Broken]:
    database = ase.db.connect(file.resolve(), type="db", use_lock_file=False)
    for row in database.select():
        atoms = row.toatoms()
        atoms.info |= dict(row.key_value_pairs)
        yield _recorded(atoms, file, row.id, f"{file.stem}-{row.id}")


@complaining
def _json(file: Path) -> Iterator[Record | Broken]:
    """Read pymatgen's structures and computed entries: one, or a list of them.

    Only the two classes named here are built, and by name, whatever else the file asks for.
    """
    content = read_json(file)
    entries = content if isinstance(content, list) else [content]
    for number, entry in enumerate(entries, start=1):
        yield _entry(entry, file, number)


def _entry(entry: Any, file: Path, number: int) -> Record | Broken:
    from pymatgen.core import Structure

    where = f"entry {number}"
    if not isinstance(entry, dict):
        return Broken(file=file, line=1, reason=f"{where} is no pymatgen Structure or ComputedStructureEntry")
    described = entry.get("structure", entry)
    try:
        structure = Structure.from_dict(described)
        atoms = from_pymatgen(structure)
        bare = crystal(atoms.numbers, atoms.positions, atoms.cell.array)
    except BrokenError as error:
        return Broken(file=file, line=1, reason=f"{where}: {error.reason}")
    except Exception as error:  # noqa: BLE001  # pymatgen lets any error through that a broken description causes
        return Broken(file=file, line=1, reason=f"{where}: {type(error).__name__}: {error}"[:200])
    energy = _number(entry.get("energy")) if "structure" in entry else None
    return Record(
        atoms=bare, energy=energy, id=str(entry.get("entry_id") or f"{file.stem}-{number}"), file=file, line=1
    )
