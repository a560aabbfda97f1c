"""Objectives that follow from a relaxed structure and its results without further evaluations."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from hybridcsp.objectives.base import Objective

#: One atomic mass unit per Å³ in g/cm³.
_DENSITY = 1e24 / (units.kg / 1000)


class Density(Objective):
    """Mass density in g/cm³."""

    unit = "g/cm³"

    def value(self, atoms: Atoms) -> float:
        """Return the mass of the cell divided by its volume."""
        return float(atoms.get_masses().sum() / atoms.get_volume() * _DENSITY)


class VolumePerAtom(Objective):
    """Volume in Å³/atom."""

    unit = "Å³/atom"

    def value(self, atoms: Atoms) -> float:
        """Return the volume of the cell divided by the number of atoms."""
        return float(atoms.get_volume() / len(atoms))


class MagneticMoment(Objective):
    """Magnitude of the total magnetic moment in μ_B/atom, as the calculator returns it.

    CHGNet returns the magnitudes of the moments of the atoms, so that with it the value is the mean of these.
    """

    unit = "μ_B/atom"

    def value(self, atoms: Atoms) -> float:
        """Return the magnitude of the sum of the moments of the atoms, divided by their number."""
        return float(abs(np.sum(atoms.get_magnetic_moments())) / len(atoms))
