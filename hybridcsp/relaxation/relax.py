"""One job to its outcome: staged relaxations with ASE's optimisers, full cell and positions under pressure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ase import Atoms, units
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.records import (
    EVALUATE,
    REFINE,
    RELAX,
    Cost,
    Evaluation,
    Failed,
    FailureReason,
    Job,
    Relaxed,
)
from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.registry import CalculatorLike, build_calculator
from hybridcsp.relaxation.guards import Ended, GuardedCalculator, Thresholds
from hybridcsp.relaxation.preparations import PREPARATIONS


@dataclass(frozen=True, kw_only=True)
class RelaxationSettings:
    """How far structures are relaxed, and when a relaxation is given up.

    Attributes
    ----------
    pressure_gpa
        External pressure in GPa.
    fixed_cell
        Relax positions only.
    max_force
        A relaxation has converged when no force is larger, in eV/Å …
    max_stress_gpa
        … and no component of the stress plus the pressure is larger, in GPa.
    refine_max_force
        The same for the level "refine", in eV/Å; its stress tolerance is tighter in proportion.
    max_volume_factor
        Give up when the volume has grown by this factor.
    max_volume_per_atom, min_volume_per_atom
        Give up outside these volumes, in Å³ per atom.
    force_explosion
        Give up when a force exceeds this and every force at the start, in eV/Å.
    min_distance_fraction
        Give up when two atoms are closer than this fraction of their summed covalent radii.
    isolation_fraction
        Give up when an atom has no neighbour within this multiple of the largest summed covalent radii, and 6 Å.

    Notes
    -----
    The guards leave room around what was seen on 120 random starts of six systems: relaxations that ended in a sensible
    minimum grew to 4.9 times their volume at most, kept all atoms 0.50 radii apart and within 1.7, and met no force
    above 60 eV/Å that was not there at the start. Two fell into holes of CHGNet, with atoms at 0.05 radii.
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
            raise InputError("max_volume_factor", self.max_volume_factor, "more than 1")
        if self.min_volume_per_atom >= self.max_volume_per_atom:
            allowed = f"less than max_volume_per_atom = {self.max_volume_per_atom}"
            raise InputError("min_volume_per_atom", self.min_volume_per_atom, allowed)
        if self.min_distance_fraction >= 1:
            raise InputError("min_distance_fraction", self.min_distance_fraction, "less than 1")
        if self.isolation_fraction <= 1:
            raise InputError("isolation_fraction", self.isolation_fraction, "more than 1")

    @property
    def pressure(self) -> float:
        """External pressure in eV/Å³."""
        return float(self.pressure_gpa * units.GPa)

    @property
    def thresholds(self) -> Thresholds:
        """When to give up."""
        return Thresholds(
            max_volume_factor=self.max_volume_factor,
            max_volume_per_atom=self.max_volume_per_atom,
            min_volume_per_atom=self.min_volume_per_atom,
            max_force=self.force_explosion,
            min_distance_fraction=self.min_distance_fraction,
            isolation_fraction=self.isolation_fraction,
        )

    def tolerances(self, level: str) -> tuple[float, float]:
        """Return the largest force (eV/Å) and stress residual (eV/Å³) of a converged structure at a level.

        Raises
        ------
        InputError
            If the level is none of "relax", "refine", "evaluate", and those that prepare a relaxation.
        """
        tightening = self.refine_max_force / self.max_force
        factors = {RELAX: 1.0, EVALUATE: 1.0, REFINE: min(1.0, tightening), **dict.fromkeys(PREPARATIONS, 1.0)}
        if level not in factors:
            raise InputError("level", level, f"one of {', '.join(factors)}")
        return self.max_force * factors[level], float(self.max_stress_gpa * factors[level] * units.GPa)


@dataclass(frozen=True, kw_only=True)
class Relaxer:
    """Makes the function that a worker runs; picklable, so that the calculator is built where it is used.

    Examples
    --------
    >>> from hybridcsp.relaxation.relax import Relaxer
    >>> run = Relaxer(calculator="emt")()
    """

    calculator: CalculatorLike = "chgnet"
    settings: RelaxationSettings = RelaxationSettings()

    def __call__(self) -> Callable[[Job], Relaxed | Failed]:
        """Build the calculator, once, and return the function from job to outcome.

        Raises
        ------
        CalculatorError
            If the calculator cannot be built.
        """
        calculator, label = build_calculator(self.calculator)

        def run(job: Job) -> Relaxed | Failed:
            return run_job(job, calculator, label, self.settings)

        return run


def run_job(job: Job, calculator: Calculator, label: str, settings: RelaxationSettings) -> Relaxed | Failed:
    """Bring a structure to the end of a level: "relax", "refine" (the same, tighter) or "evaluate" (a single point).

    The levels of :data:`~hybridcsp.relaxation.preparations.PREPARATIONS` first do what they are named after, with the
    same calculator, guards and limits, and then relax.

    Parameters
    ----------
    job
        The structure and its limits; it is not changed.
    calculator
        Any ASE calculator.
    label
        Its name and version.
    settings
        Pressure, tolerances, guards.

    Returns
    -------
    Relaxed or Failed
        ``Relaxed.converged`` says whether one evaluation without any cell filter meets the tolerances; an evaluation is
        converged if it was possible. Whatever the structure or the calculator does wrong is a ``Failed``.

    Raises
    ------
    InputError
        If the level is unknown.
    """
    tolerances = settings.tolerances(job.level)
    atoms = job.atoms.copy()
    guarded = GuardedCalculator(calculator, atoms, job.limits, settings.thresholds, settings.pressure)
    atoms.calc = guarded
    reason: FailureReason | None = None
    detail = ""
    told: Sequence[float | None] = ()
    try:
        if job.level == EVALUATE:
            atoms.get_potential_energy()
            converged = True
        else:
            if job.level in PREPARATIONS:
                told = PREPARATIONS[job.level](atoms, job.candidate.proposal.tag) or ()
            converged = _relax(atoms, guarded, settings, tolerances)
            detail = "" if converged else "the optimiser stopped"
    except Ended as end:
        converged, reason, detail = False, end.reason, end.detail
    except PropertyNotImplementedError as error:
        converged, reason, detail = False, FailureReason.CALCULATOR, f"{error}, {_why_needed(error)}"
    except (ArithmeticError, ValueError) as error:  # linear algebra of an optimiser or filter on an absurd structure
        converged, reason, detail = False, FailureReason.NON_FINITE, f"the optimiser broke down: {error}"
    cost = Cost(force_calls=guarded.force_calls, seconds=guarded.seconds)
    common: dict[str, Any] = {
        "candidate": job.candidate,
        "cost": cost,
        "detail": detail,
        "start_enthalpies": tuple(told),
    }
    if reason is not None or not guarded.restore(atoms):
        seen = atoms.copy()
        reason = reason or FailureReason.CALCULATOR
        return Failed(**common, reason=reason, level=job.level, atoms=seen)
    evaluation = _evaluation(guarded, atoms, job.level, label)
    final = _with_results(atoms, guarded.results)
    return Relaxed(**common, atoms=final, evaluation=evaluation, converged=converged)


def _why_needed(missing: PropertyNotImplementedError) -> str:
    if "stress" in str(missing):
        return "which the relaxation of a cell needs; in a fixed cell (problem.cell) positions are relaxed without it"
    return "which this relaxation needs"


def _relax(
    atoms: Atoms, guarded: GuardedCalculator, settings: RelaxationSettings, tolerances: tuple[float, float]
) -> bool:
    """Move the atoms until the unfiltered forces and stress meet the tolerances; return whether they do.

    Chosen by measurement on random starts of six systems, not those of the benchmark. With the cell scaled by the
    square root of the number of atoms, BFGS took 48 force calls on average of 36 starts, against 82 with ASE's scaling,
    69 with CellAwareBFGS and 113 with FIRE and FrechetCellFilter; none of them found more low minima per force call.
    Forgetting absurd Hessians saved another fifth on SrTiO3 and a third on 12 atoms of TiO2 (24 starts each). A coarse
    stage to 0.5 eV/Å and then a fresh filter gained nothing on 96 starts (BFGS 45.0 calls instead of 45.8, FIRE 54.6).
    So one optimiser does the coarse part, and the tight one is the level "refine".
    """
    from hybridcsp.relaxation.optimizer import CellAndPositions, ForgetfulBFGS

    target = atoms if settings.fixed_cell else CellAndPositions(atoms, settings.pressure)
    return any(
        _converged(guarded, tolerances, settings.fixed_cell)
        for _ in ForgetfulBFGS(target, logfile=None).irun(fmax=0.0)  # when to stop is decided without the filter
    )


def _converged(guarded: GuardedCalculator, tolerances: tuple[float, float], fixed_cell: bool) -> bool:
    max_force, max_stress = tolerances
    force, stress = guarded.max_force, guarded.max_stress_residual
    if force is None or force > max_force:
        return False
    return fixed_cell or (stress is not None and stress <= max_stress)


def _evaluation(guarded: GuardedCalculator, atoms: Atoms, level: str, label: str) -> Evaluation:
    energy = guarded.results["energy"]
    return Evaluation(
        level=level,
        calculator=label,
        energy=energy,
        enthalpy=energy + guarded.pressure * float(atoms.cell.volume),
        max_force=guarded.max_force,
        max_stress_residual=guarded.max_stress_residual,
        magmoms=guarded.results.get("magmoms"),
    )


def _with_results(atoms: Atoms, results: dict[str, Any]) -> Atoms:
    """Return the structure with its results attached, in the form that ASE's database stores."""
    final = atoms.copy()
    final.calc = SinglePointCalculator(final, **results)
    return final
