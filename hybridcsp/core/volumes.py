"""The volume per atom to expect of a composition, at no pressure and under it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of an element that has no equation of state (beyond curium): volume in Å³, bulk modulus in GPa, and its derivative.
UNKNOWN_ELEMENT = (25.0, 50.0, 4.0)

# Compressions V/V0 at which equations of state are tabulated; the last stands for several TPa even in hydrogen.
_COMPRESSIONS = np.geomspace(1.0, 0.005, 4000)

# Halvings of an interval of pressures: to a millionth of a GPa and less.
_HALVINGS = 60


def expected_volume(composition: Mapping[str, int], pressure_gpa: float = 0.0) -> float:
    """Return the volume per atom to expect.

    At no pressure it is the measured volume of the solid element, or for compounds :func:`additive_volume`. Under
    pressure every element follows its own equation of state (Vinet's, fitted to measured solids) and the volumes add
    up. A compound that is denser than its elements together behaves as if bonding compressed it: it has at the pressure
    P the volume that its elements together have at P plus the pressure at which theirs is the compound's at no
    pressure. This makes it as much harder than its elements. A compound that is less dense than its elements together
    keeps its ratio to them.

    Parameters
    ----------
    composition
        Numbers of atoms by element.
    pressure_gpa
        In GPa, from 0.

    Returns
    -------
    float
        In Å³.

    References
    ----------
    Vinet, Ferrante, Rose, Smith, J. Geophys. Res. 92, 9319 (1987), doi:10.1029/JB092iB09p09319. The elements' sources
    are in ``data/equations_of_state.json``; what the estimate is worth is measured by
    ``benchmarks/atomic_volumes.py``.
    """
    elements = list(composition)
    ambient = _equation(elements[0])[0] if len(elements) == 1 else additive_volume(composition)
    if pressure_gpa <= 0:
        return ambient
    together = _mixed_volume(composition, 0.0)
    if ambient >= together:
        return ambient / together * _mixed_volume(composition, pressure_gpa)
    return _mixed_volume(composition, pressure_gpa + _pressure_of_bonding(composition, ambient))


def additive_volume(composition: Mapping[str, int]) -> float:
    """Return the sum of atomic volumes fitted to Materials Project crystals, in Å³ per atom at no pressure.

    An atom is the smaller, the more electronegative its neighbourhood is; the mean error is 7 % on formulas held out.
    Generators encode cells by their ratio to this volume: another fit would make their weights useless.
    """
    table = _atomic_volumes()
    atoms = [symbol for symbol, count in composition.items() for _ in range(count)]
    known = [table[symbol][0] for symbol in atoms if symbol in table]
    mean = sum(known) / len(known) if known else 0.0
    total = 0.0
    for symbol in atoms:  # in this order, so that searches repeat to the last bit
        if symbol in table:
            electronegativity, volume, slope = table[symbol]
            total += max(volume + slope * (mean - electronegativity), 0.3 * volume)
        else:
            total += _equation(symbol)[0]
    return total / len(atoms)


def bulk_modulus(composition: Mapping[str, int]) -> float:
    """Return the bulk modulus in GPa that :func:`expected_volume` implies at no pressure."""
    step = 1e-3
    volume, compressed = (expected_volume(composition, pressure) for pressure in (0.0, step))
    return volume * step / (volume - compressed)


def _pressure_of_bonding(composition: Mapping[str, int], volume: float) -> float:
    """Return the pressure in GPa at which the elements together have a volume per atom."""
    low, high = 0.0, 1.0
    while _mixed_volume(composition, high) > volume:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mixed_volume(composition, middle) > volume else (low, middle)
    return (low + high) / 2


def _mixed_volume(composition: Mapping[str, int], pressure_gpa: float) -> float:
    """Return the volume per atom of the elements together, each by its own equation of state."""
    total = sum(
        count * float(np.interp(pressure_gpa, *_curve(*_equation(symbol)))) for symbol, count in composition.items()
    )
    return total / sum(composition.values())


@cache
def _curve(volume: float, modulus: float, derivative: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate an equation of state: pressures in GPa, ascending, and volumes in Å³."""
    lengths = np.cbrt(_COMPRESSIONS)
    steepness = 1.5 * (derivative - 1)
    pressures = 3 * modulus * (1 - lengths) / lengths**2 * np.exp(steepness * (1 - lengths))
    return pressures, volume * _COMPRESSIONS


def _equation(symbol: str) -> tuple[float, float, float]:
    """Return volume per atom, bulk modulus and its derivative of a solid element."""
    known = _elements().get(symbol)
    return UNKNOWN_ELEMENT if known is None else (float(known[0]), float(known[1]), float(known[2]))


@cache
def _elements() -> dict[str, list[Any]]:
    return dict(_read("equations_of_state")["elements"])


@cache
def _atomic_volumes() -> dict[str, tuple[float, float, float]]:
    return dict(_read("atomic_volumes")["volumes"])


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads(files("hybridcsp").joinpath(f"data/{name}.json").read_text(encoding="utf-8")))
