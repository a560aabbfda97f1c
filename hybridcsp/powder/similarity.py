"""Similarity of crystal structures to a measured powder pattern, after their cells are adjusted to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.powder.correlation import WeightedCorrelation
from hybridcsp.powder.pattern import PowderPattern, make_profile, scaled_angle
from hybridcsp.powder.reflections import Reflections, compute_reflections
from hybridcsp.powder.strains import symmetric_strains
from hybridcsp.structure.symmetry import primitive
from hybridcsp.structure.validity import is_finite_crystal

Array = NDArray[np.float64]

#: Shift in degrees for Cu Kα up to which peaks count as overlapping.
TOLERANCE = 0.6

#: Largest change of a length of the cell by its adjustment, as a fraction.
CELL_CHANGE = 0.05

# Largest shape change of the cell, as a fraction of the largest change of its size.
_SHAPE = 0.6

# Tolerances of the adjustment, in units of that of the similarity: a wide one sees distant peaks, a narrow one is
# exact.
_TOLERANCES = (4.0, 2.0, 1.0)

# Step of the scan over sizes of the cell, and number of its best sizes from which the adjustment starts.
_SCAN_STEP = 0.0025
_STARTS = 3

# Strain that separates reflections which coincide by chance, so that they can be told apart in a strained cell.
_SEPARATION = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternMatch:
    """A structure compared with a measured pattern.

    Attributes
    ----------
    similarity
        Similarity from 0 to 1 after the adjustment of the cell.
    unadjusted
        Similarity of the structure as it was.
    atoms
        Primitive cell of the structure with the adjusted lattice.
    strain
        Strain ε that turned its cell A into A(1 + ε), shape ``(3, 3)``.
    simulated
        Simulated pattern on the grid of the measured one, shape ``(n_points,)``, scaled to fit its intensities best.
    angles
        Angles 2θ of the reflections of the adjusted cell in degrees, within the measured range.
    """

    similarity: float
    unadjusted: float
    atoms: Atoms
    strain: Array
    simulated: Array
    angles: Array

    @property
    def volume_change(self) -> float:
        """Relative change of the volume by the adjustment of the cell."""
        return float(np.linalg.det(np.eye(3) + self.strain) - 1)


class PatternSimilarity:
    """Compare crystal structures with one measured powder pattern.

    The similarity does not depend on the scale of the pattern, on the setting of a cell, or on whether it is a
    supercell. It is the weighted cross-correlation of :mod:`~hybridcsp.powder.correlation`. Before it is computed, the
    cell is strained to fit the pattern best, within the strains that keep its symmetry: sizes are scanned first, and
    the best of them refined together with the shape, with a tolerance of shifts that becomes narrower.

    Parameters
    ----------
    pattern
        The measured pattern.
    cell_change
        Largest change of a length of the cell by its size, as a fraction; the shape may change by up to 0.6 of it. With
        0, cells are not adjusted.
    tolerance
        Shift of peaks up to which they count as overlapping, in degrees for Cu Kα; it is scaled in proportion to the
        wavelength.

    Attributes
    ----------
    profile
        The pattern on a uniform grid without its background.

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    def __init__(
        self, pattern: PowderPattern, *, cell_change: float = CELL_CHANGE, tolerance: float = TOLERANCE
    ) -> None:
        if not 0 <= cell_change <= 0.2:
            raise InputError("cell_change", cell_change, "a fraction from 0 to 0.2")
        if not 0 < tolerance <= 10:
            raise InputError("tolerance", tolerance, "an angle of more than 0 and up to 10 degrees")
        self.profile = make_profile(pattern)
        self.cell_change = cell_change
        # Peaks that are wider than the tolerance overlap anyway.
        narrow = max(scaled_angle(tolerance, pattern.wavelength), self.profile.peak_width)
        self._correlations = [WeightedCorrelation(self.profile, factor * narrow) for factor in _TOLERANCES]

    def similarity(self, atoms: Atoms) -> float:
        """Return the similarity of a structure to the pattern, from 0 to 1, after the adjustment of its cell.

        Raises
        ------
        InputError
            As in :meth:`match`.
        """
        return self.match(atoms).similarity

    def match(self, atoms: Atoms) -> PatternMatch:
        """Return the similarity of a structure to the pattern, the adjusted cell and the simulated pattern.

        Parameters
        ----------
        atoms
            Any cell of a crystal.

        Raises
        ------
        InputError
            If the structure is not a three-dimensional crystal, or an element of it has no X-ray scattering factor.
        """
        if not is_finite_crystal(atoms):
            raise InputError("atoms", atoms, "a crystal with atoms, finite positions, and a cell that spans a volume")
        cell = primitive(Atoms(atoms.numbers, scaled_positions=atoms.get_scaled_positions(), cell=atoms.cell, pbc=True))
        exact = self._correlations[-1]
        reflections = self._reflections(cell)
        unadjusted = exact.similarity(reflections.angles(np.zeros((3, 3))), reflections.intensities)
        best, strain = unadjusted, np.zeros((3, 3))
        if self.cell_change:
            adjusted = self._adjusted(cell)
            strained = cell.copy()
            strained.set_cell(cell.cell.array @ (np.eye(3) + adjusted), scale_atoms=True)
            found = self._reflections(strained)
            similarity = exact.similarity(found.angles(np.zeros((3, 3))), found.intensities)
            if similarity > best:
                best, strain, cell, reflections = similarity, adjusted, strained, found
        angles = reflections.angles(np.zeros((3, 3)))
        simulated = exact.simulate(angles, reflections.intensities)
        scale = float(simulated @ self.profile.intensity) / max(float(simulated @ simulated), 1e-300)
        return PatternMatch(
            similarity=best,
            unadjusted=unadjusted,
            atoms=cell,
            strain=strain,
            simulated=simulated * max(scale, 0.0),
            angles=angles,
        )

    def _reflections(self, atoms: Atoms, margin: float = 0.0) -> Reflections:
        """Return the reflections in the measured range, and those that a relative change of lengths brings into it."""
        profile = self.profile
        low, high = (np.sin(np.radians(angle / 2)) for angle in (profile.two_theta[0], profile.two_theta[-1]))
        low, high = low * (1 - margin), min(1 - 1e-4, high * (1 + margin))
        span = (float(np.degrees(2 * np.arcsin(low))), float(np.degrees(2 * np.arcsin(high))))
        return compute_reflections(atoms, profile.wavelength, span)

    def _adjusted(self, atoms: Atoms) -> Array:
        """Return the allowed strain that makes the pattern of a structure most similar to the measured one."""
        from scipy.optimize import minimize

        strains = symmetric_strains(atoms)
        separated = atoms.copy()
        separation = _SEPARATION * np.tensordot(1 / np.arange(1, len(strains) + 1), strains, 1)
        separated.set_cell(atoms.cell.array @ (np.eye(3) + separation), scale_atoms=True)
        reflections = self._reflections(separated, margin=1.6 * self.cell_change + 0.01)
        reflections = Reflections(
            indices=reflections.indices,
            intensities=reflections.intensities,
            cell=atoms.cell.array,
            wavelength=reflections.wavelength,
        )
        limits = self.cell_change * np.array([1.0] + [_SHAPE] * (len(strains) - 1))

        def lack(coefficients: Array, correlation: WeightedCorrelation) -> float:
            strain = np.tensordot(coefficients * limits, strains, 1)
            return 1 - correlation.similarity(reflections.angles(strain), reflections.intensities)

        sizes = np.linspace(-1, 1, 2 * round(self.cell_change / _SCAN_STEP) + 1)
        shapes = np.zeros(len(strains) - 1)
        scan = np.array([lack(np.array([size, *shapes]), self._correlations[0]) for size in sizes])
        padded = np.concatenate([[np.inf], scan, [np.inf]])
        valleys = np.flatnonzero((scan <= padded[:-2]) & (scan <= padded[2:]))
        starts = valleys[np.argsort(scan[valleys], kind="stable")][:_STARTS]
        results = []
        for start in starts:
            point = np.array([sizes[start], *shapes])
            for correlation in self._correlations:
                found = minimize(
                    lack, point, (correlation,), method="L-BFGS-B", bounds=[(-1, 1)] * len(point), options={"eps": 1e-4}
                )
                point = found.x
            results.append((float(found.fun), point))
        _, best = min(results, key=lambda result: result[0])
        return np.asarray(np.tensordot(best * limits, strains, 1))
