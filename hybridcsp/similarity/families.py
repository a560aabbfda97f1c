"""Families of similar structures, which differ by small distortions at most."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ase import Atoms

from hybridcsp.structure.conversion import to_pymatgen

if TYPE_CHECKING:
    from pymatgen.core import Structure


def is_similar(a: Atoms, b: Atoms) -> bool:
    """Return whether two crystals match within the default tolerances of pymatgen's ``StructureMatcher``.

    These are far wider than those within which relaxations are one minimum: they hold for the same crystal relaxed by
    different calculators.
    """
    return _match(_Reduced(a), _Reduced(b))


class _Reduced:
    """A crystal and, once it is needed, its Niggli-reduced primitive cell, whose computation takes most of the time."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self.formula = str(atoms.symbols.formula.reduce()[0].format("hill"))

    @cached_property
    def structure(self) -> Structure:
        """The crystal in its reduced cell."""
        return to_pymatgen(self._atoms).get_reduced_structure().get_primitive_structure()


def _match(a: _Reduced, b: _Reduced) -> bool:
    return a.formula == b.formula and bool(_matcher().fit(a.structure, b.structure, skip_structure_reduction=True))


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
        self._structures: dict[_K, _Reduced] = {}
        self._similar: dict[tuple[_K, _K], bool] = {}

    def are_similar(self, a: _K, b: _K) -> bool:
        """Return whether the structures of two keys are similar; see :func:`is_similar`."""
        if (a, b) not in self._similar:
            self._similar[a, b] = _match(self._structure(a), self._structure(b))
        return self._similar[a, b]

    def _structure(self, key: _K) -> _Reduced:
        if key not in self._structures:
            self._structures[key] = _Reduced(self._structure_of(key))
        return self._structures[key]


@cache
def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher()
