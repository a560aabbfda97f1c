"""Operators of ase-ga, ASE's genetic algorithm, in our evolution; the package is needed only where one is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import finish

#: Shortest distances allowed in Å by pairs of atomic numbers: ase-ga's ``blmin``.
Distances: TypeAlias = Mapping[tuple[int, int], float]


@dataclass(frozen=True, eq=False)
class AseGaOperator(Operator):
    """An ``OffspringCreator`` of ase-ga as an operator of ours.

    It is built anew for every child, with random numbers that follow the search's seed, so that nothing it would keep
    from one child to the next (used modes, scaling volumes) can spoil that a search is repeated exactly. Parents reach
    it as ase-ga wants them (:func:`individual`), all with the same contents: those with fewer formula units are
    repeated where the problem allows the common multiple; otherwise there is no child.

    Parameters
    ----------
    make
        Called as ``make(parents, blmin, rng)`` with the parents, the shortest distances that the problem allows, and a
        ``numpy.random.RandomState``; returns the ``OffspringCreator``. Its ``n_top`` is ``len(parents[0])``.
    name
        What it is called in records.
    n_parents
        How many parents it takes.

    Examples
    --------
    >>> def rattle(parents, blmin, rng):
    ...     from ase_ga.standardmutations import RattleMutation
    ...
    ...     return RattleMutation(blmin, n_top=len(parents[0]), rng=rng)
    >>> operator = AseGaOperator(rattle, name="ase-ga-rattle")
    """

    make: Callable[[Sequence[Atoms], Distances, np.random.RandomState], Any]
    name: str
    n_parents: int = 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child, or ``None`` where ase-ga gives up or its child does not obey the problem."""
        alike = _of_one_size(parents, problem)
        if alike is None:
            return None
        individuals = [individual(atoms, number) for number, atoms in enumerate(alike, start=1)]
        numbers = np.unique(individuals[0].numbers).tolist()
        distances = {(a, b): float(problem.distance_table[a, b]) for a in numbers for b in numbers}
        # ase-ga calls randint, which the generators of today no longer have.
        random = np.random.RandomState(int(rng.integers(2**32)))
        child, _ = self.make(individuals, distances, random).get_new_individual(individuals)
        return None if child is None else finish(child, problem, parents=parents)


def cut_and_splice() -> AseGaOperator:
    """Return Deaven and Ho's cut-and-splice, with cells that vary.

    Raises
    ------
    InputError
        If ase-ga is not installed.

    References
    ----------
    Deaven, Ho, Phys. Rev. Lett. 75, 288 (1995), doi:10.1103/PhysRevLett.75.288; Vilhelmsen, Hammer, Phys. Rev. Lett.
    108, 126101 (2012), doi:10.1103/PhysRevLett.108.126101.
    """
    try:
        from ase_ga.cutandsplicepairing import CutAndSplicePairing
    except ImportError as error:
        raise InputError(
            "operator", "ase-ga-cut-and-splice", f"needs the package ase-ga: pip install ase-ga ({error})"
        ) from error

    def make(parents: Sequence[Atoms], blmin: Distances, rng: np.random.RandomState) -> Any:
        slab = Atoms(cell=parents[0].cell, pbc=True)  # nothing is held fixed
        return CutAndSplicePairing(slab, len(parents[0]), blmin, number_of_variable_cell_vectors=3, rng=rng)

    return AseGaOperator(make, name="ase-ga-cut-and-splice", n_parents=2)


def individual(atoms: Atoms, confid: int) -> Atoms:
    """Return a structure as ase-ga's operators and databases want it.

    Parameters
    ----------
    atoms
        Any crystal; its results stay behind.
    confid
        Its number among the parents.

    Returns
    -------
    Atoms
        Sorted by atomic number, because ase-ga pairs atoms by their place; each atom with a tag of its own, because
        atoms of one tag are a molecule to it; with ``confid``, ``key_value_pairs`` and ``data`` in ``info``.
    """
    order = np.argsort(atoms.numbers, kind="stable")
    result = atoms[order]
    result.set_tags(range(len(result)))
    result.set_constraint()
    result.info = {"confid": confid, "key_value_pairs": {"extinct": 0}, "data": {}}
    return result


def _of_one_size(parents: Sequence[Atoms], problem: Problem) -> list[Atoms] | None:
    """Return the parents with equal contents, repeated along their shortest vector where that takes it."""
    units = [problem.units_of(parent.numbers) or 0 for parent in parents]
    common = math.lcm(*units)
    if common not in problem.units:
        return None
    repeats = np.ones((len(parents), 3), dtype=int)
    for repeat, parent, own in zip(repeats, parents, units, strict=True):
        repeat[np.argmin(parent.cell.lengths())] = common // own
    return [parent.repeat(repeat) for parent, repeat in zip(parents, repeats, strict=True)]
