"""Checks of single values of user input: numbers, tuples of numbers, numbers by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from hybridcsp.errors import InputError


def whole_number(key: str, value: Any, allowed: str, least: int = 1) -> int:
    """Return an integer of at least ``least`` as an ``int``.

    Parameters
    ----------
    key
        Name of the value in the error message.
    value
        The value of the user; booleans and strings are not accepted.
    allowed
        Description of the allowed values, for the error message.
    least
        Smallest allowed value.

    Raises
    ------
    InputError
        If the value is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(key, value, allowed)
    return int(value)


def finite_number(key: str, value: Any, allowed: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number between ``low`` and ``high`` as a ``float``.

    Parameters and errors are those of :func:`whole_number`.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(key, value, allowed)
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise InputError(key, value, allowed)
    return number


def finite_numbers(key: str, values: Any, count: int, allowed: str, high: float = math.inf) -> tuple[float, ...]:
    """Return ``count`` finite positive numbers, all below ``high``, as a tuple.

    Parameters and errors are those of :func:`whole_number`; ``values`` may be any sequence.
    """
    listed = sequence(key, values, allowed)
    if len(listed) != count:
        raise InputError(key, values, allowed)
    try:
        found = tuple(finite_number(key, value, allowed) for value in listed)
    except InputError:
        raise InputError(key, values, allowed) from None
    if not all(0 < value < high for value in found):
        raise InputError(key, values, allowed)
    return found


def numbers_by_name(key: str, values: Any, allowed: str, low: float = -math.inf) -> dict[str, float]:
    """Return a mapping of names to finite numbers of at least ``low``.

    Parameters and errors are those of :func:`whole_number`; the error message names the wrong entry.
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InputError(key, values, f"a mapping of names to numbers, each {allowed}")
    return {name: finite_number(f"{key}.{name}", value, allowed, low) for name, value in values.items()}


def sequence(key: str, values: Any, allowed: str) -> list[Any]:
    """Return the items of a sequence or set as a list; strings, mappings and single numbers are refused.

    Parameters and errors are those of :func:`whole_number`.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(key, values, allowed)
    return list(values)
