"""Errors of a committee on held-out trajectories, and what its spread says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hybridcsp.predictors.calibration import Calibration, coverage, raw_coverage

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Results of all members of a committee for one crystal.

    Attributes
    ----------
    energies
        Energies in eV, shape ``(members,)``.
    forces
        Forces in eV/Å, shape ``(members, n_atoms, 3)``.
    stresses
        Stresses in eV/Å³ in Voigt's order, shape ``(members, 6)``.
    """

    energies: Array
    forces: Array
    stresses: Array

    @property
    def energy_spread(self) -> float:
        """Standard deviation of the energies over the members in eV; 0 for a single member."""
        return float(self.energies.std(ddof=1)) if len(self.energies) > 1 else 0.0

    @property
    def force_spread(self) -> Array:
        """Standard deviation of a component of the force on each atom in eV/Å, shape ``(n_atoms,)``."""
        if len(self.forces) < 2:
            return np.zeros(self.forces.shape[1])
        variance: Array = self.forces.var(axis=0, ddof=1).mean(axis=1)
        return np.sqrt(variance)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Represent how good a committee is on crystals that it has not learned.

    Attributes
    ----------
    crystals, trajectories
        Number of held-out crystals and of the trajectories that they come from.
    errors
        Mean absolute errors of the mean of the members: ``energy`` in eV/atom, ``forces`` in eV/Å (of a component),
        ``stress`` in eV/Å³.
    baseline
        The same of a prediction without structure: the atomic energies of the training data, no forces, and the mean
        stress of the training data.
    calibration
        Standard deviation of the error of a component of a force (eV/Å) as a function of the spread of the committee;
        ``None`` for a single member.
    covered
        Share of errors of components of forces within 90 % intervals: ``raw`` of normal distributions as wide as the
        spread, ``calibrated`` of the calibration (on the same crystals).
    rank_correlation
        Spearman's correlation of the spread and the error of the force on an atom; ``None`` if it is not defined.
    """

    crystals: int
    trajectories: int
    errors: Mapping[str, float]
    baseline: Mapping[str, float]
    calibration: Calibration | None
    covered: Mapping[str, float]
    rank_correlation: float | None

    @classmethod
    def of(
        cls,
        frames: Sequence[Atoms],
        predictions: Sequence[Prediction],
        trajectories: int,
        atomic_energies: Mapping[int, float],
        mean_stress: Array,
    ) -> Assessment:
        """Compare predictions with the results that the calculators of crystals hold."""
        energies, plain, forces, stresses, spreads = [], [], [], [], []
        for atoms, found in zip(frames, predictions, strict=True):
            true = atoms.get_potential_energy()
            energies.append((found.energies.mean() - true) / len(atoms))
            plain.append((sum(atomic_energies[int(number)] for number in atoms.numbers) - true) / len(atoms))
            forces.append(found.forces.mean(axis=0) - atoms.get_forces())
            stresses.append(found.stresses.mean(axis=0) - atoms.get_stress())
            spreads.append(found.force_spread)
        components, spread = np.concatenate(forces), np.concatenate(spreads)
        several = len(predictions[0].energies) > 1
        errors, widths = components.ravel(), np.repeat(spread, 3)
        calibration = Calibration.fitted(errors, widths) if several else None
        covered: dict[str, float] = {}
        if calibration is not None:
            covered = {
                "raw": raw_coverage(errors, widths)["0.9"],
                "calibrated": coverage(errors, calibration.half_width(0.9, widths)),
            }
        sizes = np.linalg.norm(components, axis=1)
        ranked = float(spearmanr(spread, sizes).statistic) if several and np.ptp(spread) and np.ptp(sizes) else None
        true_stress = np.array([atoms.get_stress() for atoms in frames])
        return cls(
            crystals=len(frames),
            trajectories=trajectories,
            errors={"energy": _mean(energies), "forces": _mean(components), "stress": _mean(stresses)},
            baseline={
                "energy": _mean(plain),
                "forces": _mean([atoms.get_forces().ravel() for atoms in frames]),
                "stress": _mean(true_stress - mean_stress),
            },
            calibration=calibration,
            covered=covered,
            rank_correlation=ranked,
        )

    def record(self) -> dict[str, Any]:
        """Return the assessment in a form that can be written as JSON."""
        return {
            "crystals": self.crystals,
            "trajectories": self.trajectories,
            "mean_absolute_errors": dict(self.errors),
            "baseline": dict(self.baseline),
            "calibration": None if self.calibration is None else self.calibration.record(),
            "covered_90": dict(self.covered),
            "rank_correlation": self.rank_correlation,
        }

    def lines(self) -> list[str]:
        """Return the assessment as lines of a text."""
        rows = [
            ("energy", 1000.0, "meV/atom", "atomic energies"),
            ("forces", 1000.0, "meV/Å", "no forces"),
            ("stress", 1 / GPa, "GPa", "mean stress"),
        ]
        lines = [f"Mean absolute errors on {self.crystals} held-out crystals of {self.trajectories} trajectories:"]
        for name, factor, unit, plain in rows:
            own, base = factor * self.errors[name], factor * self.baseline[name]
            lines.append(f"  {name:8}{own:8.3g} {unit:9}({plain}: {base:.3g})")
        if self.calibration is not None:
            lines.append(
                f"Spread of the committee: the standard deviation of a force component is "
                f"{self.calibration.slope:.2g} times the spread, plus {1000 * self.calibration.constant:.3g} meV/Å in "
                f"quadrature. Intervals of 90 % hold {self.covered['calibrated']:.0%} of the errors "
                f"(uncalibrated: {self.covered['raw']:.0%})."
            )
        if self.rank_correlation is not None:
            lines.append(f"Rank correlation of spread and error of the forces: {self.rank_correlation:.2f}.")
        return lines


def _mean(errors: Any) -> float:
    values = np.concatenate([np.ravel(one) for one in errors])
    return float(np.abs(values).mean())
