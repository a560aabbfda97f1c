"""Families of similar structures, which differ by small distortions at most."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, Generic, TypeVar

from ase import Atoms

from hybridcsp.structure.conversion import to_pymatgen


def is_similar(a: Atoms, b: Atoms) -> bool:
    """Return whether two crystals match within the default tolerances of pymatgen's ``StructureMatcher``.

    These are far wider than those within which relaxations are one minimum: they hold for the same crystal relaxed by
    different calculators.
    """
    if a.symbols.formula.reduce()[0] != b.symbols.formula.reduce()[0]:
        return False
    return bool(_matcher().fit(to_pymatgen(a), to_pymatgen(b)))


_K = TypeVar("_K", bound=Hashable)


class Families(Generic[_K]):
    """Compare structures that are known by keys, and remember the results.

    Parameters
    ----------
    structure_of
        Function that returns the structure of a key.
    """

    def __init__(self, structure_of: Callable[[_K], Atoms]) -> None:
        self._structure_of = structure_of
        self._structures: dict[_K, Atoms] = {}
        self._similar: dict[tuple[_K, _K], bool] = {}

    def are_similar(self, a: _K, b: _K) -> bool:
        """Return whether the structures of two keys are similar; see :func:`is_similar`."""
        if (a, b) not in self._similar:
            self._similar[a, b] = is_similar(self._structure(a), self._structure(b))
        return self._similar[a, b]

    def _structure(self, key: _K) -> Atoms:
        if key not in self._structures:
            self._structures[key] = self._structure_of(key)
        return self._structures[key]


@cache
def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher()
