"""Format of AIRSS: .res files (SHELX with a title of AIRSS), with one structure each or many packed into one file.

ASE writes a title that AIRSS's own ``cryan`` cannot read (``ase.io.write(..., format="res")``), and neither ASE nor
pymatgen reads packed files, so the reader and the writer are our own; the tests compare them with both libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hybridcsp.errors import InputError
from hybridcsp.io.element_symbols import group_by_element
from hybridcsp.io.formats.base import Format, Record, SeedSettings
from hybridcsp.io.formats.plain import record_of
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.res import read_res
from hybridcsp.io.structure_files import structure_files
from hybridcsp.structure.symmetry import spacegroup
from hybridcsp.utils.files import atomic_write, make_folder

#: Folders in which AIRSS's scripts leave results.
FOLDERS = (".", "good_castep", "good")


class Airss(Format):
    """The files of AIRSS."""

    name = "airss"

    def recognises(self, path: Path) -> bool:
        """Return whether this is a .res file, or a folder with .res files and no other structure files."""
        if path.is_file():
            return path.suffix == ".res"
        others = (file for file in structure_files(path) if file.suffix != ".res")
        return any(next((path / at).glob("*.res"), None) for at in FOLDERS) and not any(others)

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield all structures, files by name."""
        files = [path] if path.is_file() else [file for at in FOLDERS for file in sorted((path / at).glob("*.res"))]
        for file in files:
            for found in read_res(file):
                yield found if isinstance(found, ReadFailure) else record_of(found)

    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write ``hopper/<seed>-hybridcsp-<n>.res``, the queue of AIRSS's crud.pl."""
        cells = [file.stem for file in path.glob("*.cell") if not file.stem.endswith("-out")]
        seed = cells[0] if len(cells) == 1 else ""
        n = 0
        make_folder(path / "hopper", key="output")
        for n, record in enumerate(records, start=1):
            # crud.pl reads only names with a dash; the part before the first dash is the name of .cell and .param
            seed = (seed or record.atoms.symbols.formula.reduce()[0].format("metal")).replace("-", "_")
            name = f"{seed}-hybridcsp-{n:05d}"
            with atomic_write(path / "hopper" / f"{name}.res") as stream:
                stream.write(write_res(record, name, settings))
        if n == 0:
            raise InputError("structures", 0, reason="there is no structure to write")
        return (
            f"{n} structures in {path / 'hopper'}, which crud.pl relaxes when it runs in {path}; it needs {seed}.cell "
            f"and {seed}.param there (crud.pl takes the part of a name before its first dash). cryan reads the same "
            f"files: cat hopper/*.res | cryan -r."
        )


def write_res(record: Record, name: str, settings: SeedSettings) -> str:
    """Return a .res file: ``TITL name pressure volume enthalpy spin |spin| atoms (group) n - copies``."""
    atoms = record.atoms
    order, counts, rows = group_by_element(atoms, settings.elements)
    occurring = [symbol for symbol, count in zip(order, counts, strict=True) if count]
    enthalpy = record.enthalpy if record.enthalpy is not None else record.energy or 0.0
    pressure = record.pressure_gpa or 0.0
    group = _symbol(spacegroup(atoms, 0.1))
    lines = [
        f"TITL {name} {pressure:.10g} {atoms.get_volume():.10g} {enthalpy:.12g} 0.0 0.0 {len(atoms)} ({group}) n - 1",
        "REM written by hybridcsp" + (f", candidate {record.id}" if record.id else ""),
        "CELL 1.54180 " + " ".join(f"{x:.12g}" for x in atoms.cell.cellpar()),
        "LATT -1",
        "SFAC " + " ".join(occurring),
    ]
    scaled = atoms.get_scaled_positions(wrap=True)
    for row in rows.tolist():
        symbol = atoms.symbols[row]
        x, y, z = scaled[row].tolist()
        lines.append(f"{symbol:<3} {occurring.index(symbol) + 1} {x:.14f} {y:.14f} {z:.14f} 1.0")
    return "\n".join([*lines, "END", ""])


def _symbol(group: int) -> str:
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    return str(sg_symbol_from_int_number(group)).replace("_", "")
