"""Read the values of options: numbers, ranges, quantities with units, and tables of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from hybridcsp.errors import InputError
from hybridcsp.utils.quantities import read_quantity

#: Function that returns the value of a key of the configuration, given an option and all texts typed after it.
Reader = Callable[[str, Sequence[str]], Any]

#: Name of a property, sign and limits of a target.
_TARGET = re.compile(r"\s*([^\W\d]\w*)\s*(<=|>=|<|>|=)\s*(.*?)\s*")


def read_number(option: str, text: str, allowed: str) -> float:
    """Read a finite number.

    Parameters
    ----------
    option
        The option, for the error message.
    text
        The text after the option.
    allowed
        Description of the allowed values, for the error message.

    Raises
    ------
    InputError
        If the text is not a finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(option, text, allowed)
    return value


def read_fraction(option: str, text: str) -> float:
    """Read a number from 0 to 1."""
    value = read_number(option, text, "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise InputError(option, text, "a number from 0 to 1")
    return value


def read_targets(option: str, texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Read the wanted values of properties: ``"band_gap=1.5..2.5"``, ``"band_gap=1.5.."`` or ``"band_gap>=1.5"``.

    Limits of one property in several texts hold together.

    Returns
    -------
    dict
        Lowest and highest wanted value by name; infinite where there is no limit.

    Raises
    ------
    InputError
        If a text cannot be read, or no number is within the limits of a property.
    """
    form = "a property with the lowest and the highest value, such as band_gap=1.5..2.5, band_gap=1.5.. or density<=4"
    targets: dict[str, tuple[float, float]] = {}
    for text in texts:
        match = _TARGET.fullmatch(text)
        if match is None:
            raise InputError(option, text, form)
        name, sign, wanted = match.groups()
        first, dots, last = wanted.partition("..")
        if (sign == "=") != bool(dots) or not (first.strip() or last.strip()):
            raise InputError(option, text, form)
        if sign == "=":
            low = read_quantity(f"{option} {name}", first, "") if first.strip() else -math.inf
            high = read_quantity(f"{option} {name}", last, "") if last.strip() else math.inf
        else:
            limit = read_quantity(f"{option} {name}", wanted, "")
            low, high = (limit, math.inf) if sign.startswith(">") else (-math.inf, limit)
        known = targets.get(name, (-math.inf, math.inf))
        targets[name] = max(low, known[0]), min(high, known[1])
        if targets[name][0] > targets[name][1]:
            reason = f"no number is from {targets[name][0]:g} to {targets[name][1]:g}; the smaller limit comes first"
            raise InputError(option, text, reason=reason)
    return targets


def read_formula_units(text: str) -> list[int]:
    """Read a number of formula units or a range: ``"2"`` or ``"1-4"``."""
    low, dash, high = text.partition("-")
    try:
        return [int(low), int(high if dash else low)]
    except ValueError:
        raise InputError("--formula-units", text, "a whole number from 1, or a range such as 1-4") from None


def last_text(_: str, texts: Sequence[str]) -> str:
    """Return the last text; the configuration reads its value."""
    return texts[-1]


def all_texts(_: str, texts: Sequence[str]) -> list[str]:
    """Return all texts of a repeated option."""
    return list(texts)


def formulas(option: str, texts: Sequence[str]) -> list[str]:
    """Return the formulas of a repeated option, which commas separate as well: ``"V2O5,VO2"``."""
    found = [word.strip() for text in texts for word in text.split(",")]
    if not all(found):
        raise InputError(option, ",".join(texts), "a formula, or several with commas between them, such as V2O5,VO2")
    return found


def formula_units(_: str, texts: Sequence[str]) -> list[int]:
    """Read the last text as a number or range of formula units."""
    return read_formula_units(texts[-1])


def span(unit: str) -> Reader:
    """Return a reader of two numbers with the smaller first, such as ``"9-14"``."""

    def read(option: str, texts: Sequence[str]) -> list[float]:
        low, dash, high = texts[-1].strip().partition("-")
        if not (low and dash and high):
            raise InputError(option, texts[-1], f"two numbers in {unit} with a dash between them, such as 9-14")
        return [read_quantity(option, low, unit), read_quantity(option, high, unit)]

    return read


def table(unit: str, example: str) -> Reader:
    """Return a reader of numbers by name, such as ``"Ti-O=1.7"``, joined by commas or in repeated options."""

    def read(option: str, texts: Sequence[str]) -> dict[str, float]:
        values: dict[str, float] = {}
        for text in ",".join(texts).split(","):
            name, equals, value = (part.strip() for part in text.partition("="))
            if not (name and equals and value):
                raise InputError(option, text, f"a name and a number in {unit}, such as {example}")
            if name in values:
                raise InputError(option, text, reason=f"{name} is given more than once")
            values[name] = read_quantity(f"{option} {name}", value, unit)
        return values

    return read


def spacegroup_numbers(option: str, texts: Sequence[str]) -> list[int]:
    """Read space group numbers: ``"136"``, ``"136,141"`` or ``"195-230"``."""
    numbers: list[int] = []
    for text in ",".join(texts).split(","):
        low, dash, high = (part.strip() for part in text.partition("-"))
        if not low.isdigit() or (dash and not high.isdigit()):
            raise InputError(option, text, "a space group number, a list such as 136,141 or a range such as 195-230")
        first, last = int(low), int(high if dash else low)
        if not 1 <= first <= last <= 230:
            raise InputError(option, text, "a number from 1 to 230, or a range of them with the smaller first")
        numbers += range(first, last + 1)
    return sorted(set(numbers))


def cell_parameters(option: str, texts: Sequence[str]) -> list[float]:
    """Read three lengths and three angles: ``"4.6,4.6,2.96,90,90,90"``."""
    parts = texts[-1].replace(",", " ").split()
    if len(parts) != 6:
        raise InputError(option, texts[-1], "six numbers: a, b, c in Å and alpha, beta, gamma in degrees")
    units = ["Å"] * 3 + ["degrees"] * 3
    return [read_quantity(option, part, unit) for part, unit in zip(parts, units, strict=True)]
