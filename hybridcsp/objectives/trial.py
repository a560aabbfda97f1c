"""The trial of objectives with a test structure, before a search begins."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError, message_of
from hybridcsp.objectives.base import MAXIMUM, MINIMUM, REPORTED, Objective
from hybridcsp.objectives.choice import ObjectiveChoice
from hybridcsp.objectives.values import real_value
from hybridcsp.utils.interrupts import exits_contained


def try_objectives(
    choices: Sequence[ObjectiveChoice], problem: Problem, *, ask_and_tell: bool = False
) -> tuple[ObjectiveChoice, ...]:
    """Build objectives, compute the value of each for a test structure, and return them with their goals filled in.

    Parameters
    ----------
    choices
        The objectives.
    problem
        Problem of the search, whose contents the test structure has.
    ask_and_tell
        Whether only the user evaluates structures, so that no objective can use the calculator.

    Raises
    ------
    InputError
        If an objective cannot be built, has no goal, needs a calculator with ask and tell, or raises an error or
        returns no number for the test structure.
    """
    return tuple(_tried(choice, problem, ask_and_tell=ask_and_tell) for choice in choices)


def _tried(choice: ObjectiveChoice, problem: Problem, *, ask_and_tell: bool) -> ObjectiveChoice:
    shown = choice.objective if isinstance(choice.objective, str) else choice.name
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
    if not objective.uses_forces:
        _evaluate(objective, shown, problem)
    return choice.with_goal(goal)


def _evaluate(objective: Objective, shown: str, problem: Problem) -> None:
    atoms = structure_for_trial(problem)
    try:
        with exits_contained():
            real_value(objective.value(atoms), finite=False)
    except PropertyNotImplementedError:
        return  # it uses the calculator, and the test structure has results only
    except Exception as error:  # code of the user may fail in any way
        reason = f"it has failed for a test structure of {atoms.symbols}: {message_of(error)}"
        raise InputError("objective", shown, reason=reason) from error


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
