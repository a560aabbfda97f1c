"""Checks of the values that objectives return."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def real_value(value: Any, *, finite: bool = True) -> float:
    """Return the value of an objective as a ``float``.

    Parameters
    ----------
    value
        A number, or anything that numpy turns into an array with one number.
    finite
        Whether infinity and nan are refused.

    Raises
    ------
    ValueError
        If it is not one real number.
    """
    try:
        array = np.asarray(value)
    except Exception as error:
        raise ValueError(f"it returned {type(value).__name__}, which is not a number") from error
    if array.size != 1 or array.dtype.kind not in "biuf":
        shown = f"an array of shape {array.shape}" if array.ndim else type(value).__name__
        raise ValueError(f"it returned {shown}, which is not a number")
    number = float(array.reshape(()))
    if finite and not math.isfinite(number):
        raise ValueError(f"its value is {number}")
    return number
