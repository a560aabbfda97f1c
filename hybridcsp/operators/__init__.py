"""How evolution makes children of parents: one file for each operator or tight family of operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import RELAX
from hybridcsp.operators.displacement import CoordinateMutation, Rattle
from hybridcsp.operators.formula_units import FormulaUnits
from hybridcsp.operators.heredity import Heredity
from hybridcsp.operators.permutation import Permutation
from hybridcsp.operators.soft_mutation import CalculatorSoftMutation, SoftMutation
from hybridcsp.operators.strain import Strain
from hybridcsp.operators.supercell import Supercell
from hybridcsp.operators.symmetry import SubgroupMutation, SymmetricMutation, Symmetrisation


class Operator(Protocol):
    """Makes one child; small, frozen, without state."""

    @property
    def name(self) -> str:
        """What it is called in records."""

    @property
    def n_parents(self) -> int:
        """How many parents it takes."""

    def applies_to(self, problem: Problem) -> bool:
        """Whether it can change anything in this problem."""

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child that obeys the problem, or ``None`` where bounded attempts fail."""


@runtime_checkable
class ModeFollowing(Protocol):
    """An operator that makes a different child of a parent for each of its modes."""

    def following(self, mode: int) -> Operator:
        """Return the operator that follows a mode, from 0."""


@dataclass(frozen=True, eq=False)
class WeightedOperator:
    """An operator as evolution uses it.

    Attributes
    ----------
    operator
        The operator.
    prior
        How often it is used before anything is known, relative to the others.
    level
        Of the jobs that its children become.
    """

    operator: Operator
    prior: float = 1.0
    level: str = RELAX


#: What evolution uses. The priors follow what each earned per relaxation where evolution searched nine development
#: systems alone, evened out because that is little to go by.
OPERATORS: tuple[WeightedOperator, ...] = (
    WeightedOperator(Heredity(), prior=4.0),
    WeightedOperator(Permutation(), prior=2.0),
    WeightedOperator(SoftMutation(), prior=2.0),
    WeightedOperator(FormulaUnits()),
    WeightedOperator(Supercell()),
    WeightedOperator(SubgroupMutation(), prior=0.7),
    WeightedOperator(SymmetricMutation(), prior=0.4),
    WeightedOperator(Strain(), prior=0.4),
    WeightedOperator(Symmetrisation(), prior=0.5),
    WeightedOperator(CoordinateMutation(), prior=0.3),
    WeightedOperator(Rattle(), prior=0.3),
)

#: Soft mutation along the calculator's own modes, a job of its own level: for whoever asks for it.
CALCULATOR_SOFT_MUTATION = WeightedOperator(CalculatorSoftMutation(), level="soft")
