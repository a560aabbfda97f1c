"""Powder patterns that tests measure on structures of their own."""

import numpy as np

from hybridcsp.powder import PowderPattern
from hybridcsp.powder.strains import symmetric_strains
from hybridcsp.structure.conversion import to_pymatgen


def measured(atoms, *, wavelength=1.54184, span=(10.0, 90.0), step=0.02, width=0.15, size=0.0, shape=0.0, counts=4000):
    """Return the pattern of a strained crystal, with background, counting noise and thermal motion."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    strains = symmetric_strains(atoms)
    strained = atoms.copy()
    strain = np.tensordot([size] + [shape] * (len(strains) - 1), strains, 1)
    strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    thermal = dict.fromkeys(atoms.get_chemical_symbols(), 0.7)
    calculator = XRDCalculator(wavelength, debye_waller_factors=thermal)
    peaks = calculator.get_pattern(to_pymatgen(strained), scaled=False, two_theta_range=(0, span[1] + 1))
    x = np.arange(*span, step)
    distance = (x[:, None] - np.asarray(peaks.x)) / width
    y = (np.asarray(peaks.y) / (1 + 4 * distance**2)).sum(axis=1)
    y = counts * y / y.max() + counts * (0.03 + 0.1 * np.exp(-x / 20))
    return PowderPattern(
        two_theta=x, intensity=np.random.default_rng(0).poisson(y).astype(float), wavelength=wavelength
    )


def write_pattern(pattern, file):
    """Write a pattern as a text file of two columns."""
    np.savetxt(file, np.column_stack([pattern.two_theta, pattern.intensity]), fmt="%.4f", header="two-theta intensity")
    return file
