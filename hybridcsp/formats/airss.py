"""AIRSS: .res files (SHELX with AIRSS's title), one structure each or many packed into one.

ASE writes a title that AIRSS's own ``cryan`` cannot read (``ase.io.write(..., format="res")``), and neither ASE nor
pymatgen reads packed files, so both directions are ours; both libraries are witnesses in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from hybridcsp.errors import InputError
from hybridcsp.formats import Broken, Record, Settings
from hybridcsp.io.crystals import from_fractions, internal_energy
from hybridcsp.io.elements import element
from hybridcsp.io.files import structure_files
from hybridcsp.io.text import BrokenError, Lines, complaining, finite, in_order
from hybridcsp.structure import spacegroup
from hybridcsp.utils.files import atomic_write, make_folder

#: Folders that AIRSS's scripts leave results in.
FOLDERS = (".", "good_castep", "good")


class Airss:
    """The files of AIRSS."""

    name = "airss"

    def recognises(self, path: Path) -> bool:
        """Whether this is a .res file, or a folder with some and no other structure files."""
        if path.is_file():
            return path.suffix == ".res"
        others = (file for file in structure_files(path) if file.suffix != ".res")
        return any(next((path / at).glob("*.res"), None) for at in FOLDERS) and not any(others)

    def read(self, path: Path) -> Iterator[Record | Broken]:
        """Yield all structures, files by name."""
        files = [path] if path.is_file() else [file for at in FOLDERS for file in sorted((path / at).glob("*.res"))]
        for file in files:
            yield from _read(file)

    def write(self, records: Iterable[Record], path: Path, settings: Settings) -> str:
        """Write ``hopper/<seed>-hybridcsp-<n>.res``, from which AIRSS's crud.pl takes its work."""
        cells = [file.stem for file in path.glob("*.cell") if not file.stem.endswith("-out")]
        seed = cells[0] if len(cells) == 1 else ""
        n = 0
        make_folder(path / "hopper", key="output")
        for n, record in enumerate(records, start=1):
            seed = seed or record.atoms.symbols.formula.reduce()[0].format("metal")
            # crud.pl takes only names with a dash, and what stands before the first is the name of .cell and .param
            name = f"{seed.replace('-', '_')}-hybridcsp-{n:05d}"
            with atomic_write(path / "hopper" / f"{name}.res") as stream:
                stream.write(write_res(record, name, settings))
        if n == 0:
            raise InputError("structures", 0, "at least one structure to write")
        return (
            f"{n} structures in {path / 'hopper'}, which crud.pl relaxes when it runs in {path}; it needs {seed}.cell "
            f"and {seed}.param there (crud.pl takes the part of a name before its first dash). cryan reads the same "
            f"files: cat hopper/*.res | cryan -r."
        )


def write_res(record: Record, name: str, settings: Settings) -> str:
    """Return a .res file: ``TITL name pressure volume enthalpy spin |spin| atoms (group) n - copies``."""
    atoms = record.atoms
    order, counts, rows = in_order(atoms, settings.elements)
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


@complaining
def _read(file: Path) -> Iterator[Record | Broken]:
    with Lines(file) as lines:
        while head := lines.peek(1):
            if not head[0].strip():
                lines.skip(1)
                continue
            if not head[0].startswith(("TITL", "REM", "CELL")):
                yield lines.broken(f"expected TITL, not {head[0].strip()[:40]!r}")
                _to_next(lines)
                continue
            text = _one(lines)
            try:
                yield _parse(text, lines)
            except BrokenError as error:
                yield lines.broken(error.reason, error.offset)
            lines.skip(len(text))


def _one(lines: Lines) -> list[str]:
    """Return the lines of the structure that begins here: to END, or to where the next one begins."""
    n = 64
    while True:
        text = lines.peek(n)
        for at, line in enumerate(text):
            if line.strip() == "END":
                return text[: at + 1]
            if at and line.startswith("TITL"):
                return text[:at]
        if len(text) < n:
            return text
        n *= 2


def _to_next(lines: Lines) -> None:
    while head := lines.peek(1):
        if head[0].startswith("TITL"):
            return
        lines.skip(1)


def _parse(text: list[str], lines: Lines) -> Record:
    title: dict[str, str] = {}
    cell = None
    symbols: list[str] = []
    places: list[list[float]] = []
    atoms_from = 0
    for at, line in enumerate(text):
        tokens = line.split()
        keyword = tokens[0] if tokens else ""
        if atoms_from and keyword not in ("END", ""):
            symbol, place = _atom(tokens, at)
            symbols.append(symbol)
            places.append(place)
        elif keyword == "TITL":
            title = _title(line, at)
        elif keyword == "CELL":
            cell = _cell(tokens, at)
        elif keyword == "SFAC":
            atoms_from = at + 1
    if cell is None or not places:
        raise BrokenError(len(text) - 1, "no CELL line, or no atoms after SFAC")
    if text[-1].strip() != "END":
        raise BrokenError(len(text) - 1, "it ends without END")
    if "atoms" in title and int(title["atoms"]) != len(places):
        raise BrokenError(0, f"the title says {title['atoms']} atoms, {len(places)} are there")
    atoms = from_fractions(symbols, np.array(places), cell)
    pressure = finite(float(title["pressure"])) if "pressure" in title else None
    enthalpy = finite(float(title["enthalpy"])) if "enthalpy" in title else None
    return Record(
        atoms=atoms,
        enthalpy=enthalpy,
        energy=internal_energy(atoms, enthalpy, pressure),
        pressure_gpa=pressure,
        id=title.get("name", lines.file.stem),
        file=lines.file,
        line=lines.number,
    )


def _title(line: str, at: int) -> dict[str, str]:
    """Read a title; what stands before ``(`` are 3 to 9 words, TITL included."""
    words = line.partition("(")[0].split()[1:]
    found = dict(zip(("name", "pressure", "volume", "enthalpy"), words, strict=False))
    if len(words) < 4:
        return {"name": words[0]} if words else {}
    if len(words) == 7:  # name P V H spin |spin| atoms
        found["atoms"] = words[6]
    try:
        float(found["pressure"]), float(found["volume"]), float(found["enthalpy"]), int(found.get("atoms", "1"))
    except ValueError:
        raise BrokenError(at, f"a title whose numbers are none: {line.strip()[:60]!r}") from None
    return found


def _cell(tokens: list[str], at: int) -> np.ndarray:
    try:
        parameters = np.array([float(token) for token in tokens[2:8]])
        if parameters.shape != (6,) or not np.isfinite(parameters).all():
            raise ValueError
        with np.errstate(invalid="ignore", divide="ignore"):  # for angles that no cell has
            cell: np.ndarray = cellpar_to_cell(parameters)
    except (ValueError, AssertionError):
        raise BrokenError(at, "a CELL line needs a wavelength, three lengths and three angles that fit") from None
    if not np.isfinite(cell).all():
        raise BrokenError(at, "angles that no cell has")
    return cell


def _atom(tokens: list[str], at: int) -> tuple[str, list[float]]:
    try:
        place = [float(token) for token in tokens[2:5]]
        occupancy = float(tokens[5]) if len(tokens) > 5 else 1.0
    except ValueError:
        place, occupancy = [], 1.0
    if len(place) < 3:
        raise BrokenError(at, f"not an atom: {' '.join(tokens)[:40]!r}")
    if occupancy < 1:
        raise BrokenError(at, f"a site that is occupied to {occupancy:g}")
    try:
        return element(tokens[0]), place
    except BrokenError as error:
        raise BrokenError(at, error.reason) from error
