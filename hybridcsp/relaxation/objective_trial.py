"""The trial of objectives with a test structure, before a search begins."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cloudpickle
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import EVALUATE, Candidate, Job, Limits, Proposal
from hybridcsp.errors import BackendError, InputError, message_of
from hybridcsp.objectives.base import MAXIMUM, MINIMUM, REPORTED, Objective
from hybridcsp.objectives.choice import ObjectiveChoice
from hybridcsp.objectives.values import real_value
from hybridcsp.relaxation.backends.pool import WorkerPool
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.utils.activity import announce
from hybridcsp.utils.interrupts import exits_contained

#: Shortest time limit of a trial in s, which includes importing the objective.
_LEAST_SECONDS = 60.0

#: Digests of the objectives and contents whose trial in a process of its own has succeeded, in this process.
_passed: set[str] = set()


def try_objectives(
    choices: Sequence[ObjectiveChoice], problem: Problem, limits: Limits, *, ask_and_tell: bool = False
) -> tuple[ObjectiveChoice, ...]:
    """Build objectives, compute the value of each for a test structure, and return them with their goals filled in.

    Code of other packages and of the user runs in a worker process first, because it may end its process.

    Parameters
    ----------
    choices
        The objectives.
    problem
        Problem of the search, whose contents the test structure has.
    limits
        Limits of a relaxation, which hold for the trial of each objective; but it may take at least a minute.
    ask_and_tell
        Whether only the user evaluates structures, so that no objective can use the calculator, and all objectives are
        computed in this process.

    Raises
    ------
    InputError
        If an objective cannot be built, has no goal, needs a calculator with ask and tell, raises an error, ends its
        process, exceeds a limit, or returns no finite number for the test structure.
    """
    return tuple(_tried(choice, problem, limits, ask_and_tell=ask_and_tell) for choice in choices)


def _tried(choice: ObjectiveChoice, problem: Problem, limits: Limits, *, ask_and_tell: bool) -> ObjectiveChoice:
    shown = choice.objective if isinstance(choice.objective, str) else choice.name
    in_worker = not ask_and_tell and not choice.is_ours and not choice.kind.uses_forces
    if in_worker:
        _evaluate_in_worker(choice, shown, structure_for_trial(problem), limits)
    objective = choice.build()
    if ask_and_tell and objective.uses_forces:
        reason = "it needs further evaluations of the calculator, and there is none with ask and tell"
        raise InputError("objective", shown, reason=reason)
    goal = objective.natural_goal if choice.goal is None else choice.goal
    if goal is None:
        reason = (
            f"it has no direction; write {shown}:{MAXIMUM} or {shown}:{MINIMUM}, {shown}:VALUE for values near a "
            f"number, or {shown}:{REPORTED} to only compute it"
        )
        raise InputError("objective", shown, reason=reason)
    if not in_worker and not objective.uses_forces:
        atoms = structure_for_trial(problem)
        try:
            with exits_contained():
                _evaluate(objective, atoms)
        except Exception as error:  # code of the user may fail in any way
            raise _failed(shown, atoms, message_of(error)) from error
    return choice.with_goal(goal)


def _evaluate(objective: Objective, atoms: Atoms) -> None:
    try:
        real_value(objective.value(atoms))
    except PropertyNotImplementedError:
        return  # it uses the calculator, and the test structure has results only


@dataclass(frozen=True)
class _Trial:
    """Factory of the function with which a worker computes the value of one objective."""

    choice: ObjectiveChoice

    def __call__(self) -> JobRunner:
        """Return a function that builds the objective, and raises an error unless it returns a finite number."""

        def run(job: Job) -> Relaxed:
            _evaluate(self.choice.build(), job.atoms)
            results = job.atoms.calc.results
            evaluation = Evaluation(
                level=job.level,
                calculator="",
                energy=results["energy"],
                enthalpy=results["energy"],
                max_force=None,
                max_stress_residual=None,
            )
            return Relaxed(candidate=job.candidate, atoms=job.atoms, evaluation=evaluation, converged=True)

        return run


def _evaluate_in_worker(choice: ObjectiveChoice, shown: str, atoms: Atoms, limits: Limits) -> None:
    """Compute the value of an objective in a worker process, unless that has succeeded before.

    Raises
    ------
    InputError
        If it fails.
    """
    announce(f"trying the objective {shown}")
    try:
        pickled = cloudpickle.dumps(choice)
    except Exception as error:
        reason = f"it cannot be sent to the workers: {message_of(error)}"
        raise InputError("objective", shown, reason=reason) from error
    digest = hashlib.sha256(pickled + str(atoms.symbols).encode()).hexdigest()
    if digest in _passed:
        return
    proposal = Proposal(atoms=atoms, operator="trial")
    candidate = Candidate(id=1, proposal=proposal, source="trial")
    limits = replace(limits, seconds=max(limits.seconds, _LEAST_SECONDS))
    try:
        with WorkerPool(_Trial(choice), workers=1) as pool:
            pool.submit(Job(candidate=candidate, atoms=atoms, level=EVALUATE, limits=limits))
            (outcome,) = pool.completed(None)
    except BackendError as error:
        raise InputError("objective", shown, reason=f"it cannot be called in a worker process: {error}") from error
    if isinstance(outcome, Failed):
        if outcome.reason is FailureReason.WORKER_DIED:
            detail = f"it ended the process that called it ({outcome.detail})"
        elif outcome.reason is FailureReason.CALCULATOR:
            choice.build()  # its own error is clearer if it cannot be built
            detail = outcome.detail
        else:
            detail = f"{outcome.reason}: {outcome.detail}"
        raise _failed(shown, atoms, detail)
    _passed.add(digest)


def _failed(shown: str, atoms: Atoms, detail: str) -> InputError:
    return InputError("objective", shown, reason=f"it has failed for a test structure of {atoms.symbols}: {detail}")


def structure_for_trial(problem: Problem) -> Atoms:
    """Return a simple cubic structure with the contents and volume of a problem, and with results that are zero."""
    symbols = [symbol for symbol, count in problem.composition.items() for _ in range(count)] * problem.units[0]
    edge = math.ceil(len(symbols) ** (1 / 3))
    length = (len(symbols) * problem.expected_volume_per_atom) ** (1 / 3)
    places = np.array([(i, j, k) for i in range(edge) for j in range(edge) for k in range(edge)][: len(symbols)])
    atoms = Atoms(symbols, scaled_positions=places / edge, cell=[length] * 3, pbc=True)
    zeros = np.zeros((len(atoms), 3))
    atoms.calc = SinglePointCalculator(
        atoms, energy=0.0, free_energy=0.0, forces=zeros, stress=np.zeros(6), magmoms=np.zeros(len(atoms))
    )
    return atoms
