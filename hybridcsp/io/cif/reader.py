"""Crystallographic information files: every data block with atoms is a crystal, or is refused with the reason.

A reader of our own: ASE's leaves atoms doubled where coordinates are rounded, reads one element of a mixed site, and
takes ``.`` for a partial occupancy; pymatgen's leaves out sites whose symbol it does not know, and takes hexagonal axes
for a rhombohedral cell. Settings and operations of space groups are spglib's. Both are witnesses in the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from hybridcsp.io.cif.formula import check_contents, stated_formula
from hybridcsp.io.cif.operations import Operations, operations_of, unlisted
from hybridcsp.io.cif.sites import Site, expand, number, sites_of
from hybridcsp.io.cif.syntax import UNKNOWN, DataBlock, parse_block, read_blocks
from hybridcsp.io.construction import build_crystal
from hybridcsp.io.frames import StructureError

_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")

#: By how much the volume of the cell may differ from the one stated, as a fraction.
_VOLUME_TOLERANCE = 0.05

#: Atoms of a structure have a symmetry if their images are atoms within this distance (Å), ...
_SYMMETRIC = 0.3
_TRIED = 50  # ... which is found out for the first so many


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class CifCrystal:
    """The crystal of a data block, the block's name, and its first line (they count from 1)."""

    name: str
    line: int
    atoms: Atoms


def read_cif(lines: Iterable[str]) -> Iterator[CifCrystal | tuple[int, str]]:
    """Yield the crystals of a CIF, one for each data block with atoms; or a line and what is wrong there.

    Blocks without atoms (of a publication's text, of powder patterns) are passed over, unless there are no others.
    """
    found, empty = False, None
    try:
        for name, line, text in read_blocks(lines):
            result = _of_block(name, line, text)
            if result is None:
                empty = line if empty is None else empty
            else:
                found = True
                yield result
    except StructureError as error:  # a block without an end
        found = True
        yield error.offset, error.reason
    if not found and empty is not None:
        yield empty, "no data block with atoms (_atom_site_fract_x, _y and _z)"


def _of_block(name: str, line: int, text: Sequence[str]) -> CifCrystal | tuple[int, str] | None:
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
        raise StructureError(0, "an incommensurately modulated structure, which is no crystal of one cell")
    cell = _cell(block)
    stated = stated_formula(block)
    sites = sites_of(block, stated)
    if not sites:
        raise StructureError(0, "no atoms: all sites are empty or dummies")
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
                0, f"{chosen.name} or {operations.name}? Its origin decides what the crystal is; list the operations"
            )
    named = unlisted(block, cell @ cell.T)
    if named and not any(_have_symmetry(atoms, group) for group in named):
        raise StructureError(
            0,
            f"only the identity is listed of the {len(named[0])} operations of the space group {named[0].name}, "
            "and the atoms listed do not have its symmetry",
        )
    return atoms


def _cell(block: DataBlock) -> np.ndarray:
    lengths = []
    for name in _LENGTHS:
        text = block.value(name)
        if text is None:
            raise StructureError(0, f"the cell has no {name}")
        lengths.append(number(text, name))
    # 90 degrees are the default of the CIF core dictionary.
    angles = [90.0 if (text := block.value(name)) is None else number(text, name) for name in _ANGLES]
    if not (min(lengths) > 0 and all(0 < angle < 180 for angle in angles)):
        raise StructureError(0, f"no cell has the lengths {lengths} and the angles {angles}")
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            cell: np.ndarray = cellpar_to_cell([*lengths, *angles])
    except (ValueError, AssertionError):
        cell = np.full((3, 3), np.nan)
    if not np.isfinite(cell).all():
        raise StructureError(0, f"no cell has the angles {angles}")
    _check_volume(block, float(abs(np.linalg.det(cell))))
    return cell


def _check_volume(block: DataBlock, volume: float) -> None:
    text = block.value("_cell_volume")
    if text is None:
        return
    try:
        stated = number(text, "_cell_volume")
    except StructureError:
        return
    if abs(volume - stated) > _VOLUME_TOLERANCE * volume:
        raise StructureError(0, f"the cell has a volume of {volume:.6g} Å³, but {stated:g} Å³ are stated")


def _expanded(
    block: DataBlock, sites: Sequence[Site], operations: Operations, cell: np.ndarray, stated: dict[str, float]
) -> Atoms:
    symbols, places = expand(sites, operations, cell)
    check_contents(block, stated, Counter(symbols))
    return build_crystal(symbols, places @ cell, cell)


def _are_same(one: Atoms, other: Atoms) -> bool:
    """Whether two lists of atoms in the same cell are the same atoms in another order."""
    if len(one) != len(other):
        return False
    places, others = one.get_scaled_positions(), other.get_scaled_positions()
    for symbol, place in zip(one.symbols, places, strict=True):
        apart = others[np.asarray(other.symbols) == symbol] - place
        if not len(apart) or np.abs(apart - np.rint(apart)).max(axis=1).min() > 1e-3:
            return False
    return True


def _have_symmetry(atoms: Atoms, group: Operations) -> bool:
    """Whether images of atoms are atoms of the same element."""
    places, symbols = atoms.get_scaled_positions(), np.asarray(atoms.symbols)
    for symbol, place in zip(symbols[:_TRIED], places, strict=False):
        apart = group.images(place)[:, None] - places[symbols == symbol]
        distances = np.linalg.norm((apart - np.rint(apart)) @ atoms.cell.array, axis=2)
        if distances.min(axis=1).max() > _SYMMETRIC:
            return False
    return True
