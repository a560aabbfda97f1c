"""Objectives that follow from a relaxed structure and its results without further evaluations."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers

from hybridcsp.core.problem import Problem
from hybridcsp.objectives.base import Objective

#: One atomic mass unit per Å³ in g/cm³.
_DENSITY = 1e24 / (units.kg / 1000)


class Density(Objective):
    """Mass density in g/cm³."""

    unit = "g/cm³"
    of_starts: ClassVar[bool] = True

    @classmethod
    def bounds(cls, problem: Problem, volumes: tuple[float, float]) -> tuple[float, float]:
        """Return the densities at the largest and smallest volume."""
        counts = problem.composition
        mass = sum(count * atomic_masses[atomic_numbers[symbol]] for symbol, count in counts.items())
        mass *= _DENSITY / sum(counts.values())
        return float(mass / volumes[1]), float(mass / volumes[0]) if volumes[0] > 0 else math.inf

    def value(self, atoms: Atoms) -> float:
        """Return the mass of the cell divided by its volume."""
        return float(atoms.get_masses().sum() / atoms.get_volume() * _DENSITY)


class VolumePerAtom(Objective):
    """Volume in Å³/atom."""

    unit = "Å³/atom"
    of_starts: ClassVar[bool] = True

    @classmethod
    def bounds(cls, problem: Problem, volumes: tuple[float, float]) -> tuple[float, float]:
        """Return the limits of the volume."""
        return volumes

    def value(self, atoms: Atoms) -> float:
        """Return the volume of the cell divided by the number of atoms."""
        return float(atoms.get_volume() / len(atoms))


class MagneticMoment(Objective):
    """Magnitude of the total magnetic moment in μ_B/atom, as the calculator returns it.

    CHGNet returns the magnitudes of the moments of the atoms, so that with it the value is the mean of these.
    """

    unit = "μ_B/atom"

    @classmethod
    def bounds(cls, problem: Problem, volumes: tuple[float, float]) -> tuple[float, float]:
        """Return the range of magnitudes."""
        return (0.0, math.inf)

    def value(self, atoms: Atoms) -> float:
        """Return the magnitude of the sum of the moments of the atoms, divided by their number."""
        return float(abs(np.sum(atoms.get_magnetic_moments())) / len(atoms))
