"""Similarity of a measured pattern and reflections that tolerates shifts: the weighted cross-correlation of de Gelder.

The similarity is that of de Gelder, Wehrens and Hageman (J. Comput. Chem. 22, 273 (2001),
doi:10.1002/1096-987X(200102)22:3<273::AID-JCC1001>3.0.CO;2-0): with the correlation c(f, g; r) = ∫ f(x) g(x + r) dx of
two patterns and a triangular weight w(r) = 1 - abs(r)/l,

    S = ∫ w c(f, g) dr / sqrt(∫ w c(f, f) dr ∫ w c(g, g) dr).

A triangle is the correlation of a box with itself. S is therefore the cosine of the angle between the two patterns,
each averaged over a box of width l: it does not depend on their scale, is 1 for equal patterns, and is at most 1 for
others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hybridcsp.powder.pattern import Profile

Array = NDArray[np.float64]

#: Fraction of a Lorentzian in the pseudo-Voigt profile of simulated peaks.
LORENTZIAN = 0.5


class WeightedCorrelation:
    """The similarity of reflections to a measured pattern.

    Parameters
    ----------
    profile
        The measured pattern.
    tolerance
        Shift in degrees at which the triangular weight has fallen to 0.
    """

    def __init__(self, profile: Profile, tolerance: float) -> None:
        from scipy.fft import next_fast_len

        self._start, self._step, self._points = float(profile.two_theta[0]), profile.step, len(profile.two_theta)
        reach = tolerance + 8 * profile.peak_width
        self._size = next_fast_len(self._points + math.ceil(reach / self._step) + 1, real=True)
        frequency: Array = np.fft.rfftfreq(self._size, self._step).astype(float)
        triangle = np.sinc(frequency * tolerance) ** 2
        self._peak = _pseudo_voigt(frequency, profile.peak_width)
        # Of a real transform, all frequencies but the first and, for even sizes, the last stand for two.
        twice = np.full(len(frequency), 2.0)
        twice[0] = 1.0
        if self._size % 2 == 0:
            twice[-1] = 1.0
        self._weight = triangle * twice / self._size
        measured = np.fft.rfft(profile.intensity, self._size)
        self._target = np.fft.irfft(measured * self._peak * triangle, self._size)[: self._points]
        self._norm = math.sqrt(float(np.sum(np.abs(measured) ** 2 * self._weight)))
        self._weight *= self._peak**2

    def similarity(self, two_theta: Array, intensities: Array) -> float:
        """Return the similarity from 0 to 1.

        Parameters
        ----------
        two_theta
            Angles 2θ of the reflections in degrees; those outside of the measured range are ignored.
        intensities
            Intensities of the reflections.
        """
        lines = self._lines(two_theta, intensities)
        norm = math.sqrt(float(np.sum(np.abs(np.fft.rfft(lines, self._size)) ** 2 * self._weight)))
        if norm == 0:
            return 0.0
        return min(1.0, max(0.0, float(self._target @ lines) / (norm * self._norm)))

    def simulate(self, two_theta: Array, intensities: Array) -> Array:
        """Return the simulated pattern on the grid of the measured one, shape ``(n_points,)``."""
        lines = np.fft.rfft(self._lines(two_theta, intensities), self._size)
        return np.asarray(np.fft.irfft(lines * self._peak, self._size)[: self._points])

    def _lines(self, two_theta: Array, intensities: Array) -> Array:
        """Return the reflections on the grid, each divided between its two neighbouring points."""
        places = (two_theta - self._start) / self._step
        inside = (places >= 0) & (places < self._points - 1)
        below = places[inside].astype(int)
        upper = (places[inside] - below) * intensities[inside]
        lines = np.bincount(below, intensities[inside] - upper, self._points)
        return np.asarray(lines + np.bincount(below + 1, upper, self._points))


def _pseudo_voigt(frequency: Array, width: float) -> Array:
    """Return the Fourier transform of a pseudo-Voigt profile of unit area, whose half-height width is given."""
    gaussian = np.exp(-((math.pi * width * frequency) ** 2) / (4 * math.log(2)))
    return np.asarray((1 - LORENTZIAN) * gaussian + LORENTZIAN * np.exp(-math.pi * width * frequency))
