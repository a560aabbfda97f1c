"""Reflections of a crystal as pymatgen's ``XRDCalculator`` computes them, and their angles in a strained cell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.powder.pattern import angle_of_spacing
from hybridcsp.structure.conversion import to_pymatgen

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reflections:
    """Reflections of a crystal; those that coincide in every cell of its symmetry are one.

    Attributes
    ----------
    indices
        Miller indices, shape ``(n_reflections, 3)``.
    intensities
        Integrated intensities with multiplicity, Lorentz and polarisation factor, shape ``(n_reflections,)``.
    cell
        Lattice vectors of the crystal as rows in Å, shape ``(3, 3)``.
    wavelength
        Wavelength in Å.
    """

    indices: Array
    intensities: Array
    cell: Array
    wavelength: float

    def angles(self, strain: Array) -> Array:
        """Return the angles 2θ in degrees in a cell A(1 + ε); 180 where there is no reflection any more.

        Parameters
        ----------
        strain
            Strain ε, shape ``(3, 3)``.
        """
        reciprocal = np.linalg.inv(self.cell + self.cell @ strain).T
        sines = np.linalg.norm(self.indices @ reciprocal, axis=1) * (self.wavelength / 2)
        return np.asarray(np.degrees(2 * np.arcsin(np.minimum(sines, 1.0))))


def compute_reflections(atoms: Atoms, wavelength: float, two_theta: tuple[float, float]) -> Reflections:
    """Return the reflections of a crystal within a range of angles.

    Parameters
    ----------
    atoms
        The crystal; its primitive cell takes least time.
    wavelength
        Wavelength in Å.
    two_theta
        Smallest and largest angle 2θ in degrees.

    Raises
    ------
    InputError
        If pymatgen has no scattering factor for an element.
    """
    from pymatgen.analysis.diffraction.xrd import ATOMIC_SCATTERING_PARAMS, XRDCalculator

    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(ATOMIC_SCATTERING_PARAMS)):
        raise InputError(
            "atoms", atoms.get_chemical_formula(), reason=f"there is no X-ray scattering factor of {', '.join(unknown)}"
        )
    nothing = Reflections(
        indices=np.zeros((0, 3)), intensities=np.zeros(0), cell=atoms.cell.array.copy(), wavelength=wavelength
    )
    longest = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1).min()
    if angle_of_spacing(longest, wavelength) >= two_theta[1]:
        return nothing  # pymatgen fails if there is no reflection
    pattern = XRDCalculator(wavelength).get_pattern(to_pymatgen(atoms), scaled=False, two_theta_range=(0, two_theta[1]))
    kept = np.asarray(pattern.x) >= two_theta[0]
    # The third of the four indices of a hexagonal lattice is redundant.
    indices = np.array([(*families[0]["hkl"][:2], families[0]["hkl"][-1]) for families in pattern.hkls], dtype=float)
    return replace(nothing, indices=indices[kept], intensities=np.asarray(pattern.y, dtype=float)[kept])
