"""Reading of SHELX files (``.res``) as AIRSS writes them: without symmetry, with any number of structures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import cellpar_to_cell

from hybridcsp.io.construction import PARTLY_OCCUPIED, build_from_fractional, internal_energy
from hybridcsp.io.element_symbols import parse_element
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.io.text_files import Lines, finite, yields_failures


@yields_failures
def read_res(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a file, with ``enthalpy`` (eV) and ``pressure_gpa`` in ``info`` (``None`` if unknown)."""
    number = -1
    with Lines(file) as lines:
        while head := lines.peek(1):
            if not head[0].strip():
                lines.skip(1)
                continue
            if not head[0].startswith(("TITL", "REM", "CELL")):
                yield lines.failure(f"expected TITL, not {head[0].strip()[:40]!r}")
                _to_next(lines)
                continue
            text = _one(lines)
            number += 1
            try:
                yield _parse(text, lines, number)
            except StructureError as error:
                yield lines.failure(error.reason, error.offset)
            lines.skip(len(text))


def _one(lines: Lines) -> list[str]:
    """Return the lines of the next structure, up to END or to the beginning of the one after it."""
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


def _parse(text: list[str], lines: Lines, number: int) -> Frame:
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
        elif keyword == "SYMM" or (keyword == "LATT" and tokens[1:2] != ["-1"]):
            raise StructureError(
                at,
                f"{line.strip()[:40]!r}: only files without symmetry (LATT -1), as AIRSS writes, are read",
            )
        elif keyword == "SFAC":
            atoms_from = at + 1
    if cell is None or not places:
        raise StructureError(len(text) - 1, "there is no CELL line, or no atom after SFAC")
    if text[-1].strip() != "END":
        raise StructureError(len(text) - 1, "the structure does not end with END")
    if "atoms" in title and int(title["atoms"]) != len(places):
        raise StructureError(0, f"the title states {title['atoms']} atoms, but there are {len(places)}")
    atoms = build_from_fractional(symbols, np.array(places), cell)
    pressure = finite(float(title["pressure"])) if "pressure" in title else None
    enthalpy = finite(float(title["enthalpy"])) if "enthalpy" in title else None
    atoms.info = {"pressure_gpa": pressure, "enthalpy": enthalpy}
    energy = internal_energy(atoms, enthalpy, pressure)
    if energy is not None:
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    name = title.get("name", lines.file.stem)
    return Frame(atoms=atoms, file=lines.file, number=number, line=lines.number, name=name)


def _title(line: str, at: int) -> dict[str, str]:
    """Read a title, which has 3 to 9 words before the parenthesis, including TITL."""
    words = line.partition("(")[0].split()[1:]
    found = dict(zip(("name", "pressure", "volume", "enthalpy"), words, strict=False))
    if len(words) < 4:
        return {"name": words[0]} if words else {}
    if len(words) == 7:  # name P V H spin |spin| atoms
        found["atoms"] = words[6]
    try:
        float(found["pressure"]), float(found["volume"]), float(found["enthalpy"]), int(found.get("atoms", "1"))
    except ValueError:
        raise StructureError(at, f"the title has text where numbers are expected: {line.strip()[:60]!r}") from None
    return found


def _cell(tokens: list[str], at: int) -> np.ndarray:
    try:
        parameters = np.array([float(token) for token in tokens[2:8]])
        if parameters.shape != (6,) or not np.isfinite(parameters).all():
            raise ValueError
        with np.errstate(invalid="ignore", divide="ignore"):  # impossible angles give NaN
            cell: np.ndarray = cellpar_to_cell(parameters)
    except (ValueError, AssertionError):
        raise StructureError(
            at, "the CELL line needs a wavelength, three lengths and three angles that are possible"
        ) from None
    if not np.isfinite(cell).all():
        raise StructureError(at, "no cell has the angles of the CELL line")
    return cell


def _atom(tokens: list[str], at: int) -> tuple[str, list[float]]:
    try:
        place = [float(token) for token in tokens[2:5]]
        occupancy = float(tokens[5]) if len(tokens) > 5 else 1.0
    except ValueError:
        place, occupancy = [], 1.0
    if len(place) < 3:
        raise StructureError(at, f"expected an atom (symbol, number, three coordinates), not {' '.join(tokens)[:40]!r}")
    if occupancy not in (1.0, 11.0):  # SHELX adds 10 to fixed values
        raise StructureError(at, f"{PARTLY_OCCUPIED}, not {occupancy:g} of one")
    try:
        return parse_element(tokens[0]), place
    except StructureError as error:
        raise StructureError(at, error.reason) from error
