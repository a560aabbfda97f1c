"""Conformance suite of operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import is_word
from hybridcsp.operators import Operator
from hybridcsp.testing.requirements import conformance_suite, require, require_structure, unchanged


@conformance_suite
def check_operator(
    operator: Operator, *, problem: Problem | None = None, parents: Sequence[Atoms] | None = None, children: int = 20
) -> None:
    """Check that an operator makes valid children, repeats exactly, and leaves its parents unchanged.

    Parameters
    ----------
    operator
        The operator.
    problem
        Problem that the children must obey; by default CuAu with one to four formula units.
    parents
        Structures of the problem, at least ``operator.n_parents``; by default CuAu, perfect and distorted.
    children
        Number of calls.

    Raises
    ------
    AssertionError
        If the operator breaks a rule; the message names it.
    """
    require(isinstance(operator, Operator), f"{type(operator).__name__} must inherit hybridcsp.operators.Operator.")
    name = operator.name
    require(is_word(name), f"The name {name!r} of the operator must be a word that begins with a letter.")
    require(
        operator.n_parents >= 1, f"The operator {name} needs {operator.n_parents} parents; it must be at least one."
    )
    problem = problem or Problem("CuAu", formula_units=(1, 4))
    require(operator.applies_to(problem), f"The operator {name} does not apply to the problem; pass another one.")
    known = list(parents) if parents is not None else _copper_gold(problem)
    require(len(known) >= operator.n_parents, f"The operator {name} needs {operator.n_parents} parents.")

    made = 0
    different = False
    for number in range(children):
        chosen = [known[(number + i) % len(known)] for i in range(operator.n_parents)]
        with unchanged(chosen, f"The operator {name} changed a parent; it must work on a copy."):
            child = operator(chosen, problem, np.random.default_rng(number))
        again = operator(chosen, problem, np.random.default_rng(number))
        require(
            (child is None) == (again is None) and (child is None or child == again),
            f"The operator {name} gave two different children for the same parents and random numbers; it must have no "
            "state and draw random numbers from the given generator alone.",
        )
        if child is not None:
            made += 1
            require_structure(child, problem, f"Child {number} of the operator {name}")
            different = different or all(child != parent for parent in chosen)
    require(made, f"The operator {name} made no child in {children} calls.")
    require(different, f"The children of the operator {name} are equal to their parents.")


def _copper_gold(problem: Problem) -> list[Atoms]:
    """Return crystals of CuAu with one to four formula units, perfect ones of three structures and distorted ones."""
    rng = np.random.default_rng(0)
    perfect = [bulk("CuAu", structure, a=a) for structure, a in (("rocksalt", 5.2), ("zincblende", 5.6))]
    perfect += [bulk("CuAu", "cesiumchloride", a=3.1).repeat(repeat) for repeat in ((1, 1, 2), (2, 2, 1), (1, 2, 2))]
    distorted = [atoms.copy() for atoms in perfect[2:]]
    for atoms in distorted:
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.03, (3, 3))), scale_atoms=True)
    return [atoms for atoms in (*perfect, *distorted) if problem.units_of(atoms.numbers) in problem.units]
