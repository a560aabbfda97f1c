"""Background of a powder pattern, and the width of its peaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Shortest period that the background can have, in units of the angle that the caller gives; peaks are much narrower.
_PERIOD = 8.0

# The weights of the background have converged when they change by less than this fraction, or after this many steps.
_CONVERGED, _MOST_STEPS = 1e-3, 60

# Smallest noise that is assumed, as a fraction of the range of the intensities.
_LEAST_NOISE = 0.003

# A peak counts for the width if it is at least this fraction of the highest.
_HIGH = 0.15


def estimate_background(intensity: Array, step: float, unit: float) -> Array:
    """Return the background by asymmetrically reweighted penalised least squares (arPLS).

    A smooth curve is fitted to the intensities, and points that lie further above it than noise does lose their weight,
    until the weights no longer change (Baek et al., Analyst 140, 250 (2015), doi:10.1039/C4AN01061B). The curve runs
    through the middle of the noise.

    Parameters
    ----------
    intensity
        Intensities on a uniform grid, shape ``(n_points,)``.
    step
        Step of the grid in degrees.
    unit
        Angle in degrees to which the smoothness is proportional: 1° for Cu Kα.
    """
    from scipy.linalg import solveh_banded
    from scipy.special import expit

    points = len(intensity)
    # A penalty on second differences halves the amplitude of waves with the period 2π penalty^(1/4), in steps.
    penalty = (_PERIOD * unit / (2 * np.pi * step)) ** 4
    smoothness = np.zeros((3, points))
    for offset, factor in enumerate((1.0, -2.0, 1.0)):
        for other, second in enumerate((1.0, -2.0, 1.0)):
            if other >= offset:
                smoothness[2 - (other - offset), other : points - 2 + other] += penalty * factor * second
    weights = np.ones(points)
    for _ in range(_MOST_STEPS):
        banded = smoothness.copy()
        banded[2] += weights
        background = solveh_banded(banded, weights * intensity)
        residual = intensity - background
        below = residual[residual < 0]
        mean, deviation = (below.mean(), below.std()) if len(below) else (0.0, 0.0)
        # Without noise, any curve below the pattern would do.
        deviation = max(deviation, _LEAST_NOISE * float(np.ptp(intensity)))
        if not deviation:
            break
        updated = expit(-2 * (residual - (2 * deviation - mean)) / deviation)
        change = np.linalg.norm(updated - weights) / np.linalg.norm(weights)
        weights = updated
        if change < _CONVERGED:
            break
    return np.asarray(background)


def estimate_peak_width(peaks: Array, step: float, smallest: float) -> float:
    """Return the median full width at half maximum of the high peaks in degrees.

    Parameters
    ----------
    peaks
        Intensities without background on a uniform grid, shape ``(n_points,)``.
    step
        Step of the grid in degrees.
    smallest
        Width to return if no peak is found, and smallest width to return for a grid that hides it, in degrees.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks, peak_widths

    smooth = gaussian_filter1d(peaks, 1.0, mode="nearest")
    found, _ = find_peaks(smooth, prominence=_HIGH * float(smooth.max()))
    if not len(found):
        return smallest
    widths = peak_widths(smooth, found, rel_height=0.5)[0] * step
    return float(max(np.median(widths), 2 * step))
