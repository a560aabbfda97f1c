"""Relaxation in stages from coarse to tight, and by codes themselves, for calculators that offer this."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.records import EVALUATE, REFINE, Limits
from hybridcsp.relaxation.calculators.jobs import JobCalculator, OwnRelaxation, Stage, Target
from hybridcsp.relaxation.descent import Descent
from hybridcsp.relaxation.guards import GuardedCalculator, JobEnded
from hybridcsp.relaxation.settings import RelaxationSettings

#: Multiple of the tolerances at which a stage before the last ends, unless it says otherwise.
COARSE = 4.0

#: Largest number of relaxations by a code itself, each from the end of the one before: their plane waves are those of
#: the cell at their start, so that the stress at the end of a single point is another one.
ROUNDS = 3


def relax_earlier_stages(
    atoms: Atoms,
    guarded: GuardedCalculator,
    settings: RelaxationSettings,
    level: str,
    hessian: NDArray[np.float64] | None = None,
) -> NDArray[np.float64] | None:
    """Relax a structure through all stages of its calculator before the last one, if it has any.

    A refinement begins where the last stage has been, so that the earlier ones are left out. A stage whose relaxation
    does not converge ends where it is; at least one force call is left to the last stage.

    Parameters
    ----------
    atoms
        The structure, which is moved; its calculator is ``guarded`` again at the end.
    guarded
        The calculator of the last stage; the force calls of the others are added to its own.
    settings
        Pressure and limits.
    level
        Level of the job.
    hessian
        Second derivatives as far as they are known.

    Returns
    -------
    ndarray or None
        Second derivatives with which the last stage begins: those that the stage before it has found.

    Raises
    ------
    JobEnded
        If a stage fails.
    """
    calculator = guarded.calculator
    if not isinstance(calculator, JobCalculator) or level in (EVALUATE, REFINE):
        return hessian
    max_force, max_stress = settings.tolerances(level)
    for stage in calculator.earlier:
        force = COARSE * max_force if stage.max_force is None else stage.max_force
        tolerances = force, max_stress * force / max_force
        limits = guarded.left
        if limits.force_calls < 2:
            break
        limits = replace(limits, force_calls=limits.force_calls - 1)
        coarse = GuardedCalculator(stage.calculator, atoms, limits, settings)
        try:
            hessian = _relax_stage(stage, atoms, coarse, limits, tolerances, hessian)
        except JobEnded as end:
            if end.reason is not None:
                raise
        finally:
            coarse.restore(atoms)
            guarded.count(coarse.force_calls)
            atoms.calc = guarded
    return hessian


def _relax_stage(
    stage: Stage,
    atoms: Atoms,
    coarse: GuardedCalculator,
    limits: Limits,
    tolerances: tuple[float, float],
    hessian: NDArray[np.float64] | None,
) -> NDArray[np.float64] | None:
    atoms.calc = coarse
    if stage.own is not None:
        coarse.relax_with(stage.own, atoms, _target(coarse.settings, tolerances, limits))
        return None
    descent = Descent(atoms, coarse, coarse.settings, tolerances)
    descent.hessian = hessian
    descent.run()
    return descent.hessian


def relax_by_code(
    own: OwnRelaxation,
    atoms: Atoms,
    guarded: GuardedCalculator,
    settings: RelaxationSettings,
    tolerances: tuple[float, float],
) -> bool:
    """Have a code relax a structure by itself; return whether a single point at the end meets the tolerances.

    Parameters
    ----------
    own
        The relaxation by the code.
    atoms
        The structure, which is moved.
    guarded
        Its calculator.
    settings
        Pressure, and whether the cell is fixed.
    tolerances
        Largest force (eV/Å) and stress residual (eV/Å³) of a converged structure.

    Raises
    ------
    JobEnded
        If the code fails, or the structure at its end cannot be used.
    """
    for _ in range(ROUNDS):
        left = guarded.left.force_calls
        if left < 2:  # of the last one, the single point is the end
            break
        guarded.relax_with(own, atoms, _target(settings, tolerances, replace(guarded.left, force_calls=left - 1)))
        atoms.get_potential_energy()
        force, stress = guarded.max_force, guarded.max_stress_residual
        if force is None or force > tolerances[0]:
            continue
        if settings.fixed_cell or (stress is not None and stress <= tolerances[1]):
            return True
    return False


def _target(settings: RelaxationSettings, tolerances: tuple[float, float], limits: Limits) -> Target:
    return Target(
        max_force=tolerances[0],
        max_stress=tolerances[1],
        pressure=settings.pressure,
        fixed_cell=settings.fixed_cell,
        steps=limits.force_calls,
    )
