"""What a problem with given contents and nothing else said allows: the measure that every generator is held to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

from ase import Atoms

from hybridcsp.core.problem import Problem, plain_problem
from hybridcsp.structure.validity import shortest_violation


def is_too_close(atoms: Atoms) -> bool:
    """Whether atoms are closer than a problem allows by default."""
    return _is_too_close(atoms, _of(atoms))


def is_plausible(atoms: Atoms, pressure_gpa: float | None = None) -> bool:
    """Whether distances and volume are those that a problem at this pressure (0 if none is told) allows by default."""
    problem = _of(atoms, max(pressure_gpa or 0.0, 0.0))
    low, high = problem.volume_bounds
    return low <= float(atoms.get_volume()) / len(atoms) <= high and not _is_too_close(atoms, problem)


def _is_too_close(atoms: Atoms, problem: Problem) -> bool:
    return shortest_violation(atoms, problem.distance_table) is not None


def _of(atoms: Atoms, pressure_gpa: float = 0.0) -> Problem:
    return _problem(tuple(Counter(atoms.get_chemical_symbols()).items()), pressure_gpa)


@lru_cache(maxsize=1024)
def _problem(contents: tuple[tuple[str, int], ...], pressure_gpa: float) -> Problem:
    return replace(plain_problem(dict(contents)), pressure_gpa=pressure_gpa)
