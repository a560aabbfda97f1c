"""Settings of relaxations: pressure, convergence criteria, and the limits at which a relaxation is given up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from ase import units

from hybridcsp.core.records import FOLLOW_UP, REFINE
from hybridcsp.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RelaxationSettings:
    """Settings of relaxations.

    Attributes
    ----------
    pressure_gpa
        External pressure in GPa.
    fixed_cell
        Whether only the positions are relaxed.
    max_force
        Largest force on an atom of a converged structure, in eV/Å.
    max_stress_gpa
        Largest component of the stress plus the pressure of a converged structure, in GPa.
    refine_max_force
        ``max_force`` of the level "refine", in eV/Å; the stress criterion is tightened in proportion.
    max_volume_factor
        Give up when the volume has grown by this factor.
    max_volume_per_atom, min_volume_per_atom
        Give up when the volume is outside these limits, in Å³ per atom.
    force_explosion
        Give up when a force component exceeds this value and every force component at the start, in eV/Å.
    min_distance_fraction
        Give up when two atoms are closer than this fraction of the sum of their covalent radii.
    isolation_fraction
        Give up when an atom has no neighbour within this multiple of the largest sum of covalent radii, and none within
        6 Å.

    Raises
    ------
    InputError
        If a value is outside its range.

    Notes
    -----
    The default limits leave a margin around the values that occurred in 120 relaxations of random structures of six
    systems. Relaxations that ended in a sensible minimum grew to at most 4.9 times their volume, kept all distances
    above 0.50 and the nearest neighbours within 1.7 times the sums of radii, and met no force above 60 eV/Å that was
    not there at the start. Two relaxations fell into unphysical minima of CHGNet, with distances of 0.05 sums of radii.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    pressure_gpa: float = 0.0
    fixed_cell: bool = False
    max_force: float = 0.05
    max_stress_gpa: float = 0.3
    refine_max_force: float = 0.01
    max_volume_factor: float = 10.0
    max_volume_per_atom: float = 300.0
    min_volume_per_atom: float = 0.5
    force_explosion: float = 1000.0
    min_distance_fraction: float = 0.4
    isolation_fraction: float = 3.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.pressure_gpa):
            raise InputError("pressure_gpa", self.pressure_gpa, "a finite number of GPa")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("pressure_gpa", "fixed_cell") and not (math.isfinite(value) and value > 0):
                raise InputError(field.name, value, "a positive number")
        if self.max_volume_factor <= 1:
            raise InputError("max_volume_factor", self.max_volume_factor, "a number above 1")
        if self.min_volume_per_atom >= self.max_volume_per_atom:
            allowed = f"a volume below max_volume_per_atom = {self.max_volume_per_atom}"
            raise InputError("min_volume_per_atom", self.min_volume_per_atom, allowed)
        if self.min_distance_fraction >= 1:
            raise InputError("min_distance_fraction", self.min_distance_fraction, "a number below 1")
        if self.isolation_fraction <= 1:
            raise InputError("isolation_fraction", self.isolation_fraction, "a number above 1")

    @property
    def pressure(self) -> float:
        """External pressure in eV/Å³."""
        return float(self.pressure_gpa * units.GPa)

    def tolerances(self, level: str) -> tuple[float, float]:
        """Return the largest force (eV/Å) and stress residual (eV/Å³) of a converged structure at a level.

        Those of follow-up relaxations are the geometric mean of the levels "relax" and "refine", by default 0.022 eV/Å.
        Measured with SevenNet-l3i5 on 49 minima of CHGNet in three systems, each relaxed to 0.01 eV/Å: at
        0.05 eV/Å three relaxations stopped on a slope 9 to 40 meV/atom above the minimum, among them those of two of
        the best structures; at 0.02 eV/Å all good ones were converged to 0.2 meV/atom, in two thirds of the force calls
        that 0.01 eV/Å took.
        """
        factor = min(1.0, self.refine_max_force / self.max_force)
        factor = {REFINE: factor, FOLLOW_UP: math.sqrt(factor)}.get(level, 1.0)
        return self.max_force * factor, float(self.max_stress_gpa * factor * units.GPa)
