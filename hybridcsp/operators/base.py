"""The interface of evolution's operators."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import RELAX
from hybridcsp.errors import InputError


class Operator(ABC):
    """Base class of the operators that make a child of one or more parents.

    An operator has no state: what it returns depends on its parameters and on the arguments of the call only, so that a
    search repeats exactly. A frozen dataclass is the usual form. :func:`~hybridcsp.operators.common.bounded_attempts`
    and :func:`~hybridcsp.operators.common.finish` turn a draft into a child that obeys the problem.

    Attributes
    ----------
    name
        Name in the records of a search; unique among the operators of one search.
    n_parents
        Number of parents of a child; default 1.
    level
        Level of the jobs that relax the children; default "relax".
    follows_modes
        Whether successive children of the same parents follow successive modes; default False. If so, evolution calls
        :meth:`following` before each child.

    Examples
    --------
    >>> class Swell(Operator):
    ...     '''Expand the crystal by 10 % in volume.'''
    ...
    ...     name = "swell"
    ...
    ...     def __call__(self, parents, problem, rng):
    ...         child = parents[0].copy()
    ...         child.set_cell(child.cell * 1.1 ** (1 / 3), scale_atoms=True)
    ...         return child
    """

    name: str
    n_parents: int = 1
    level: str = RELAX
    follows_modes: bool = False

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the operator can change anything in this problem; by default True.

        Called once for each search; an operator that does not apply is not used.
        """
        return True

    def following(self, mode: int) -> Operator:
        """Return the operator that follows a mode, counted from 0; by default the operator itself.

        Called only if ``follows_modes`` is true, with the number of children that the same parents already have from
        this operator. The number may exceed the number of modes.
        """
        return self

    @abstractmethod
    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child that obeys the problem, or ``None`` if a bounded number of attempts fails.

        Called in the search's own process, which runs no calculator.

        Parameters
        ----------
        parents
            Relaxed structures, ``n_parents`` of them; they must not be changed.
        problem
            Composition, cell, volumes, distances and space groups that the child has to obey.
        rng
            The only source of random numbers.
        """


@dataclass(frozen=True, eq=False)
class WeightedOperator:
    """An operator with the weight that evolution gives it.

    Attributes
    ----------
    operator
        The operator.
    prior
        Relative frequency of the operator before anything is known about its yield; positive.

    Raises
    ------
    InputError
        If the operator does not subclass :class:`Operator`, or the prior is not a finite positive number.
    """

    operator: Operator
    prior: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Operator):
            raise InputError("operator", self.operator, "an instance of a subclass of hybridcsp.operators.Operator")
        if not (math.isfinite(self.prior) and self.prior > 0):
            raise InputError("prior", self.prior, "a finite positive number")
