"""Outcomes from structures that the user has relaxed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.outcomes import Evaluation, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import RELAX, Candidate, Cost
from hybridcsp.core.system import System
from hybridcsp.errors import InputError, message_of
from hybridcsp.objectives import Objective
from hybridcsp.objectives.values import real_value
from hybridcsp.relaxation.properties import PropertyError, results_of
from hybridcsp.structure.validity import has_finite_geometry, is_crystal_of
from hybridcsp.utils.interrupts import exits_contained


def relaxed_by_user(
    candidate: Candidate, atoms: Atoms, problem: Problem, *, calculator: str, force_calls: int, converged: bool
) -> Relaxed:
    """Return the outcome of a relaxation by the user.

    Parameters
    ----------
    candidate
        The candidate that was relaxed.
    atoms
        The relaxed structure with its calculator, from which energy and, if present, forces, stress and magnetic
        moments are read.
    problem
        The problem, which determines pressure and allowed contents.
    calculator
        The label that the energy is recorded under.
    force_calls
        Number of force calls of the relaxation; 0 if unknown.
    converged
        Whether the structure is a minimum.

    Raises
    ------
    InputError
        If the structure is not valid, has other contents than the problem, or has no energy.
    """
    relaxed = without_calculator(atoms)
    if atoms.calc is None:
        raise InputError("atoms", atoms, reason="the structure needs a calculator that holds the energy")
    try:
        results = results_of(atoms)
    except PropertyError as error:
        reason = f"the structure needs a finite energy and results in ASE's form: {error}; report a failure with fail()"
        raise InputError("atoms", atoms, reason=reason) from error
    if not has_finite_geometry(atoms):
        reason = "positions and cell must be finite; report a failure with fail()"
        raise InputError("atoms", atoms, reason=reason)
    if not is_crystal_of(atoms, problem):
        raise InputError("atoms", atoms, f"a crystal of whole formula units of {problem.formula}")
    relaxed.calc = SinglePointCalculator(relaxed, **results)
    energy, forces, stress, residual = results["energy"], results.get("forces"), results.get("stress"), None
    if stress is not None:
        residual = float(np.abs(stress + problem.pressure * np.array([1, 1, 1, 0, 0, 0])).max())
    evaluation = Evaluation(
        level=RELAX,
        calculator=calculator,
        energy=energy,
        enthalpy=energy + problem.pressure * relaxed.get_volume(),
        max_force=None if forces is None else float(np.linalg.norm(forces, axis=1).max()),
        max_stress_residual=residual,
        magmoms=results.get("magmoms"),
    )
    cost = Cost(force_calls=force_calls)
    return Relaxed(candidate=candidate, cost=cost, atoms=relaxed, evaluation=evaluation, converged=converged)


def problem_of(atoms: Atoms, system: System) -> Problem:
    """Return the problem of the composition of a structure in a chemical system.

    Raises
    ------
    InputError
        If the search has no such composition.
    """
    formula = system.formula_of(without_calculator(atoms).numbers)
    if formula not in system.compositions:
        allowed = f"a crystal of one of the compositions of the search: {', '.join(system.compositions)}"
        raise InputError("atoms", atoms, allowed)
    return system.problem(formula)


def with_objectives(relaxed: Relaxed, objectives: Mapping[str, Objective]) -> Relaxed:
    """Return a relaxation by the user with the values of objectives, and the reasons for which others are missing.

    Parameters
    ----------
    relaxed
        The relaxation; one that has not converged is returned as it is.
    objectives
        Objectives by name.
    """
    if not relaxed.converged:
        return relaxed
    values: dict[str, float] = {}
    failures: dict[str, str] = {}
    for name, objective in objectives.items():
        atoms = relaxed.atoms.copy()
        atoms.calc = relaxed.atoms.calc
        try:
            with exits_contained():
                values[name] = real_value(objective.value(atoms))
        except Exception as error:  # noqa: BLE001 - code of the user may fail in any way, and the relaxation stands
            failures[name] = message_of(error)
    return replace(relaxed, objectives=values, objective_failures=failures)


def without_calculator(atoms: Atoms) -> Atoms:
    """Return a periodic copy of a structure without its calculator.

    Raises
    ------
    InputError
        If it is not an :class:`ase.Atoms`.
    """
    if not isinstance(atoms, Atoms):
        raise InputError("atoms", atoms, "a crystal as ase.Atoms")
    copied = atoms.copy()
    copied.calc = None
    copied.pbc = True
    return copied
