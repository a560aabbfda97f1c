"""Adapter for the operators of ase-ga, the genetic algorithm of ASE; the package is optional."""

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
    """Operator that calls an ``OffspringCreator`` of ase-ga.

    The ``OffspringCreator`` is built anew for each child, with a seed drawn from the random numbers of the search.
    Therefore no state that it keeps from child to child (used modes, scaling volumes) affects the exact repetition of a
    search. The parents are converted by :func:`individual` and have the same contents: those with fewer formula units
    are repeated if the problem allows the common multiple; otherwise there is no child.

    Parameters
    ----------
    make
        Function that returns the ``OffspringCreator``. It is called as ``make(parents, blmin, rng)`` with the parents,
        the shortest distances that the problem allows (Å), and a ``numpy.random.RandomState``. The ``n_top`` of the
        creator is ``len(parents[0])``.
    name
        Name in the records of a search.
    n_parents
        Number of parents of a child.

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
        """Return a child, or ``None`` if ase-ga returns none or its child does not obey the problem."""
        equal = _with_equal_contents(parents, problem)
        if equal is None:
            return None
        individuals = [individual(atoms, number) for number, atoms in enumerate(equal, start=1)]
        numbers = np.unique(individuals[0].numbers).tolist()
        distances = {(a, b): float(problem.distance_table[a, b]) for a in numbers for b in numbers}
        # ase-ga calls randint, which numpy's current generators do not have.
        random = np.random.RandomState(int(rng.integers(2**32)))
        child, _ = self.make(individuals, distances, random).get_new_individual(individuals)
        return None if child is None else finish(child, problem, parents=parents)


def cut_and_splice() -> AseGaOperator:
    """Return the cut-and-splice operator of Deaven and Ho, with a variable cell.

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
            "operator",
            "ase-ga-cut-and-splice",
            reason=f"its package is not installed; run pip install ase-ga ({error})",
        ) from error

    def make(parents: Sequence[Atoms], blmin: Distances, rng: np.random.RandomState) -> Any:
        slab = Atoms(cell=parents[0].cell, pbc=True)  # no atoms are fixed
        return CutAndSplicePairing(slab, len(parents[0]), blmin, number_of_variable_cell_vectors=3, rng=rng)

    return AseGaOperator(make, name="ase-ga-cut-and-splice", n_parents=2)


def individual(atoms: Atoms, confid: int) -> Atoms:
    """Convert a structure to the form that the operators and databases of ase-ga require.

    Parameters
    ----------
    atoms
        Any crystal; its calculator results are not copied.
    confid
        Number of the structure among the parents.

    Returns
    -------
    Atoms
        The atoms are sorted by atomic number, because ase-ga pairs atoms by index. Each atom has its own tag, because
        ase-ga treats atoms with the same tag as a molecule. ``info`` contains ``confid``, ``key_value_pairs`` and
        ``data``.
    """
    order = np.argsort(atoms.numbers, kind="stable")
    result = atoms[order]
    result.set_tags(range(len(result)))
    result.set_constraint()
    result.info = {"confid": confid, "key_value_pairs": {"extinct": 0}, "data": {}}
    return result


def _with_equal_contents(parents: Sequence[Atoms], problem: Problem) -> list[Atoms] | None:
    """Return the parents with equal contents, repeated along their shortest vectors, or ``None``."""
    units = [problem.units_of(parent.numbers) or 0 for parent in parents]
    common = math.lcm(*units)
    if common not in problem.units:
        return None
    repeats = np.ones((len(parents), 3), dtype=int)
    for repeat, parent, own in zip(repeats, parents, units, strict=True):
        repeat[np.argmin(parent.cell.lengths())] = common // own
    return [parent.repeat(repeat) for parent, repeat in zip(parents, repeats, strict=True)]
