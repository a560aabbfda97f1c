"""What a problem with given contents and nothing else said allows: the measure that every generator is held to."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from ase import Atoms

from hybridcsp.problem import Problem, plain_problem
from hybridcsp.structure import shortest_violation


def is_too_close(atoms: Atoms) -> bool:
    """Whether atoms are closer than a problem allows by default."""
    return shortest_violation(atoms, _of(atoms).distance_table) is not None


def is_plausible(atoms: Atoms) -> bool:
    """Whether distances and volume are those that a problem allows by default."""
    low, high = _of(atoms).volume_bounds
    return low <= float(atoms.get_volume()) / len(atoms) <= high and not is_too_close(atoms)


def _of(atoms: Atoms) -> Problem:
    return _problem(tuple(Counter(atoms.get_chemical_symbols()).items()))


@lru_cache(maxsize=1024)
def _problem(contents: tuple[tuple[str, int], ...]) -> Problem:
    return plain_problem(dict(contents))
