"""POSCARs, one after the other in one file: what USPEX, CALYPSO, XtalOpt and CrySPY write structures as."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp.io import Broken
from hybridcsp.io.crystals import MOST_ATOMS, crystal, from_fractions
from hybridcsp.io.elements import element
from hybridcsp.io.text import BrokenError, Lines, complaining, in_order, is_number

#: A line of symbols or of numbers of atoms.
_CONTENTS = re.compile(r"\d+(\s+\d+)*|[A-Z][a-z]?([_/]\S*)?(\s+[A-Z][a-z]?([_/]\S*)?)*")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Block:
    """One POSCAR: its title, its structure, the number of its first line, and the line before that."""

    title: str
    atoms: Atoms
    line: int
    before: str


@complaining
def read_poscars(file: Path, elements: Sequence[str] = ()) -> Iterator[Block | Broken]:
    """Yield all POSCARs of a file.

    After a broken one it goes on with the next line that begins one: a title, then a line with the scale and three
    with the lattice. VASP 4 and 5, Cartesian and fractional coordinates, selective dynamics, negative scales (volumes)
    and left-handed cells are read; velocities after a blank line are skipped.

    Parameters
    ----------
    file
        The file.
    elements
        Of files without symbols (VASP 4), in their order; by default what the title names, if these are elements.
    """
    with Lines(file) as lines:
        before, loose, after_blank = "", 0, False
        while head := lines.peek(6):
            if not _is_head(head):
                line = head[0].strip()
                if not line:
                    after_blank, loose = True, 0
                elif loose == 0 and not _may_stand_alone(line, after_blank) and not _is_head(lines.peek(7)[1:]):
                    yield lines.broken(f"not the beginning of a POSCAR: {_shown(line)}")
                    loose = 1
                before = line
                lines.skip(1)
                continue
            try:
                block, length = _read(lines, before, elements)
            except BrokenError as error:
                yield lines.broken(error.reason, error.offset)
                lines.skip(1)
                loose = 1
            else:
                yield block
                lines.skip(length)
                loose = 0
            before, after_blank = "", False


def write_poscar(atoms: Atoms, title: str, elements: Sequence[str] = ()) -> str:
    """Return a POSCAR (VASP 5, fractional coordinates in the cell, nothing behind them).

    Parameters
    ----------
    atoms
        The structure.
    title
        Its first line.
    elements
        All elements in their order, also those that do not occur; by default those that do, by electronegativity.
    """
    order, counts, rows = in_order(atoms, elements)
    scaled = atoms.get_scaled_positions(wrap=True)[rows]
    vectors = "".join(" {:20.16f} {:20.16f} {:20.16f}\n".format(*vector) for vector in atoms.cell.array.tolist())
    places = "".join(" {:19.16f} {:19.16f} {:19.16f}\n".format(*place) for place in scaled.tolist())
    return f"{title}\n1.0\n{vectors} {' '.join(order)}\n {' '.join(map(str, counts))}\nDirect\n{places}"


def _is_head(lines: list[str]) -> bool:
    if len(lines) < 5 or not all(_numbers(line) == 3 for line in lines[2:5]):
        return False
    # Three numbers in the place of the scale may be three scales, or all of this is coordinates.
    scales = _numbers(lines[1])
    return scales == 1 or (scales == 3 and len(lines) > 5 and bool(_CONTENTS.fullmatch(lines[5].strip())))


def _numbers(line: str) -> int:
    """How many numbers a line is; 0 if there is anything else in it."""
    tokens = line.split()
    return len(tokens) if all(map(is_number, tokens)) else 0


def _may_stand_alone(line: str, after_blank: bool) -> bool:
    """Whether a line may be something else than damage: velocities."""
    return after_blank and _numbers(line) > 0


def _read(lines: Lines, before: str, elements: Sequence[str]) -> tuple[Block, int]:
    head = lines.peek(9)
    title = head[0].strip()
    cell = np.array([[float(token) for token in line.split()] for line in head[2:5]])
    scale = np.array([float(token) for token in head[1].split()])
    if scale[0] < 0 and len(scale) == 1:
        scale = (-scale / max(abs(np.linalg.det(cell)), 1e-9)) ** (1 / 3)
    at = 5
    if len(head) < 8:
        raise BrokenError(len(head) - 1, "the file ends in the middle of a POSCAR")
    names: Sequence[str] = head[at].split()
    if names and not names[0].isdecimal():
        at += 1
    else:
        names = elements or _named_by(title, len(names))
    tokens = head[at].split()
    if not tokens or not all(token.isdecimal() and len(token) < 10 for token in tokens):
        raise BrokenError(at, f"numbers of atoms are missing: {_shown(head[at])}")
    if len(tokens) != len(names):
        raise BrokenError(at, f"{len(tokens)} numbers of atoms for {len(names)} elements")
    counts = [int(token) for token in tokens]
    n_atoms = sum(counts)
    if not 0 < n_atoms <= MOST_ATOMS:
        raise BrokenError(at, f"{n_atoms} atoms")
    try:
        symbols = [symbol for name, n in zip(names, counts, strict=True) for symbol in [element(name)] * n]
    except BrokenError as error:
        raise BrokenError(5, error.reason) from error
    at += 1
    if head[at][:1] in "Ss" or head[at].strip()[:1] in ("S", "s"):
        at += 1
    mode = head[at].strip()[:1].lower() if at < len(head) else ""
    if mode not in ("d", "c", "k"):
        raise BrokenError(min(at, len(head) - 1), "neither Direct nor Cartesian coordinates follow")
    at += 1
    rows = lines.peek(at + n_atoms)[at:]
    places = np.array(_coordinates(rows, n_atoms, at))
    cell = cell * scale
    atoms = from_fractions(symbols, places, cell) if mode == "d" else crystal(symbols, places * scale, cell)
    return Block(title=title, atoms=atoms, line=lines.number, before=before), at + n_atoms


def _coordinates(rows: list[str], n_atoms: int, at: int) -> list[list[float]]:
    places = []
    for row, line in enumerate(rows):
        tokens = line.split()
        try:
            place = [float(tokens[0]), float(tokens[1]), float(tokens[2])]
        except (ValueError, IndexError):
            raise BrokenError(at + row, f"atom {row + 1} of {n_atoms} has no coordinates: {_shown(line)}") from None
        places.append(place)
    if len(rows) < n_atoms:
        raise BrokenError(at + len(rows) - 1, f"the file ends after {len(rows)} of {n_atoms} atoms")
    return places


def _named_by(title: str, n: int) -> list[str]:
    names = title.split()[:n]
    try:
        return [element(name) for name in names]
    except BrokenError:
        raise BrokenError(5, "no element symbols (VASP 4), and nothing else names the elements") from None


def _shown(line: str) -> str:
    return repr(line.strip()[:40])
