"""Properties of crystals that models learn: numbers in the ``info`` of structures, and their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridcsp.errors import InputError, did_you_mean, with_hint

# Units of properties by the name, or by the end of the name.
_UNITS = {
    "formation_energy_per_atom": "eV/atom",
    "energy_per_atom": "eV/atom",
    "e_above_hull": "eV/atom",
    "band_gap": "eV",
}
_UNITS_OF_ENDINGS = {
    "_w_per_mk": "W/(m K)",
    "_per_k": "1/K",
    "_gpa": "GPa",
    "_k": "K",
    "_ev_per_atom": "eV/atom",
    "_ev": "eV",
}

# Number of names of properties that an error lists.
_LISTED = 20


def unit_of(name: str) -> str:
    """Return the unit that the name of a property tells, or an empty text: ``"GPa"`` for ``bulk_modulus_gpa``."""
    if name in _UNITS:
        return _UNITS[name]
    return next((unit for ending, unit in _UNITS_OF_ENDINGS.items() if name.endswith(ending)), "")


def names_of_numbers(info: Mapping[str, Any]) -> list[str]:
    """Return the names of all numbers in the ``info`` of a structure."""
    return [key for key, value in info.items() if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"]


def number_of(value: Any, name: str, where: str) -> float:
    """Return the value of a property as a number, which may be infinite or NaN.

    Parameters
    ----------
    value
        Value in the ``info`` of a structure.
    name
        Name of the property.
    where
        File and frame, for the error.

    Raises
    ------
    InputError
        If it is not a number.
    """
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("data", where, reason=f"{name} = {value!r:.80} is not a number") from error


def unknown_property(name: str, known: Sequence[str], reasons: str = "") -> InputError:
    """Return the error for a property that no crystal of the data has.

    Parameters
    ----------
    name
        Name of the property.
    known
        Names of the properties that crystals have, the most frequent first.
    reasons
        Why frames are left out, with their numbers.
    """
    because = f": {reasons}" if reasons else ""
    reason = with_hint(f"no crystal of the data has this property{because}", did_you_mean(name, known))
    if known:
        reason += f"{'' if reason.endswith('?') else '.'} Properties of the frames are {', '.join(known[:_LISTED])}"
    return InputError("property", name, reason=reason)
