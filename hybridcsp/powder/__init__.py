"""Comparison of crystal structures with a measured powder X-ray diffraction pattern.

A pattern is read by :func:`read_pattern`, which checks it. :class:`PatternSimilarity` subtracts its background,
simulates the patterns of structures with pymatgen's ``XRDCalculator`` and returns their similarity to it from 0 to 1.
The cell of a structure is first adjusted to the pattern, because the lattice parameters of a potential are off by some
per cent.
"""

from hybridcsp.powder.pattern import PowderPattern
from hybridcsp.powder.reading import AXES, TWO_THETA, read_pattern
from hybridcsp.powder.similarity import CELL_CHANGE, PatternMatch, PatternSimilarity
from hybridcsp.powder.wavelengths import DEFAULT_WAVELENGTH, read_wavelength

__all__ = [
    "AXES",
    "CELL_CHANGE",
    "DEFAULT_WAVELENGTH",
    "TWO_THETA",
    "PatternMatch",
    "PatternSimilarity",
    "PowderPattern",
    "read_pattern",
    "read_wavelength",
]
