"""The expected volume per atom of a composition as a function of pressure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Volume (Å³), bulk modulus (GPa) and its pressure derivative of elements without an equation of state (beyond curium).
UNKNOWN_ELEMENT = (25.0, 50.0, 4.0)

# Compressions V/V0 at which equations of state are tabulated; the last corresponds to several TPa even in hydrogen.
_COMPRESSIONS = np.geomspace(1.0, 0.005, 4000)

# Bisections of an interval of pressures, which locate a pressure to less than a millionth of a GPa.
_HALVINGS = 60


def expected_volume(composition: Mapping[str, int], pressure_gpa: float = 0.0) -> float:
    """Return the expected volume per atom of a crystal.

    At zero pressure it is the measured volume of the solid element, or :func:`additive_volume` for compounds. Under
    pressure every element follows its own equation of state (of Vinet, fitted to measured solids), and the volumes are
    added. A compound that is denser than its elements is treated as if bonding compressed it by an internal pressure,
    at which the elements together have the volume of the compound at zero pressure; this pressure is added to the
    external one. A compound that is less dense than its elements keeps its ratio to their volume.

    Parameters
    ----------
    composition
        Numbers of atoms by element.
    pressure_gpa
        External pressure in GPa, from 0.

    Returns
    -------
    float
        Volume per atom in Å³.

    References
    ----------
    Vinet, Ferrante, Rose, Smith, J. Geophys. Res. 92, 9319 (1987), doi:10.1029/JB092iB09p09319. The elements' sources
    are in ``data/equations_of_state.json``; ``benchmarks/atomic_volumes.py`` measures the accuracy of the estimate.
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
    """Return the mean of atomic volumes fitted to Materials Project crystals, in Å³ per atom at zero pressure.

    The volume of an atom decreases with the electronegativity of its neighbourhood; the mean error is 7 % on held-out
    formulas. Generators encode cells by their ratio to this volume, so that another fit would invalidate their weights.
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
    """Return the bulk modulus in GPa that :func:`expected_volume` implies at zero pressure."""
    step = 1e-3
    volume, compressed = (expected_volume(composition, pressure) for pressure in (0.0, step))
    return volume * step / (volume - compressed)


def _pressure_of_bonding(composition: Mapping[str, int], volume: float) -> float:
    """Return the pressure in GPa at which the elements together have the given volume per atom (Å³)."""
    low, high = 0.0, 1.0
    while _mixed_volume(composition, high) > volume:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mixed_volume(composition, middle) > volume else (low, middle)
    return (low + high) / 2


def _mixed_volume(composition: Mapping[str, int], pressure_gpa: float) -> float:
    """Return the mean volume per atom (Å³) of the elements, each by its own equation of state."""
    total = sum(
        count * float(np.interp(pressure_gpa, *_curve(*_equation(symbol)))) for symbol, count in composition.items()
    )
    return total / sum(composition.values())


@cache
def _curve(volume: float, modulus: float, derivative: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return an equation of state as a table: ascending pressures in GPa, and volumes in Å³."""
    lengths = np.cbrt(_COMPRESSIONS)
    steepness = 1.5 * (derivative - 1)
    pressures = 3 * modulus * (1 - lengths) / lengths**2 * np.exp(steepness * (1 - lengths))
    return pressures, volume * _COMPRESSIONS


def _equation(symbol: str) -> tuple[float, float, float]:
    """Return the volume per atom (Å³), bulk modulus (GPa) and its pressure derivative of a solid element."""
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
