"""Reading of the data blocks of a CIF as structures, with checks of symmetry, formula and volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from hybridcsp.io.cif.formula import check_contents, stated_formula
from hybridcsp.io.cif.operations import Operations, operations_of, unlisted
from hybridcsp.io.cif.sites import Site, expand, parse_number, sites_of
from hybridcsp.io.cif.syntax import UNKNOWN, DataBlock, parse_block, read_blocks
from hybridcsp.io.construction import build_crystal
from hybridcsp.io.frames import StructureError

_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")

#: Maximum relative difference between the volume of the cell and the stated one.
_VOLUME_TOLERANCE = 0.05

#: Maximum distance in Å between the image of an atom and the nearest atom for a symmetry of the structure, and the
#: maximum number of atoms for which this is checked.
_SYMMETRY_TOLERANCE = 0.3
_MAX_CHECKED_ATOMS = 50


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CifCrystal:
    """The structure of a data block, with the name of the block and the number of its first line, from 1."""

    name: str
    line: int
    atoms: Atoms


def read_cif(lines: Iterable[str]) -> Iterator[CifCrystal | tuple[int, str]]:
    """Yield the structure of each data block with atoms.

    Blocks without atoms (text of a publication, powder patterns) are skipped, unless there are no others.

    Parameters
    ----------
    lines
        The lines of the CIF.

    Yields
    ------
    CifCrystal or tuple of int and str
        A structure, or the number of a line (from 1) and the reason why its block cannot be read.
    """
    found, empty = False, None
    try:
        for name, line, text in read_blocks(lines):
            result = _read_block(name, line, text)
            if result is None:
                empty = line if empty is None else empty
            else:
                found = True
                yield result
    except StructureError as error:  # a block that is too long
        found = True
        yield error.offset, error.reason
    if not found and empty is not None:
        yield empty, "there is no data block with atoms (_atom_site_fract_x, _y and _z)"


def _read_block(name: str, line: int, text: Sequence[str]) -> CifCrystal | tuple[int, str] | None:
    try:
        block = parse_block(name, line, text)
        if not _has_atoms(block):
            return None
        return CifCrystal(name="" if name == UNKNOWN else name, line=line, atoms=_crystal(block))
    except StructureError as error:
        return line + error.offset, error.reason


def _has_atoms(block: DataBlock) -> bool:
    return any(name.startswith(("_atom_site_fract_", "_atom_site_cartn_")) for name in block.items)


def _crystal(block: DataBlock) -> Atoms:
    if (dimension := block.value("_cell_modulation_dimension")) is not None and dimension != "0":
        raise StructureError(0, "the structure is incommensurately modulated and cannot be described by one cell")
    cell = _cell(block)
    stated = stated_formula(block)
    sites = sites_of(block, stated)
    if not sites:
        raise StructureError(0, "it has no atoms: all sites are empty or dummies")
    readings, reason = [], None
    for operations in operations_of(block, cell @ cell.T):
        try:
            readings.append((operations, _expanded(block, sites, operations, cell, stated)))
        except StructureError as error:
            reason = reason or error
    if reason is not None and not readings:
        raise reason
    (chosen, atoms), *others = readings
    for operations, other in others:
        if not _are_same(atoms, other):
            raise StructureError(
                0,
                f"the origin of the space group is ambiguous: {chosen.name} and {operations.name} give different "
                "crystals; list the symmetry operations",
            )
    named = unlisted(block, cell @ cell.T)
    if named and not any(_have_symmetry(atoms, group) for group in named):
        raise StructureError(
            0,
            f"only the identity is listed of the {len(named[0])} operations of the space group {named[0].name}, "
            "and the listed atoms do not have its symmetry; list all operations or all atoms",
        )
    return atoms


def _cell(block: DataBlock) -> np.ndarray:
    lengths = []
    for name in _LENGTHS:
        text = block.value(name)
        if text is None:
            raise StructureError(0, f"the cell lacks {name}")
        lengths.append(parse_number(text, name))
    # 90 degrees are the default of the CIF core dictionary.
    angles = [90.0 if (text := block.value(name)) is None else parse_number(text, name) for name in _ANGLES]
    if not (min(lengths) > 0 and all(0 < angle < 180 for angle in angles)):
        raise StructureError(0, f"a cell with the lengths {lengths} and the angles {angles} is impossible")
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            cell: np.ndarray = cellpar_to_cell([*lengths, *angles])
    except (ValueError, AssertionError):
        cell = np.full((3, 3), np.nan)
    if not np.isfinite(cell).all():
        raise StructureError(0, f"a cell with the angles {angles} is impossible")
    _check_volume(block, float(abs(np.linalg.det(cell))))
    return cell


def _check_volume(block: DataBlock, volume: float) -> None:
    text = block.value("_cell_volume")
    if text is None:
        return
    try:
        stated = parse_number(text, "_cell_volume")
    except StructureError:
        return
    if abs(volume - stated) > _VOLUME_TOLERANCE * volume:
        raise StructureError(0, f"the cell has a volume of {volume:.6g} Å³, but the stated volume is {stated:g} Å³")


def _expanded(
    block: DataBlock, sites: Sequence[Site], operations: Operations, cell: np.ndarray, stated: dict[str, float]
) -> Atoms:
    symbols, places = expand(sites, operations, cell)
    check_contents(block, stated, Counter(symbols))
    return build_crystal(symbols, places @ cell, cell)


def _are_same(one: Atoms, other: Atoms) -> bool:
    """Return whether two structures in the same cell differ only in the order of their atoms."""
    if len(one) != len(other):
        return False
    places, others = one.get_scaled_positions(), other.get_scaled_positions()
    for symbol, place in zip(one.symbols, places, strict=True):
        difference = others[np.asarray(other.symbols) == symbol] - place
        if not len(difference) or np.abs(difference - np.rint(difference)).max(axis=1).min() > 1e-3:
            return False
    return True


def _have_symmetry(atoms: Atoms, group: Operations) -> bool:
    """Return whether the images of atoms under the operations are atoms of the same element."""
    places, symbols = atoms.get_scaled_positions(), np.asarray(atoms.symbols)
    for symbol, place in zip(symbols[:_MAX_CHECKED_ATOMS], places, strict=False):
        difference = group.images(place)[:, None] - places[symbols == symbol]
        distances = np.linalg.norm((difference - np.rint(difference)) @ atoms.cell.array, axis=2)
        if distances.min(axis=1).max() > _SYMMETRY_TOLERANCE:
            return False
    return True
