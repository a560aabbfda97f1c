"""Crystals in the tables of CrystalFormer (doi:10.48550/arXiv.2403.15734).

A row holds the parameters of the conventional cell (``L``: Å and degrees), and one entry for each orbit of atoms: a
fractional point (``X``), the atomic number (``A``) and the number of the Wyckoff position (``W``: 1 for a), padded with
zeros. The settings of the space groups are PyXtal's, as here. ``G`` is the space group; without this column the name of
the file states it (``output_225.csv``). Multiplicities (``M``) follow from the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import UnreadableError
from hybridcsp.io.construction import MAX_ATOMS, checked
from hybridcsp.io.frames import StructureError
from hybridcsp.structure.orbits import primitive_cell_with
from hybridcsp.structure.wyckoff import LETTERS, orbit_coordinates, space_group
from hybridcsp.utils.reading import parse_json

#: Columns that describe a crystal, the column of the space group, and all that are not properties.
COLUMNS = ("L", "X", "A", "W")
GROUP = "G"
EVERY_COLUMN = (*COLUMNS, GROUP, "M")

_LARGEST_NUMBER = 118


def group_of_file(file: Path) -> int | None:
    """Return the space group that the name of a file states, such as ``output_225.csv``; ``None`` if it states none."""
    found = re.search(r"_([1-9]\d{0,2})\.csv", file.name)
    return int(found[1]) if found and int(found[1]) <= 230 else None


def crystal(row: Mapping[str, Any], group: int | None) -> Atoms:
    """Return the primitive cell of the crystal in a row.

    Parameters
    ----------
    row
        Cells of the row by column.
    group
        Space group if the table has no column of it.

    Raises
    ------
    StructureError
        If the row does not describe a valid crystal.
    """
    number = _space_group(row[GROUP]) if row.get(GROUP) else group
    if number is None:
        raise StructureError(0, f"the column {GROUP} is empty; it must hold a space group from 1 to 230")
    cell, points, elements, letters = (_numbers(row, name) for name in COLUMNS)
    if (
        cell.shape != (6,)
        or points.shape != (len(elements), 3)
        or letters.shape != elements.shape
        or elements.ndim != 1
    ):
        raise StructureError(0, "the columns L, X, A and W do not have the shapes (6), (n, 3), (n) and (n)")
    x, y, z = np.cos(np.radians(cell[3:]))
    if not (np.isfinite(cell).all() and (cell[:3] > 0).all() and 1 - x * x - y * y - z * z + 2 * x * y * z > 1e-6):
        raise StructureError(0, "the column L does not hold positive lengths and possible angles of a cell")
    occupied = np.flatnonzero(elements)
    if not len(occupied):
        raise StructureError(0, "the column A holds no atoms")
    sites = [_site(number, points[i], elements[i], letters[i], i + 1) for i in occupied.tolist()]
    general = len(space_group(number).positions[0].translations)
    if general * len(sites) > MAX_ATOMS:
        raise StructureError(0, f"it may have more than {MAX_ATOMS} atoms")
    return checked(primitive_cell_with(number, cell.tolist(), sites))


def _site(
    group: int, point: NDArray[np.float64], element: float, letter: float, place: int
) -> tuple[int, str, tuple[float, ...]]:
    positions = space_group(group, conventional=True).positions
    if not (element == int(element) and 1 <= element <= _LARGEST_NUMBER):
        raise StructureError(0, f"site {place} has the atomic number {element:g}; it must be 1 to {_LARGEST_NUMBER}")
    if not (letter == int(letter) and 1 <= letter <= len(positions)):
        last = len(positions)
        raise StructureError(0, f"site {place} is on Wyckoff position {letter:g}; group {group} has 1 to {last}")
    if not np.isfinite(point).all():
        raise StructureError(0, f"site {place} has a coordinate that is not finite")
    name = LETTERS[int(letter) - 1]
    # The point may be any of the orbit, and not the first in the table.
    orbit = positions[0].rotations @ point + positions[0].translations
    coordinates = orbit_coordinates(group, name, orbit)
    if coordinates is None:
        raise StructureError(0, f"site {place} is not on Wyckoff position {name} of group {group}")
    return int(element), name, coordinates


def _space_group(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,2}", text.strip()) or int(text) > 230:
        raise StructureError(0, f"the column {GROUP} holds {text[:20]!r}; it must hold a space group from 1 to 230")
    return int(text)


def _numbers(row: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """Return the numbers of a cell, which has the form of a list in Python and so in JSON."""
    try:
        return np.array(parse_json(row[name] or "", Path(name)), dtype=float)
    except (UnreadableError, ValueError, TypeError, OverflowError):
        raise StructureError(0, f"the column {name} does not hold a list of numbers") from None
