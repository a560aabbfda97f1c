"""Requirements of the conformance suites, raised as assertions whether or not Python runs with ``-O``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.errors import message_of
from hybridcsp.structure.validity import is_finite_crystal

_P = ParamSpec("_P")


def conformance_suite(check: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate a suite so that an exception of the plug-in becomes an assertion, too."""

    @wraps(check)
    def suite(*arguments: _P.args, **options: _P.kwargs) -> None:
        try:
            check(*arguments, **options)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{check.__name__} was ended by {message_of(error)}. The plug-in must not raise this exception here; "
                "the traceback above shows where it does."
            ) from error

    return suite


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
