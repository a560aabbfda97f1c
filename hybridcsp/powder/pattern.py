"""Powder patterns: intensities on a uniform grid of angles, without their background."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.powder.background import estimate_background, estimate_peak_width

Array = NDArray[np.float64]

#: Wavelength in Å for which the angles below are given. For other wavelengths they are scaled in proportion, which
#: keeps the same differences of the momentum transfer at small angles.
REFERENCE_WAVELENGTH = 1.54184

#: Step of the grid in degrees.
STEP = 0.02

# A pattern has a peak if it rises by more than this fraction of its range above the background.
_FLAT = 2e-3

#: Smallest spacing of lattice planes in Å that is compared. Beyond it, reflections overlap too much to tell structures
#: apart, and many of them must be computed.
SMALLEST_SPACING = 1.0

#: Largest angle 2θ in degrees that is compared; the Lorentz factor diverges at 180.
LARGEST_ANGLE = 160.0


@dataclass(frozen=True, kw_only=True, eq=False)
class PowderPattern:
    """A measured powder pattern.

    Attributes
    ----------
    two_theta
        Diffraction angles 2θ in degrees, ascending, shape ``(n_points,)``.
    intensity
        Intensities in any unit, shape ``(n_points,)``.
    wavelength
        Wavelength in Å.
    """

    two_theta: Array
    intensity: Array
    wavelength: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """A powder pattern on a uniform grid.

    Attributes
    ----------
    two_theta
        Uniform grid of angles 2θ in degrees, shape ``(n_points,)``.
    intensity
        Intensities without background, whose largest value is 1, shape ``(n_points,)``.
    background
        Subtracted background on the same scale, shape ``(n_points,)``.
    peak_width
        Typical full width of a peak at half of its height, in degrees.
    wavelength
        Wavelength in Å.
    """

    two_theta: Array
    intensity: Array
    background: Array
    peak_width: float
    wavelength: float

    @property
    def step(self) -> float:
        """Step of the grid in degrees."""
        return float(self.two_theta[1] - self.two_theta[0])


def angle_of_spacing(spacing: float, wavelength: float) -> float:
    """Return the angle 2θ in degrees of lattice planes with a spacing in Å; 180 for spacings that never diffract."""
    return math.degrees(2 * math.asin(min(1.0, wavelength / (2 * spacing))))


def scaled_angle(angle: float, wavelength: float) -> float:
    """Return an angle in degrees that was chosen for Cu Kα, in proportion to the wavelength."""
    return angle * wavelength / REFERENCE_WAVELENGTH


def make_profile(pattern: PowderPattern) -> Profile:
    """Return a pattern on a uniform grid, without background and scaled to a largest intensity of 1.

    Angles that belong to spacings below :data:`SMALLEST_SPACING` are left out.

    Raises
    ------
    InputError
        If there is no peak above the background.
    """
    step = scaled_angle(STEP, pattern.wavelength)
    low, high = pattern.two_theta[0], pattern.two_theta[-1]
    high = min(high, angle_of_spacing(SMALLEST_SPACING, pattern.wavelength), LARGEST_ANGLE)
    grid = low + step * np.arange(max(2, math.floor((high - low) / step) + 1))
    intensity = _averaged(pattern, grid, step)
    background = estimate_background(intensity, step, scaled_angle(1.0, pattern.wavelength))
    peaks = intensity - background
    largest = float(peaks.max())
    if largest <= _FLAT * float(np.ptp(intensity)):
        raise InputError("pattern", f"{len(grid)} points", reason="it has no peak above its background")
    return Profile(
        two_theta=grid,
        intensity=peaks / largest,
        background=background / largest,
        peak_width=estimate_peak_width(peaks, step, scaled_angle(0.1, pattern.wavelength)),
        wavelength=pattern.wavelength,
    )


def _averaged(pattern: PowderPattern, grid: Array, step: float) -> Array:
    """Return the intensity averaged over each step of a grid, interpolated linearly between measured points."""
    if np.median(np.diff(pattern.two_theta)) >= step:
        return np.interp(grid, pattern.two_theta, pattern.intensity)
    areas = np.diff(pattern.two_theta) * (pattern.intensity[1:] + pattern.intensity[:-1]) / 2
    integral = np.concatenate([[0.0], np.cumsum(areas)])
    edges = np.clip([grid - step / 2, grid + step / 2], pattern.two_theta[0], pattern.two_theta[-1])
    below, above = np.interp(edges, pattern.two_theta, integral)
    return np.asarray((above - below) / np.maximum(edges[1] - edges[0], 1e-12))
