"""Uncertainties of predictions, calibrated with crystals that were held out of the training.

The variance of a prediction is a constant plus a multiple of the squared spread of the ensemble, fitted by maximum
likelihood of a normal distribution. An interval is wide enough for the share of held-out crystals that it is to hold:
its half width in standard deviations is a quantile of the held-out errors (conformal prediction,
doi:10.1080/01621459.2017.1307116 for regression). Where these are too few for a quantile, intervals are at least as
wide as normally distributed errors require.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]

#: Probabilities of the intervals.
LEVELS = (0.5, 0.9)

# Smallest standard deviation in units of the root mean square error.
_SMALLEST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Represent how uncertain predictions of an ensemble are.

    Attributes
    ----------
    constant
        Standard deviation that does not depend on the crystal.
    slope
        Factor of the spread of the ensemble.
    half_widths
        Half widths of the intervals in standard deviations, by their probability.
    """

    constant: float
    slope: float
    half_widths: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [self.constant, self.slope, *self.half_widths.values()]
        if not all(isinstance(n, int | float) and math.isfinite(n) and n >= 0 for n in numbers):
            raise ValueError("the numbers of a calibration must be finite and not negative")
        if set(self.half_widths) != {f"{level:g}" for level in LEVELS}:
            raise ValueError(f"the half widths must be those of the intervals {LEVELS}")

    @classmethod
    def fitted(cls, errors: Array, spreads: Array) -> Self:
        """Fit to the errors of predictions and the spreads of the ensemble, shape ``(n,)`` each."""
        constant, slope = _most_likely(errors, spreads)
        ratios = np.abs(errors) / np.sqrt(constant**2 + (slope * spreads) ** 2)
        widths = {f"{level:g}": _quantile(ratios, level) for level in LEVELS}
        return cls(constant=constant, slope=slope, half_widths=widths)

    def standard_deviation(self, spreads: Array) -> Array:
        """Return standard deviations for spreads of the ensemble."""
        return np.sqrt(self.constant**2 + (self.slope * np.asarray(spreads)) ** 2)

    def half_width(self, level: float, spreads: Array) -> Array:
        """Return half widths of the interval of a probability."""
        return self.half_widths[f"{level:g}"] * self.standard_deviation(spreads)

    def record(self) -> dict[str, Any]:
        """Return the calibration in a form that can be written as JSON."""
        return asdict(self)


def coverage(errors: Array, half_widths: Array) -> float:
    """Return the share of errors within the half widths of intervals."""
    return float(np.mean(np.abs(errors) <= half_widths))


def raw_coverage(errors: Array, spreads: Array) -> dict[str, float]:
    """Return the share of errors within the intervals of normal distributions as wide as the ensemble."""
    return {f"{level:g}": coverage(errors, float(norm.ppf(0.5 + level / 2)) * spreads) for level in LEVELS}


def crossed_coverage(errors: Array, spreads: Array, folds: NDArray[np.int_]) -> dict[str, float]:
    """Return the share of errors within intervals that are calibrated with the other half of the crystals.

    Parameters
    ----------
    errors, spreads
        Errors of predictions, and spreads of the ensemble, shape ``(n,)``.
    folds
        Half to which each crystal belongs, 0 or 1.
    """
    inside: dict[str, list[bool]] = {f"{level:g}": [] for level in LEVELS}
    for fold in (0, 1):
        here = folds == fold
        if not here.any() or here.all():
            continue
        calibration = Calibration.fitted(errors[~here], spreads[~here])
        for level in LEVELS:
            inside[f"{level:g}"] += (np.abs(errors[here]) <= calibration.half_width(level, spreads[here])).tolist()
    return {level: float(np.mean(found)) for level, found in inside.items() if found}


def _most_likely(errors: Array, spreads: Array) -> tuple[float, float]:
    scale = max(float(np.sqrt(np.mean(errors**2))), 1e-12)
    if not np.any(spreads > 0):
        return scale, 0.0
    squares, variances = (errors / scale) ** 2, (spreads / scale) ** 2

    def cost(logs: Array) -> float:
        variance = _SMALLEST**2 + math.exp(2 * logs[0]) + math.exp(2 * logs[1]) * variances
        return float(np.mean(np.log(variance) + squares / variance))

    found = minimize(cost, np.array([-0.5, 0.0]), method="Nelder-Mead", bounds=[(-7.0, 3.0), (-7.0, 3.0)])
    constant, slope = np.exp(found.x)
    return float(math.hypot(constant, _SMALLEST) * scale), float(slope)


def _quantile(ratios: Array, level: float) -> float:
    """Return the quantile of held-out ratios with the correction for their finite number.

    Fewer than ``level / (1 - level)`` ratios, 9 for intervals of 90 %, have no such quantile. The half width is then at
    least that of Student's distribution, which holds for normally distributed errors.
    """
    n = len(ratios)
    rank = math.ceil(level * (n + 1))
    if rank > n:
        return max(float(ratios.max()), float(student.ppf(0.5 + level / 2, n)))
    return float(np.sort(ratios)[rank - 1])
