"""Requirements of the conformance suites, raised as assertions whether or not Python runs with ``-O``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.structure.validity import is_finite_crystal


def require(condition: object, message: str) -> None:
    """Raise :class:`AssertionError` with a message unless a condition is true."""
    if not condition:
        raise AssertionError(message)


def require_structure(atoms: object, problem: Problem, origin: str) -> None:
    """Require a finite crystal whose contents are an allowed number of formula units."""
    require(isinstance(atoms, Atoms), f"{origin} is a {type(atoms).__name__}; it must be an ase.Atoms object.")
    assert isinstance(atoms, Atoms)
    require(is_finite_crystal(atoms), f"{origin} is not a crystal of finite positions and volume.")
    require(atoms.pbc.all(), f"{origin} is not periodic in three directions; set pbc=True.")
    require(
        problem.units_of(atoms.numbers) in problem.units,
        f"{origin} has the contents {atoms.symbols}; allowed are {problem.units_in_words} times {problem.formula}.",
    )


@contextmanager
def unchanged(structures: list[Atoms], message: str) -> Iterator[None]:
    """Require that structures are the same after a block as before."""
    before = [atoms.copy() for atoms in structures]
    yield
    for old, new in zip(before, structures, strict=True):
        require(old == new, message)
