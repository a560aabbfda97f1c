"""Normalisation of chemical formulas that users type, and explanations of invalid ones."""

from __future__ import annotations

import re
import unicodedata

from ase.data import chemical_symbols

_SYMBOLS = {symbol.lower(): symbol for symbol in chemical_symbols[1:]}

#: Interpretations of a formula typed in the wrong case: largest number that is generated, and that is shown.
_READINGS = 100
_NAMED = 4

_RIGHT = "it must be a chemical formula such as TiO2, MgSiO3 or Ca(OH)2"

#: Longest text that is interpreted.
_LONGEST = 60


def normalise_formula(text: str) -> str:
    """Return a formula without spaces and with plain digits: ``"TiO₂"`` and ``"Ti O2"`` are ``"TiO2"``.

    Only spaces before a capital letter, a digit or a bracket are removed, so that two symbols never merge into a third
    one. Spaces between bare elements stay, because these may be meant as a chemical system.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    return text if elements_of_system(text) else re.sub(r"\s+(?=[A-Z0-9()\[\]])", "", text)


def explain_formula(text: str) -> str:
    """Return why a formula cannot be used and its correct form, as a clause of an error message.

    Examples
    --------
    >>> explain_formula("tio2")
    "did you mean 'TiO2'? Symbols of elements begin with a capital letter"
    """
    if len(text) > _LONGEST:
        return _RIGHT
    if elements := elements_of_system(text):
        return f"it must be one formula, such as {''.join(elements)}, and not a chemical system"
    if reason := _explain_system(text):
        return reason
    if match := re.fullmatch(r"(.*[^\s.·*•])\s*[.·*•]\s*(\d*)H2O", text):
        return f"did you mean '{match[1]}(H2O){match[2]}'? Water of crystallisation is written as a group"
    if re.search(r"\d[.,]\d", text):
        return "it must contain whole numbers of atoms: multiply them, for example Fe0.5O to FeO2"
    if re.search(r"[+-]\d*$", text):
        return f"{_RIGHT}, without a charge; initial charges of elements are given with --charge (initial_charges)"
    readings = _readings(text)
    if not readings:
        return _RIGHT
    named = " or ".join(repr(reading) for reading in readings[:_NAMED])
    return f"did you mean {named}? Symbols of elements begin with a capital letter"


def _explain_system(text: str) -> str:
    """Return why a text that looks like a chemical system, such as ``"cu-Au"``, is none; empty for other texts."""
    parts = re.split(r"\s*[-,;/]\s*", text.strip())
    if len(parts) < 2 or not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,5}", part) for part in parts):
        return ""
    meant = [_SYMBOLS.get(part.lower()) for part in parts]
    if all(meant):
        return f"did you mean '{'-'.join(map(str, meant))}'? Symbols of elements begin with a capital letter"
    strange = next(part for part, symbol in zip(parts, meant, strict=True) if symbol is None)
    return f"{strange!r} is not an element; a chemical system is written as its elements, such as V-O or Mg-Mn-O"


def elements_of_system(text: str) -> list[str]:
    """Return the elements of a chemical system such as ``"Ti-O"`` or ``"Ti, O"``; an empty list for other texts."""
    parts = [part for part in re.split(r"[-,;/\s]+", text) if part]
    return parts if len(parts) > 1 and set(parts) <= set(chemical_symbols[1:]) else []


def _readings(text: str) -> list[str]:
    """Return the formulas that a text may mean if case is ignored: one for each division into symbols."""
    found = [""]
    for part in re.findall(r"[A-Za-z]+|[^A-Za-z]+", text):
        if not part[0].isalpha():
            if not re.fullmatch(r"[0-9()\[\]]+", part):
                return []
            found = [begin + part for begin in found]
            continue
        cuts = _cuts(part.lower())
        found = [begin + cut for begin in found for cut in cuts][:_READINGS]
    return sorted(set(found) - {text}, key=lambda reading: (_distance(reading, text), _symbols(reading), reading))


def _cuts(letters: str) -> list[str]:
    """Return all divisions of letters into symbols of elements, at most ``_READINGS``."""
    ways: list[list[str]] = [[""]]
    for end in range(1, len(letters) + 1):
        ways.append(
            [
                begin + _SYMBOLS[letters[end - size : end]]
                for size in (2, 1)
                if size <= end and letters[end - size : end] in _SYMBOLS
                for begin in ways[end - size]
            ][:_READINGS]
        )
    return ways[-1]


def _symbols(formula: str) -> int:
    return sum(letter.isupper() for letter in formula)


def _distance(reading: str, text: str) -> int:
    """Count the letters whose case differs; 0 for a text in one case, whose readings are all equally likely."""
    if text in (text.lower(), text.upper()):
        return 0
    return sum(a != b for a, b in zip(reading, text, strict=True))
