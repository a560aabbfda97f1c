"""Relaxation of one job to its outcome, with ASE's optimisers and any ASE calculator.

A job has a level: "evaluate" (a single point), "relax", "refine" (the same with tighter criteria), "follow-up" (a
relaxation with a follow-up calculator), or one of :data:`PREPARATIONS`, which moves the atoms before the relaxation.
All levels run with the same guarded calculator (:mod:`~hybridcsp.relaxation.guards`), which counts force calls and
enforces the limits of the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Relaxed
from hybridcsp.core.records import EVALUATE, FOLLOW_UP, LOWEST, REFINE, RELAX, Candidate, Cost, Job
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.objectives import Objective, ObjectiveChoice
from hybridcsp.relaxation.calculators.jobs import JobCalculator
from hybridcsp.relaxation.calculators.registry import CalculatorLike, build_calculator
from hybridcsp.relaxation.capture import Captor
from hybridcsp.relaxation.descent import Descent
from hybridcsp.relaxation.displacements import escape, follow_soft_mode
from hybridcsp.relaxation.evaluation_files import JobEvaluations
from hybridcsp.relaxation.guards import Evaluated, GuardedCalculator, JobEnded
from hybridcsp.relaxation.objective_values import evaluate_objectives
from hybridcsp.relaxation.preselection import Starts, start_from_most_promising
from hybridcsp.relaxation.runner import LabelledRunner
from hybridcsp.relaxation.saddle import WINDOW, is_symmetric, leave_saddles
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.relaxation.staging import relax_by_code, relax_earlier_stages
from hybridcsp.relaxation.symmetrisation import symmetrise


def _escape(atoms: Atoms, candidate: Candidate) -> None:
    convert = {"temperature": float, "seed": int, "maxima": int, "steps": int}
    tag = candidate.proposal.tag
    escape(atoms, **{name: kind(tag[name]) for name, kind in convert.items() if name in tag})


def _follow_soft_mode(atoms: Atoms, candidate: Candidate) -> None:
    follow_soft_mode(atoms, int(candidate.proposal.tag.get("mode", 0)))


#: Functions that prepare the relaxation of some levels, by level. Each is called with the atoms, which have a
#: calculator and which it moves, and the candidate, whose tag holds the parameters. A function that selects one of
#: several structures returns what it knows of them; the others return ``None``.
PREPARATIONS: Mapping[str, Callable[[Atoms, Candidate], Starts | None]] = {
    "escape": _escape,
    "soft": _follow_soft_mode,
    LOWEST: start_from_most_promising,
}

_NO_OBJECTIVES: Mapping[str, Objective] = {}

_LEVELS = (RELAX, EVALUATE, REFINE, FOLLOW_UP, *PREPARATIONS)


@dataclass(frozen=True, kw_only=True)
class Relaxer:
    """Factory of the function that a worker runs on its jobs.

    It can be pickled, so that each worker builds a calculator of its own.

    Attributes
    ----------
    calculator
        Name of a calculator, an ASE calculator, or a function without arguments that returns one. ``None`` if there are
        only jobs of follow-up calculators.
    settings
        Pressure, convergence criteria and limits.
    follow_ups
        Follow-up calculators, which jobs with ``calculator`` from 1 use; given as ``calculator`` is.
    objectives
        Objectives whose values are computed for structures that ``calculator`` has relaxed.
    evaluations
        Folder for one file of each job with all structures that it evaluated; ``None`` keeps none.
    folder
        Run directory, in which calculators that write files work; ``None`` for temporary folders.

    Examples
    --------
    >>> from hybridcsp.relaxation.relax import Relaxer
    >>> run = Relaxer(calculator="emt")()
    """

    calculator: CalculatorLike | None = "chgnet"
    settings: RelaxationSettings = field(default_factory=RelaxationSettings)
    follow_ups: tuple[CalculatorLike, ...] = ()
    objectives: tuple[ObjectiveChoice, ...] = ()
    evaluations: Path | None = None
    folder: Path | None = None

    def __call__(self) -> LabelledRunner:
        """Build the calculators and objectives, and return the function that turns a job into its outcome.

        Raises
        ------
        CalculatorError
            If a calculator cannot be built.
        InputError
            If an objective cannot be built.
        """
        built, objectives = self.build()

        def run(job: Job) -> Relaxed | Failed:
            calculator, label = calculator_of(job, built)
            if self.evaluations is None:
                return run_job(job, calculator, label, self.settings, objectives)
            record = JobEvaluations(self.evaluations, job, label)
            outcome = run_job(job, calculator, label, self.settings, objectives, record.add)
            record.write()
            return outcome

        return LabelledRunner(run, tuple("" if one is None else one[1] for one in built))

    def build(self) -> tuple[list[tuple[Calculator, str] | None], dict[str, Objective]]:
        """Return the calculators with their labels, by the numbers that jobs have, and the objectives by name.

        Errors are those of calling the object.
        """
        built = [None if spec is None else build_calculator(spec) for spec in (self.calculator, *self.follow_ups)]
        for one in built:
            if one is not None and isinstance(one[0], JobCalculator):
                one[0].work_in(self.folder)
        return built, {choice.name: choice.build() for choice in self.objectives}


def calculator_of(job: Job, built: Sequence[tuple[Calculator, str] | None]) -> tuple[Calculator, str]:
    """Return the calculator that a job uses, and its label.

    Raises
    ------
    CalculatorError
        If it was not built.
    """
    found = built[job.calculator] if job.calculator < len(built) else None
    if found is None:
        which = f"its follow-up calculator {job.calculator}" if job.calculator else "the calculator of the search"
        raise CalculatorError(f"this Relaxer was made without {which}; give it as calculator or in follow_ups")
    return found


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a job before the values of objectives are computed.

    Attributes
    ----------
    job
        The job.
    outcome
        Its outcome.
    evaluated
        The last structure that was evaluated; ``None`` if there is none.
    seconds
        Time in s that it has taken.
    """

    job: Job
    outcome: Relaxed | Failed
    evaluated: Evaluated | None
    seconds: float


def run_job(
    job: Job,
    calculator: Calculator,
    label: str,
    settings: RelaxationSettings,
    objectives: Mapping[str, Objective] = _NO_OBJECTIVES,
    on_evaluation: Callable[[Atoms, dict[str, Any]], None] | None = None,
) -> Relaxed | Failed:
    """Prepare, relax or evaluate the structure of a job, and return the outcome.

    Parameters
    ----------
    job
        The structure, its level and its limits; it is not changed.
    calculator
        Any ASE calculator.
    label
        Name and version of the calculator.
    settings
        Pressure, convergence criteria and limits.
    objectives
        Objectives by name. Their values are computed if the relaxation converges without being captured by a known
        minimum, which has its own; not for follow-ups, whose energies are those of other calculators.
    on_evaluation
        Function that is called with each structure that was evaluated and its results, those of objectives excepted.

    Returns
    -------
    Relaxed or Failed
        ``Relaxed.converged`` is true if the unfiltered forces and stress meet the criteria; a completed single point is
        always converged. Every error of the structure or of the calculator gives a ``Failed``.

    Raises
    ------
    InputError
        If the level is unknown.
    """
    if not isinstance(calculator, JobCalculator):
        return _outcome(job, calculator, label, settings, objectives, on_evaluation)
    outcome: Relaxed | Failed | None = None
    try:
        calculator.begin(job)
        outcome = _outcome(job, calculator, label, settings, objectives, on_evaluation)
    finally:
        calculator.end(failed=not isinstance(outcome, Relaxed))
    return outcome


def _outcome(
    job: Job,
    calculator: Calculator,
    label: str,
    settings: RelaxationSettings,
    objectives: Mapping[str, Objective],
    on_evaluation: Callable[[Atoms, dict[str, Any]], None] | None,
) -> Relaxed | Failed:
    """Return the outcome of a job; parameters as in :func:`run_job`."""
    ended = relax_job(job, calculator, label, settings, on_evaluation)
    return with_objectives(ended, calculator, settings, objectives)


def relax_job(
    job: Job,
    calculator: Calculator,
    label: str,
    settings: RelaxationSettings,
    on_evaluation: Callable[[Atoms, dict[str, Any]], None] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Ended:
    """Do what :func:`run_job` does, apart from the objectives and from what a job calculator does around a job.

    Parameters
    ----------
    job, calculator, label, settings, on_evaluation
        As of :func:`run_job`.
    clock
        Returns the time in s that the job has taken, from any start.

    Raises
    ------
    InputError
        If the level is unknown.
    """
    if job.level not in _LEVELS:
        raise InputError("level", job.level, f"one of {', '.join(_LEVELS)}")
    atoms = job.atoms.copy()
    guarded = GuardedCalculator(calculator, atoms, job.limits, settings, on_evaluation, clock=clock)
    atoms.calc = guarded
    reason: FailureReason | None = None
    detail = ""
    starts = Starts()
    captured_by: int | None = None
    try:
        if job.level == EVALUATE:
            atoms.get_potential_energy()
            converged = True
        else:
            if job.level == FOLLOW_UP:
                starts = Starts(enthalpies=(start := _enthalpy_per_atom(atoms, guarded),))
                _check_height(start, job.give_up_above)
            if job.level in PREPARATIONS:
                starts = PREPARATIONS[job.level](atoms, job.candidate) or starts
            converged, captured_by, detail = _relax(job, atoms, guarded, settings, starts.hessian)
    except JobEnded as end:
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
        "start_enthalpies": starts.enthalpies,
        "start_estimates": starts.estimates,
    }
    outcome: Relaxed | Failed
    if reason is not None or not guarded.restore(atoms):
        reason = reason or FailureReason.CALCULATOR
        outcome = Failed(**common, reason=reason, level=job.level, atoms=atoms.copy())
        return Ended(job=job, outcome=outcome, evaluated=None, seconds=cost.seconds)
    evaluation = _evaluation(guarded, atoms, job.level, label)
    final = _with_results(atoms, guarded.results)
    outcome = Relaxed(**common, atoms=final, evaluation=evaluation, converged=converged, captured_by=captured_by)
    return Ended(job=job, outcome=outcome, evaluated=guarded.evaluated(), seconds=guarded.seconds)


def with_objectives(
    ended: Ended, calculator: Calculator, settings: RelaxationSettings, objectives: Mapping[str, Objective]
) -> Relaxed | Failed:
    """Return the outcome of a job with the values of objectives, where it has any.

    Parameters
    ----------
    ended
        The end of the job.
    calculator, settings, objectives
        As of :func:`run_job`.
    """
    relaxed, job = ended.outcome, ended.job
    if isinstance(relaxed, Failed) or ended.evaluated is None or not objectives:
        return relaxed
    if not relaxed.converged or relaxed.captured_by is not None or job.level == FOLLOW_UP:
        return relaxed
    limits = replace(job.limits, seconds=max(0.0, job.limits.seconds - ended.seconds))
    values, failures, more = evaluate_objectives(
        objectives, relaxed.atoms.copy(), ended.evaluated, calculator, limits, settings
    )
    return replace(relaxed, objectives=values, objective_failures=failures, cost=relaxed.cost + more)


def _enthalpy_per_atom(atoms: Atoms, guarded: GuardedCalculator) -> float:
    return (float(atoms.get_potential_energy()) + guarded.pressure * float(atoms.cell.volume)) / len(atoms)


def _check_height(enthalpy: float, highest: float | None) -> None:
    """End the job if the enthalpy of its start exceeds a limit (eV/atom)."""
    if highest is not None and enthalpy > highest:
        raise JobEnded(None, f"not relaxed, because it starts at {enthalpy:.3f} eV/atom, above {highest:.3f}")


def _why_needed(missing: PropertyNotImplementedError) -> str:
    if "stress" in str(missing):
        return "which the relaxation of a cell needs; in a fixed cell (problem.cell) positions are relaxed without it"
    return "which this relaxation needs"


def _relax(
    job: Job,
    atoms: Atoms,
    guarded: GuardedCalculator,
    settings: RelaxationSettings,
    hessian: NDArray[np.float64] | None,
) -> tuple[bool, int | None, str]:
    """Move the atoms to a minimum; ``hessian`` holds the second derivatives as far as they are known.

    Returns
    -------
    tuple
        Whether they have arrived, the id of the known minimum that captured them, and an explanation.
    """
    in_search = job.level not in (REFINE, FOLLOW_UP)
    leaves_saddles = in_search and is_symmetric(atoms)
    hessian = relax_earlier_stages(atoms, guarded, settings, job.level, hessian)
    if isinstance(guarded.calculator, JobCalculator) and guarded.calculator.own is not None:
        own, tolerances = guarded.calculator.own, settings.tolerances(job.level)
        return relax_by_code(own, atoms, guarded, settings, tolerances), None, "relaxed by the code itself"
    captor = Captor(job.known) if in_search and job.known else None
    descent = Descent(atoms, guarded, settings, settings.tolerances(job.level), captor)
    descent.hessian = hessian
    if not descent.run():
        return False, None, "the optimiser stopped"
    if job.level == REFINE:
        return True, None, "symmetrised" if symmetrise(atoms, guarded, settings, REFINE) else ""
    if captor is not None and leaves_saddles:
        is_low = guarded.evaluated().enthalpy_per_atom <= captor.lowest + WINDOW
        leaves_saddles = is_low and descent.captured_by is None and not captor.is_known(atoms, guarded)
    left = leave_saddles(descent, job.candidate.id) if leaves_saddles else 0
    return True, descent.captured_by, f"left {left} saddle point{'s' * (left > 1)}" if left else ""


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
