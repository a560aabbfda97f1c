"""Elements as files write them: symbols with charges, labels, isotopes, capitals."""

from __future__ import annotations

import re
from collections.abc import Container

from ase.data import atomic_numbers

from hybridcsp.io.text import BrokenError

#: Hydrogen's isotopes; energies of potentials do not depend on them, and all readers take them for hydrogen.
ISOTOPES = {"D": "H", "T": "H"}

# Charges and numbers behind a symbol: Fe3+, O2-, Fe+3, Cu0+, Si4, Fe(3+), Fe1_a.
_SUFFIX = re.compile(r"(?:[\d+\-.()]+|[_/:].*)*")

# Two symbols of two letters, which no label of one site has: CaMg1, Ca1-Mg2.
_PAIR = re.compile(r"\W*([A-Z][a-z])[\d.+]*[-_:]?([A-Z][a-z])(?![a-z])")

#: Heavier elements are in no crystal: NH4 is not nihonium.
_HEAVIEST = 103

_ELEMENTS = {symbol for symbol in atomic_numbers if symbol != "X"}


def element(text: str) -> str:
    """Return an element's symbol from what POSCARs have in its place: ``Ti``, ``Ti_pv``, ``Ti/0a1b``.

    Deuterium and tritium are hydrogen, and capitals do not matter where only one element is possible.

    Raises
    ------
    BrokenError
        If it is none.
    """
    symbol = re.split(r"[/_.]", text, maxsplit=1)[0]
    found = symbol_of(symbol)
    if found is None:
        raise BrokenError(0, f"{text[:20]!r} is not an element")
    return found


def symbol_of(text: str) -> str | None:
    """Return the symbol that a text is, in whatever case, ``None`` if it is none; isotopes are hydrogen."""
    symbol = text if text in _ELEMENTS else text.capitalize()
    symbol = ISOTOPES.get(symbol, symbol)
    return symbol if symbol in _ELEMENTS else None


def of_type_symbol(text: str) -> str | None:
    """Return the element of a type symbol of a CIF (``Fe``, ``FE3+``, ``O2-``), ``None`` if it names no single one."""
    letters = re.match(r"[A-Za-z]{1,2}(?![A-Za-z])", text.strip())
    if letters is None or not _SUFFIX.fullmatch(text.strip(), letters.end()):
        return None
    return symbol_of(letters[0])


def of_label(text: str, stated: Container[str] = ()) -> str | None:
    """Return the element of a site's label (``Fe1``, ``CU2``, ``O1A``, ``OW``), ``None`` if it names no single one.

    Parameters
    ----------
    text
        The label.
    stated
        The elements of the formula, where the file states one. Capitals that may be read as one element or as another
        with a letter behind it (``CO1``) are read as what the formula has.
    """
    letters = re.match(r"[A-Za-z]+", text)
    if letters is None:
        return None
    one, two = symbol_of(text[0]), symbol_of(text[:2]) if len(letters[0]) > 1 else None
    rest = letters[0][1:]
    if rest.isupper() and two is not None and atomic_numbers[two] > _HEAVIEST:
        two = None
    if rest[:1].islower() or not rest:
        # As a symbol is written, Fe or fe1: both letters belong to it, and no word follows (Wat, Met).
        return two if rest and not rest[1:2].islower() else one if not rest else None
    candidates = [symbol for symbol in (two, one) if symbol is not None]
    if stated:
        candidates = [symbol for symbol in candidates if symbol in stated]
    return candidates[0] if candidates else None


def names_several(text: str) -> bool:
    """Whether a text names several elements: ``(Cu,Al)1``, ``0.6Cu + 0.4Al``, ``CU/AL``, ``CuAl1``, ``Cu_Al``."""
    if (pair := _PAIR.match(text)) and symbol_of(pair[1]) != symbol_of(pair[2]) and _are_elements(pair[1], pair[2]):
        return True
    parts = [*re.split(r"[,/+;&|\s]+", text), *re.findall(r"[A-Z][a-z]?\d*\.\d+", text)]
    named = {of_type_symbol(match[0]) for part in parts if (match := re.search(r"[A-Z][A-Za-z]?(?![A-Za-z])", part))}
    return len(named - {None}) > 1


def _are_elements(*symbols: str) -> bool:
    return all(atomic_numbers.get(symbol, _HEAVIEST + 1) <= _HEAVIEST for symbol in symbols)
