"""Parsing of physical quantities that users type: a number with an optional unit."""

from __future__ import annotations

import math
import re

from hybridcsp.errors import InputError

#: Factors of known units, by the target unit. Names are compared without case, except where two of them differ by case
#: only (``mbar`` and ``Mbar``).
_ANGSTROM = {"Å": 1.0, "angstrom": 1.0, "ang": 1.0, "A": 1.0, "nm": 10.0, "pm": 0.01, "bohr": 0.529177210903}
_HOUR = 3600.0
_UNITS: dict[str, dict[str, float]] = {
    "GPa": {
        "GPa": 1.0,
        "kbar": 0.1,
        "Mbar": 100.0,
        "mbar": 1e-7,
        "bar": 1e-4,
        "MPa": 1e-3,
        "kPa": 1e-6,
        "Pa": 1e-9,
        "TPa": 1e3,
        "atm": 1.01325e-4,
        "eV/Å^3": 160.21766208,
        "eV/A^3": 160.21766208,
    },
    "hours": {
        **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1.0),
        **dict.fromkeys(("min", "mins", "minute", "minutes"), 1 / 60),
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1 / _HOUR),
        **dict.fromkeys(("d", "day", "days"), 24.0),
    },
    "Å": _ANGSTROM,
    "Å^3": {
        **{f"{name}^3": factor**3 for name, factor in _ANGSTROM.items()},
        **{f"{name}3": factor**3 for name, factor in _ANGSTROM.items()},
        **{f"{name}^3/atom": factor**3 for name, factor in _ANGSTROM.items()},
    },
    "eV/Å": {"eV/Å": 1.0, "eV/A": 1.0, "eV/angstrom": 1.0, "meV/Å": 1e-3, "meV/A": 1e-3, "Ry/bohr": 25.711043},
    "eV/atom": {"eV/atom": 1.0, "meV/atom": 1e-3},
    "μ_B": dict.fromkeys(("μ_B", "μB", "mu_B", "muB", "uB"), 1.0),
    "e": {"e": 1.0},
    "degrees": dict.fromkeys(("degrees", "degree", "deg", "°"), 1.0),
    "bytes": {
        **dict.fromkeys(("B", "bytes", "byte"), 1.0),
        **{unit: 1e3**power for power, unit in enumerate(("kB", "MB", "GB", "TB"), 1)},
        **{unit: 1024.0**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    },
}
_UNITS["seconds"] = {name: factor * _HOUR for name, factor in _UNITS["hours"].items()}

_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\D.*)?", re.DOTALL)
_CLOCK = re.compile(r"\s*(?:(\d+)-)?(\d+):(\d\d):(\d\d)\s*")


def read_quantity(key: str, text: str, unit: str) -> float:
    """Read a finite number with an optional unit.

    Parameters
    ----------
    key
        Name of the quantity in the error message.
    text
        Text of the user, such as ``"50"``, ``"500 kbar"``, ``"30min"`` or, for times, ``"1-12:00:00"``.
    unit
        Unit of a bare number and of the result: one of ``GPa``, ``hours``, ``seconds``, ``Å``, ``Å^3``, ``eV/Å``,
        ``eV/atom``, ``μ_B``, ``e``, ``degrees``, ``bytes``; empty for a number without a unit.

    Raises
    ------
    InputError
        If the text is not such a number, or its unit is unknown or measures something else.

    Examples
    --------
    >>> read_quantity("--pressure", "500 kbar", "GPa")
    50.0
    >>> read_quantity("--hours", "30min", "hours")
    0.5
    """
    known = _UNITS.get(unit, {})
    clock = _CLOCK.fullmatch(text)
    if clock and unit in ("hours", "seconds"):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        total = ((24 * days + hours) * 60 + minutes) * 60 + seconds
        return total / _HOUR if unit == "hours" else float(total)
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise InputError(key, text, _wanted(unit))
    value, given = float(match[1]), (match[2] or "").strip()
    if given.startswith(",") and re.fullmatch(r",\d+.*", given):
        raise InputError(
            key, text, f"{_wanted(unit)} with a decimal point, such as {text.strip().replace(',', '.', 1)}"
        )
    value *= _factor(key, text, given, unit, known)
    if not math.isfinite(value):
        raise InputError(key, text, f"{_wanted(unit)} that is finite")
    return value


def _factor(key: str, text: str, given: str, unit: str, known: dict[str, float]) -> float:
    if not given:
        return 1.0
    # Look-alikes: the micro sign and the Greek letter, the Ångström sign and the letter; "³" means "^3".
    written = given.replace("³", "^3").replace("\u212b", "Å").replace("µ", "μ").replace(" ", "")
    if written in known:
        return known[written]
    alike = {factor for name, factor in known.items() if name.lower() == written.lower()}
    if len(alike) == 1:
        return alike.pop()
    if alike:
        same = [name for name in known if name.lower() == written.lower()]
        raise InputError(key, text, f"a number with an unambiguous unit; {given!r} may mean {' or '.join(same)}")
    if not known:
        raise InputError(key, text, "a number without a unit")
    raise InputError(key, text, f"{_wanted(unit)}; the known units are {', '.join(_one_of_each(known))}")


def _one_of_each(known: dict[str, float]) -> list[str]:
    """Return one name for each unit."""
    return list({factor: name for name, factor in reversed(known.items())}.values())[::-1]


def _wanted(unit: str) -> str:
    return {
        "": "a number",
        "GPa": "a pressure in GPa",
        "hours": "a time in hours",
        "seconds": "a time in seconds",
        "bytes": "a size in bytes",
    }.get(unit, f"a number in {unit}")
