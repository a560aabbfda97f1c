"""How evolution makes children of parents: one file for each operator or tight family of operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms

from hybridcsp.operators.displacement import CoordinateMutation, Rattle
from hybridcsp.operators.heredity import Heredity
from hybridcsp.operators.permutation import Permutation
from hybridcsp.operators.strain import Strain
from hybridcsp.problem import Problem


class Operator(Protocol):
    """Makes one child; small, frozen, without state."""

    @property
    def name(self) -> str:
        """What it is called in records."""

    @property
    def n_parents(self) -> int:
        """How many parents it takes."""

    def suits(self, problem: Problem) -> bool:
        """Whether it can change anything in this problem."""

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child that obeys the problem, or ``None`` where bounded attempts fail."""


@runtime_checkable
class ModeFollowing(Protocol):
    """An operator that makes a different child of a parent for each of its modes."""

    def following(self, mode: int) -> Operator:
        """Return the operator that follows a mode, from 0."""


@dataclass(frozen=True, eq=False)
class Offer:
    """An operator, and how often it is used before anything is known, relative to the others."""

    operator: Operator
    prior: float = 1.0


#: What evolution uses.
OPERATORS: tuple[Offer, ...] = (
    Offer(Heredity(), 3.0),
    Offer(Permutation()),
    Offer(Strain()),
    Offer(Rattle()),
    Offer(CoordinateMutation()),
)
