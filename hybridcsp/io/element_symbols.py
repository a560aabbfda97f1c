"""Element symbols in files: symbols with charges, labels, isotopes and capitals, and the order of elements."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.io.frames import StructureError

#: Isotopes of hydrogen with symbols of their own. Potentials do not distinguish them, so they are read as hydrogen.
ISOTOPES = {"D": "H", "T": "H"}

# Charges and numbers after a symbol: Fe3+, O2-, Fe+3, Cu0+, Si4, Fe(3+), Fe1_a.
_SUFFIX = re.compile(r"(?:[\d+\-.()]+|[_/:].*)*")

# Two symbols of two letters each, which never occur in the label of a site with one element: CaMg1, Ca1-Mg2.
_PAIR = re.compile(r"\W*([A-Z][a-z])[\d.+]*[-_:]?([A-Z][a-z])(?![a-z])")

#: The heaviest element that is looked for in labels; heavier ones form no crystals, and NH4 is not nihonium.
_HEAVIEST = 103

_ELEMENTS = {symbol for symbol in atomic_numbers if symbol != "X"}


def parse_element(text: str) -> str:
    """Return the element of an entry in the symbol line of a POSCAR: ``Ti``, ``Ti_pv``, ``Ti/0a1b``.

    Deuterium and tritium are read as hydrogen, and capitals are ignored where only one element is possible.

    Raises
    ------
    StructureError
        If the text names no element.
    """
    symbol = re.split(r"[/_.]", text, maxsplit=1)[0]
    found = find_symbol(symbol)
    if found is None:
        raise StructureError(0, f"{text[:20]!r} is not an element symbol, such as Ti or O")
    return found


def find_symbol(text: str) -> str | None:
    """Return the element symbol that a text spells, regardless of case; ``None`` if it spells none."""
    symbol = text if text in _ELEMENTS else text.capitalize()
    symbol = ISOTOPES.get(symbol, symbol)
    return symbol if symbol in _ELEMENTS else None


def element_of_type_symbol(text: str) -> str | None:
    """Return the element of a type symbol in a CIF (``Fe``, ``FE3+``, ``O2-``), or ``None`` if not a single one."""
    letters = re.match(r"[A-Za-z]{1,2}(?![A-Za-z])", text.strip())
    if letters is None or not _SUFFIX.fullmatch(text.strip(), letters.end()):
        return None
    return find_symbol(letters[0])


def element_of_label(text: str, stated: Container[str] = ()) -> str | None:
    """Return the element of a site's label (``Fe1``, ``CU2``, ``O1A``, ``OW``), or ``None`` if it is not a single one.

    Parameters
    ----------
    text
        The label.
    stated
        The elements of the formula that the file states. They decide between the readings of capitals such as ``CO1``,
        which is cobalt or a carbon with the letter O.
    """
    letters = re.match(r"[A-Za-z]+", text)
    if letters is None:
        return None
    one, two = find_symbol(text[0]), find_symbol(text[:2]) if len(letters[0]) > 1 else None
    rest = letters[0][1:]
    if rest.isupper() and two is not None and atomic_numbers[two] > _HEAVIEST:
        two = None
    if rest[:1].islower() or not rest:
        # Written like a symbol (Fe, fe1): both letters belong to it, unless a word begins there (Wat, Met).
        return two if rest and not rest[1:2].islower() else one if not rest else None
    candidates = [symbol for symbol in (two, one) if symbol is not None]
    if stated:
        candidates = [symbol for symbol in candidates if symbol in stated]
    return candidates[0] if candidates else None


def names_several(text: str) -> bool:
    """Return whether a text names several elements (``(Cu,Al)1``, ``0.6Cu + 0.4Al``, ``CU/AL``, ``Cu_Al``)."""
    if (pair := _PAIR.match(text)) and find_symbol(pair[1]) != find_symbol(pair[2]) and _are_elements(pair[1], pair[2]):
        return True
    parts = [*re.split(r"[,/+;&|\s]+", text), *re.findall(r"[A-Z][a-z]?\d*\.\d+", text)]
    named = {
        element_of_type_symbol(match[0]) for part in parts if (match := re.search(r"[A-Z][A-Za-z]?(?![A-Za-z])", part))
    }
    return len(named - {None}) > 1


def _are_elements(*symbols: str) -> bool:
    return all(atomic_numbers.get(symbol, _HEAVIEST + 1) <= _HEAVIEST for symbol in symbols)


def group_by_element(atoms: Atoms, elements: Sequence[str] = ()) -> tuple[list[str], list[int], NDArray[np.int64]]:
    """Group the atoms of a structure by element.

    Parameters
    ----------
    atoms
        The structure.
    elements
        All elements in the order wanted; if empty, those of the structure by increasing electronegativity.

    Returns
    -------
    list of str
        The elements in order.
    list of int
        The number of atoms of each element; 0 for elements that do not occur.
    array
        The indices of the atoms in the order of their elements, shape ``(n_atoms,)``.

    Raises
    ------
    InputError
        If the structure contains an element that is not in ``elements``.
    """
    occurring = set(atoms.symbols)
    order = list(elements) or by_electronegativity(occurring)
    others = occurring - set(order)
    if others:
        raise InputError(
            "elements", " ".join(sorted(others)), reason=f"the other code's search has only {' '.join(order)}"
        )
    symbols = np.asarray(atoms.symbols)
    groups = [np.flatnonzero(symbols == symbol) for symbol in order]
    return order, [len(group) for group in groups], np.concatenate(groups)


def by_electronegativity(symbols: Iterable[str]) -> list[str]:
    """Sort elements by increasing electronegativity, as in formulas; those without a value come last."""
    from pymatgen.core import Element

    return sorted(symbols, key=lambda symbol: (Element(symbol).X if not math.isnan(Element(symbol).X) else 9.0, symbol))
