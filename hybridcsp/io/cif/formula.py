"""Comparison of the atoms of a CIF with its stated chemical formula."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping

from hybridcsp.io.cif.syntax import DataBlock
from hybridcsp.io.element_symbols import find_symbol
from hybridcsp.io.frames import StructureError

_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d+(?:\.\d+)?|\.\d+)?(?:\(\d+\))?")

#: Maximum relative difference between numbers of atoms and the stated ones.
_TOLERANCE = 0.01


def stated_formula(block: DataBlock) -> dict[str, float]:
    """Return the number of atoms of each element in the stated formula; empty if none is stated in numbers.

    ``_chemical_formula_sum`` is read, or else ``_chemical_formula_moiety``. Deuterium and tritium count as hydrogen.
    """
    text = block.value("_chemical_formula_sum")
    if text is not None:
        return _parse_formula(text) or {}
    text = block.value("_chemical_formula_moiety")
    return _parse_moieties(text) if text is not None else {}


def check_contents(block: DataBlock, stated: Mapping[str, float], atoms: Mapping[str, int]) -> None:
    """Check the atoms of a cell against the stated formula.

    Elements and their ratios must agree with the formula, and the number of units in the cell with
    ``_cell_formula_units_Z``. Programs differ in whether the formula is that of the smallest unit, and in which unit Z
    counts; every such interpretation is accepted.

    Parameters
    ----------
    block
        The data block.
    stated
        The stated formula: number of atoms by element; empty if none is stated.
    atoms
        Number of atoms in the cell by element.

    Raises
    ------
    StructureError
        If they contradict each other.
    """
    if not stated:
        return
    units = sum(atoms.values()) / sum(stated.values())
    differing = [
        element
        for element in {*stated, *atoms}
        if abs(atoms.get(element, 0) - units * stated.get(element, 0)) > max(0.02, _TOLERANCE * atoms.get(element, 0))
    ]
    if differing:
        raise StructureError(0, f"the atoms are {_shown(atoms)}, but the stated formula is {_shown(stated)}")
    z = _units(block)
    if z is None:
        return
    in_formula = _divisor(stated)
    in_cell = units * in_formula  # number of smallest units in the cell
    # Z counts units of the formula, or smallest units; or the formula is that of the whole cell.
    is_cell = math.isclose(in_cell, in_formula, rel_tol=_TOLERANCE) and in_formula % z == 0
    if not is_cell and not any(math.isclose(in_cell, n, rel_tol=_TOLERANCE) for n in (z * in_formula, z)):
        raise StructureError(
            0, f"the cell contains {_shown(atoms)}, but {z} formula units of {_shown(stated)} are stated"
        )


def _units(block: DataBlock) -> int | None:
    text = block.value("_cell_formula_units_z")
    return int(text) if text is not None and text.isdecimal() and 0 < len(text) < 6 and int(text) > 0 else None


def _parse_formula(text: str) -> dict[str, float] | None:
    """Parse a formula such as ``'O2 Ti'``; return ``None`` for other text, such as variables."""
    found: dict[str, float] = defaultdict(float)
    rest = re.sub(r"[\s*]+", " ", text.replace("'", " ").replace('"', " ")).strip()
    while rest:
        match = _ELEMENT.match(rest)
        symbol = find_symbol(match[1]) if match else None
        if match is None or symbol is None:
            return None
        found[symbol] += float(match[2] or 1)
        rest = re.sub(r"^\s*(?:\d*[+-])?\s*", "", rest[match.end() :]) if match[2] else rest[match.end() :].lstrip()
    return {element: number for element, number in found.items() if number > 0}


def _parse_moieties(text: str) -> dict[str, float]:
    """Parse a formula of moieties such as ``'C6 H6 2+, 2(H2 O)'``; return an empty mapping for other text."""
    found: dict[str, float] = defaultdict(float)
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d*\.?\d*)\s*\(?([^()]*?)(?:\s\d*[+-])?\s*\)?\s*", part)
        atoms = _parse_formula(match[2]) if match else None
        if match is None or not atoms:
            return {}
        for element, number in atoms.items():
            found[element] += number * float(match[1] or 1)
    return dict(found)


def _divisor(formula: Mapping[str, float]) -> int:
    """Return the number of smallest units in a formula of whole numbers; 1 for other formulas."""
    if any(abs(number - round(number)) > 1e-6 for number in formula.values()):
        return 1
    return math.gcd(*(round(number) for number in formula.values()))


def _shown(formula: Mapping[str, float]) -> str:
    return " ".join(f"{element}{number:g}" if number != 1 else element for element, number in sorted(formula.items()))
