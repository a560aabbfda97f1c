"""Reading and writing of POSCARs, also of several in one file, as USPEX, CALYPSO, XtalOpt and CrySPY write them.

They are read as VASP does, in Fortran: each line is read up to the last number that is needed, and the rest of the line
is ignored. https://www.vasp.at/wiki/index.php/POSCAR
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.io.construction import MAX_ATOMS, build_crystal, build_from_fractional
from hybridcsp.io.element_symbols import find_symbol, group_by_element, parse_element
from hybridcsp.io.frames import ReadFailure, StructureError
from hybridcsp.io.text_files import Lines, parse_float, yields_failures

#: Maximum number of lines of symbols and of numbers of atoms, which VASP wraps.
_MAX_LINES = 200


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Block:
    """One POSCAR of a file.

    Attributes
    ----------
    title
        The first line.
    atoms
        The structure.
    line
        The number of the first line, counted from 1.
    before
        The line before the first, which some codes use for the enthalpy; empty if there is none.
    """

    title: str
    atoms: Atoms
    line: int
    before: str


@yields_failures
def read_poscars(file: Path, elements: Sequence[str] = ()) -> Iterator[Block | ReadFailure]:
    """Yield all POSCARs of a file.

    The formats of VASP 4, 5 and 6, Cartesian and fractional coordinates, selective dynamics, negative scales (volumes),
    three scales and left-handed cells are read; velocities and predictor-corrector data of molecular dynamics are
    skipped. After an invalid POSCAR, reading continues at the next title that is followed by a scale and a lattice.

    Parameters
    ----------
    file
        The file.
    elements
        Elements of files without symbols (VASP 4), in order; by default the symbols after the coordinates, or else
        those in the title.
    """
    with Lines(file) as lines:
        before, loose, after_blank = "", 0, False
        while head := lines.peek(6):
            if not _is_head(head):
                line = head[0].strip()
                if not line:
                    after_blank, loose = True, 0
                elif loose == 0 and not _may_stand_alone(line, after_blank) and not _is_head(lines.peek(7)[1:]):
                    yield lines.failure(
                        f"expected the title of a POSCAR with a scale and a lattice after it, not {_shown(line)}"
                    )
                    loose = 1
                before = line
                lines.skip(1)
                continue
            try:
                block, length = _read(lines, before, elements)
            except StructureError as error:
                yield lines.failure(error.reason, error.offset)
                lines.skip(1)
                loose = 1
            else:
                yield block
                lines.skip(length)
                loose = 0
            before, after_blank = "", False


def write_poscar(atoms: Atoms, title: str, elements: Sequence[str] = ()) -> str:
    """Return a structure as a POSCAR of VASP 5, with fractional coordinates wrapped into the cell.

    Parameters
    ----------
    atoms
        The structure.
    title
        The first line.
    elements
        All elements in order, including those with no atoms; by default those of the structure by electronegativity.
    """
    order, counts, rows = group_by_element(atoms, elements)
    scaled = atoms.get_scaled_positions(wrap=True)[rows]
    vectors = "".join(" {:20.16f} {:20.16f} {:20.16f}\n".format(*vector) for vector in atoms.cell.array.tolist())
    places = "".join(" {:19.16f} {:19.16f} {:19.16f}\n".format(*place) for place in scaled.tolist())
    return f"{title}\n1.0\n{vectors} {' '.join(order)}\n {' '.join(map(str, counts))}\nDirect\n{places}"


def _is_head(lines: list[str]) -> bool:
    if len(lines) < 5 or any(len(_numbers(line)) < 3 for line in lines[2:5]):
        return False
    # Three numbers in the second line are three scales, unless all these lines are coordinates.
    scales = len(_numbers(lines[1]))
    return scales == 1 or (scales == 3 and len(lines) > 5 and _begins_contents(lines[5]))


def _begins_contents(line: str) -> bool:
    """Return whether a line may contain element symbols or numbers of atoms."""
    first, *_ = _without_comment(line).split() or [""]
    return first.isdecimal() or find_symbol(re.split(r"[/_.]", first)[0]) is not None


def _numbers(line: str, most: int = 4) -> list[float]:
    """Return the numbers at the beginning of a line, in any notation of Fortran."""
    found = []
    for token in line.replace(",", " ").split(None, most)[:most]:
        value = parse_float(token)
        if value is None:
            break
        found.append(value)
    return found


def _without_comment(line: str) -> str:
    return re.split("[!#]", line, maxsplit=1)[0]


def _may_stand_alone(line: str, after_blank: bool) -> bool:
    """Return whether a line may be a velocity, which is not reported."""
    return after_blank and len(_numbers(line)) > 0


def _read(lines: Lines, before: str, elements: Sequence[str]) -> tuple[Block, int]:
    head = lines.peek(9)
    if len(head) < 8:
        raise StructureError(len(head) - 1, "the file ends within a POSCAR")
    title = head[0].strip()
    cell = np.array([_numbers(line, 3) for line in head[2:5]])
    scale = _scale(_numbers(head[1], 4), cell)
    names, counts, at = _contents(lines)
    n_atoms = sum(counts)
    if not 0 < n_atoms <= MAX_ATOMS:
        raise StructureError(at - 1, f"it has {n_atoms} atoms; 1 to {MAX_ATOMS} are read")
    head = lines.peek(at + 2)
    selective = at < len(head) and (head[at][:1] in "Ss" or head[at].strip()[:1] in ("S", "s"))
    at += selective
    mode = head[at].strip()[:1] if at < len(head) else ""
    if not mode.isalpha():
        raise StructureError(min(at, len(head) - 1), "expected Direct or Cartesian before the coordinates")
    at += 1
    rows = lines.peek(at + n_atoms)[at:]
    places = np.array(_coordinates(rows, n_atoms, at))
    symbols = _symbols(names or elements, counts) or _behind(rows, 6 if selective else 3) or _titled(title, counts)
    cell = cell * scale
    # As in VASP, every mode other than Cartesian is fractional.
    is_cartesian = mode in "cCkK"
    atoms = (
        build_crystal(symbols, places * scale, cell) if is_cartesian else build_from_fractional(symbols, places, cell)
    )
    end = at + n_atoms
    return Block(title=title, atoms=atoms, line=lines.number, before=before), end + _dynamics(lines, end, n_atoms)


def _scale(scales: list[float], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(scales) not in (1, 3):
        raise StructureError(1, "expected one scale or three in the second line")
    scale = np.array(scales)
    if len(scales) == 1 and scales[0] < 0:
        volume: NDArray[np.float64] = (-scale / max(abs(np.linalg.det(cell)), 1e-9)) ** (1 / 3)
        return volume
    if (scale <= 0).any():
        raise StructureError(1, f"scales must be positive, or a single negative volume, not {scales}")
    return scale


def _contents(lines: Lines) -> tuple[list[str], list[int], int]:
    """Return the symbols (empty for VASP 4), the numbers of atoms, and the number of lines up to their end."""
    names: list[str] = []
    counts: list[int] = []
    at = 5
    while len(head := lines.peek(at + 1)) > at and at < _MAX_LINES:
        tokens = _without_comment(head[at]).split()
        if not tokens or tokens[0].isdecimal():
            break
        names += tokens
        at += 1
    while len(head := lines.peek(at + 1)) > at and at < _MAX_LINES:
        found = list(takewhile(lambda token: token.isdecimal() and len(token) < 10, head[at].split()))
        if not found:
            break
        counts += map(int, found)
        at += 1
        if len(counts) >= len(names):
            break
    if not counts:
        raise StructureError(
            min(at, len(head) - 1), f"expected numbers of atoms, not {_shown(head[min(at, len(head) - 1)])}"
        )
    if names and len(counts) != len(names):
        raise StructureError(at - 1, f"{len(counts)} numbers of atoms for {len(names)} elements")
    return names, counts, at


def _symbols(names: Sequence[str], counts: list[int]) -> list[str]:
    if not names:
        return []
    if len(names) != len(counts):
        raise StructureError(5, f"{len(counts)} numbers of atoms for {len(names)} elements")
    try:
        return [symbol for name, n in zip(names, counts, strict=True) for symbol in [parse_element(name)] * n]
    except StructureError as error:
        raise StructureError(5, error.reason) from error


def _behind(rows: list[str], column: int) -> list[str]:
    """Return the symbols after the coordinates; empty unless every line has one."""
    tokens = [row.replace(",", " ").split() for row in rows]
    try:
        return [parse_element(row[column]) for row in tokens]
    except (IndexError, StructureError):
        return []


def _coordinates(rows: list[str], n_atoms: int, at: int) -> list[list[float]]:
    places = []
    for row, line in enumerate(rows):
        place = _numbers(line, 3)
        if len(place) < 3:
            raise StructureError(at + row, f"atom {row + 1} of {n_atoms} needs three coordinates, not {_shown(line)}")
        places.append(place)
    if len(rows) < n_atoms:
        raise StructureError(at + len(rows) - 1, f"the file ends after {len(rows)} of {n_atoms} atoms")
    return places


def _titled(title: str, counts: list[int]) -> list[str]:
    try:
        return _symbols(title.split()[: len(counts)], counts) or _symbols([""], counts)
    except StructureError:
        raise StructureError(
            5, "there are no element symbols (VASP 4), neither after the coordinates nor in the title"
        ) from None


def _dynamics(lines: Lines, end: int, n_atoms: int) -> int:
    """Return the number of lines after the atoms that belong to molecular dynamics.

    These are lattice velocities, velocities of atoms, and three more sets of numbers of the predictor-corrector
    algorithm, each of which may be absent.
    """
    at = end
    head = lines.peek(at + 8)
    if len(head) > at and head[at].strip().lower().startswith("lattice velocities"):
        at += 2 + _vectors(head[at + 2 : at + 8])
    head = lines.peek(at + 6)
    if len(head) <= at or _is_head(head[at:]):
        return at - end
    # The line before velocities states Cartesian or Direct; a blank line means Cartesian.
    head = lines.peek(at + 1 + n_atoms)
    if head[at].strip()[:1].lower() in ("", "c", "k", "d") and _vectors(head[at + 1 :]) == n_atoms:
        at += 1 + n_atoms
        head = lines.peek(at + 4 + 3 * n_atoms)
        if len(head) > at and not head[at].strip() and _vectors(head[at + 4 :]) == 3 * n_atoms:
            at += 4 + 3 * n_atoms
    return at - end


def _vectors(rows: list[str]) -> int:
    """Return the number of lines that begin with three numbers, up to the first that does not."""
    return sum(1 for _ in takewhile(lambda row: len(_numbers(row, 3)) == 3, rows))


def _shown(line: str) -> str:
    return repr(line.strip()[:40])
