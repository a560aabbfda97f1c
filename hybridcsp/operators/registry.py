"""The operators that evolution uses by default, and operators by name, including those of other packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hybridcsp.core.registry import Entry, Registry
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.operators.base import Operator, WeightedOperator
from hybridcsp.operators.displacement import CoordinateMutation, Rattle
from hybridcsp.operators.formula_units import FormulaUnits
from hybridcsp.operators.heredity import Heredity
from hybridcsp.operators.orbit_mutation import OrbitPermutation, OrbitReplacement, SpaceGroupMiner
from hybridcsp.operators.permutation import Permutation
from hybridcsp.operators.soft_mutation import CalculatorSoftMutation, SoftMutation
from hybridcsp.operators.strain import Strain
from hybridcsp.operators.supercell import Supercell
from hybridcsp.operators.symmetric_heredity import OrbitCrossover, SymmetricHeredity
from hybridcsp.operators.symmetry import SubgroupMutation, SymmetricMutation, Symmetrisation

#: The operators that evolution uses by default. The priors follow the yields per force call of evolution alone on model
#: potentials (``benchmarks/evolution.py``); they are evened out, because those are few systems.
OPERATORS: tuple[WeightedOperator, ...] = (
    WeightedOperator(Heredity(), prior=2.0),
    WeightedOperator(SymmetricHeredity(), prior=1.5),
    WeightedOperator(OrbitCrossover(), prior=2.0),
    WeightedOperator(OrbitReplacement()),
    WeightedOperator(OrbitPermutation(), prior=2.5),
    WeightedOperator(Permutation(), prior=2.5),
    WeightedOperator(SoftMutation(), prior=2.0),
    WeightedOperator(SpaceGroupMiner(), prior=0.7),
    WeightedOperator(FormulaUnits()),
    WeightedOperator(Supercell()),
    WeightedOperator(SubgroupMutation()),
    WeightedOperator(SymmetricMutation()),
    WeightedOperator(Strain(), prior=0.3),
    WeightedOperator(Symmetrisation()),
)

#: Operators that are not among the defaults. Displacements at random lead back to known minima: 10 of 127 children
#: found a new one. A soft mutation along the modes of the calculator itself costs 82 force calls and found one in 4 of
#: 36.
FURTHER: tuple[WeightedOperator, ...] = (
    WeightedOperator(CoordinateMutation()),
    WeightedOperator(Rattle()),
    CALCULATOR_SOFT_MUTATION := WeightedOperator(CalculatorSoftMutation()),
)

#: The name that stands for all of :data:`OPERATORS`.
DEFAULT = "default"

_ALLOWED = "an instance of a subclass of hybridcsp.operators.Operator, or a WeightedOperator"

_BUILTIN = {weighted.operator.name: weighted for weighted in (*OPERATORS, *FURTHER)}

OPERATOR_REGISTRY = Registry(
    "operator",
    (
        *(
            Entry(
                name=name,
                target=f"{type(weighted.operator).__module__}:{type(weighted.operator).__qualname__}",
                summary=(type(weighted.operator).__doc__ or "").partition("\n")[0],
            )
            for name, weighted in _BUILTIN.items()
        ),
        Entry(
            name="ase-ga-cut-and-splice",
            target="hybridcsp.operators.ase_ga:cut_and_splice",
            summary="Combine two parents by ase-ga's cut-and-splice (Deaven and Ho); needs the package ase-ga.",
        ),
    ),
)


def operators_named(names: str) -> tuple[WeightedOperator, ...]:
    """Return the operators of a comma-separated list of names.

    Parameters
    ----------
    names
        Names joined by commas; ``default`` stands for :data:`OPERATORS`.

    Raises
    ------
    UnknownNameError
        If a name is not registered.
    InputError
        If a name occurs twice.
    RegistrationError
        If the operator of another package cannot be imported or is not an :class:`~hybridcsp.operators.base.Operator`.
    """
    operators: list[WeightedOperator] = []
    for name in names.split(","):
        operators += OPERATORS if name == DEFAULT else [_operator_named(name)]
    twice = _repeated_name(operators)
    if twice is not None:
        raise InputError("operator", names, reason=f"the operator {twice} occurs more than once")
    return tuple(operators)


def weighted_operators(operators: Iterable[Operator | WeightedOperator]) -> tuple[WeightedOperator, ...]:
    """Return operators with their weights; an operator without a weight gets the default one.

    Raises
    ------
    InputError
        If an object is neither an operator nor a weighted operator, or two operators have the same name.
    """
    if isinstance(operators, str) or not isinstance(operators, Iterable):
        raise InputError("operators", operators, f"a list, each item of it {_ALLOWED}")
    weighted = []
    for one in operators:
        if not isinstance(one, Operator | WeightedOperator):
            raise InputError("operators", one, reason=f"every item of the list must be {_ALLOWED}")
        weighted.append(WeightedOperator(one) if isinstance(one, Operator) else one)
    twice = _repeated_name(weighted)
    if twice is not None:
        raise InputError("operators", twice, reason="two operators have this name; their names must be different")
    return tuple(weighted)


def _repeated_name(operators: Iterable[WeightedOperator]) -> str | None:
    """Return the first name that several operators have, if there is one."""
    counts = Counter(weighted.operator.name for weighted in operators)
    return next((name for name, count in counts.items() if count > 1), None)


def _operator_named(name: str) -> WeightedOperator:
    if name in _BUILTIN:
        return _BUILTIN[name]
    entries = OPERATOR_REGISTRY.entries()
    if name not in entries:
        raise UnknownNameError("operator", name, [DEFAULT, *entries])
    built = entries[name].build()
    if isinstance(built, WeightedOperator):
        return built
    if not isinstance(built, Operator):
        raise entries[name].broken(
            f"gives {type(built).__qualname__}, which is not a subclass of hybridcsp.operators.Operator"
        )
    return WeightedOperator(built)
