"""The convex hull of a chemical system: energies, heights above it and decompositions at any composition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
from ase.data import atomic_numbers
from ase.formula import Formula
from numpy.typing import NDArray

from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram

#: Enthalpies per atom (eV) that differ by less are equal; results are rounded to it, so that they do not depend on the
#: order in which phases were put.
RESOLUTION = 1e-10
_DECIMALS = 10

# A hull plane above one of the phases by more (eV per atom) belongs to an ill-conditioned facet and is not used.
_PLANE_TOLERANCE = 1e-9

# Fractions of atoms below this are rounding errors of a decomposition.
_LEAST_FRACTION = 1e-8

# Numbers of atoms in a reduced formula unit, in the order of the elements of the system.
_Counts = tuple[int, ...]


class Hull:
    """Convex hull of the lowest enthalpies of the compositions of a chemical system.

    Enthalpies are in eV per atom and must come from one calculator and one pressure. The hull is computed with
    pymatgen's ``PhaseDiagram`` when it is asked for and only if what was put can have changed it: a phase that lies
    above the hull does not.

    Parameters
    ----------
    elements
        Symbols of the elements of the system, each once.

    Raises
    ------
    InputError
        If there are no elements, one occurs twice, or one does not exist.

    Examples
    --------
    >>> hull = Hull(["Cu", "Au"])
    >>> for formula, enthalpy in {"Cu": -3.5, "Au": -3.2, "CuAu": -3.45}.items():
    ...     hull.put(formula, enthalpy)
    >>> hull.height("Cu3Au", -3.4)
    0.075
    >>> hull.decomposition("Cu3Au")
    {'Cu': 0.5, 'CuAu': 0.5}
    """

    def __init__(self, elements: Sequence[str]) -> None:
        self.elements = tuple(elements)
        if not self.elements or len(set(self.elements)) < len(self.elements):
            raise InputError("elements", elements, "a list of symbols of elements, each once")
        for element in self.elements:
            if element == "X" or element not in atomic_numbers:
                raise InputError("elements", element, "a symbol of an element, such as Cu")
        self._enthalpies: dict[_Counts, float] = {}
        self._formulas: dict[_Counts, str] = {}
        # Among these are all phases on the hull. Only they enter the next computation: when enthalpies fall, a phase
        # that was above the hull stays above it.
        self._candidates: set[_Counts] = set()
        self._surface: _Surface | None = None

    def __len__(self) -> int:
        """Return the number of compositions."""
        return len(self._enthalpies)

    def put(self, formula: str, enthalpy_per_atom: float) -> None:
        """Set the lowest enthalpy of a composition, instead of the one before.

        Parameters
        ----------
        formula
            Formula with elements of the system. ``Cu2Au2`` and ``CuAu`` are one composition.
        enthalpy_per_atom
            Enthalpy in eV per atom.

        Raises
        ------
        InputError
            If the formula has other elements or none, or the enthalpy is not finite.
        """
        if not math.isfinite(enthalpy_per_atom):
            raise InputError(f"enthalpy of {formula}", enthalpy_per_atom, "a finite number (eV per atom)")
        counts = self._counts(formula)
        before = self._enthalpies.get(counts)
        self._enthalpies[counts] = float(enthalpy_per_atom)
        self._formulas.setdefault(counts, formula)
        if before is not None and counts in self._candidates:
            if enthalpy_per_atom == before:
                return
            if enthalpy_per_atom > before:
                # Phases that lay above the hull may be on the new one.
                self._candidates = set(self._enthalpies)
        elif self._surface is not None and enthalpy_per_atom >= self._energy(counts) - RESOLUTION:
            return
        self._candidates.add(counts)
        self._surface = None

    def remove(self, formula: str) -> None:
        """Remove a composition; nothing happens if it was not put.

        Raises
        ------
        InputError
            If the formula has other elements than the system or none.
        """
        counts = self._counts(formula)
        if self._enthalpies.pop(counts, None) is None:
            return
        del self._formulas[counts]
        if counts in self._candidates:
            self._candidates = set(self._enthalpies)
            self._surface = None

    @property
    def enthalpies(self) -> Mapping[str, float]:
        """Lowest enthalpies (eV per atom) by formula, in the order in which the compositions were put."""
        return {self._formulas[counts]: enthalpy for counts, enthalpy in self._enthalpies.items()}

    def fractions(self, formula: str) -> tuple[float, ...]:
        """Return the fractions of the atoms of a formula that are of each element.

        Raises
        ------
        InputError
            If the formula has other elements than the system or none.
        """
        return tuple(map(float, _fractions(self._counts(formula))))

    @property
    def is_complete(self) -> bool:
        """Return whether every element has an enthalpy, so that the hull covers all compositions."""
        return all(counts in self._enthalpies for counts in self._end_members())

    def energy(self, formula: str) -> float | None:
        """Return the enthalpy of the hull (eV per atom) at a composition; ``None`` while it is not complete.

        Raises
        ------
        InputError
            If the formula has other elements than the system or none.
        """
        counts = self._counts(formula)
        return self._energy(counts) if self.is_complete else None

    def height(self, formula: str, enthalpy_per_atom: float) -> float | None:
        """Return the height of an enthalpy above the hull (eV per atom); ``None`` while it is not complete.

        It is not negative for what was put, and negative for a phase that would move the hull.

        Raises
        ------
        InputError
            If the formula has other elements than the system or none.
        """
        energy = self.energy(formula)
        return None if energy is None else _rounded(enthalpy_per_atom - energy)

    def formation(self, formula: str, enthalpy_per_atom: float) -> float | None:
        """Return the enthalpy of formation (eV per atom) from the elements; ``None`` while one of them is missing.

        Only the elements of the formula are needed.

        Raises
        ------
        InputError
            If the formula has other elements than the system or none.
        """
        counts = self._counts(formula)
        ends = [(n, self._enthalpies.get(end)) for n, end in zip(counts, self._end_members(), strict=True) if n]
        total = 0.0
        for number, enthalpy in ends:
            if enthalpy is None:
                return None
            total += number * enthalpy
        return _rounded(enthalpy_per_atom - total / sum(counts))

    def decomposition(self, formula: str) -> dict[str, float]:
        """Return the phases on the hull into which a composition decomposes, with their fractions of the atoms.

        A phase on the hull decomposes into itself. The result is empty while the hull is not complete.

        Raises
        ------
        InputError
            If the formula has other elements than the system or none.
        """
        counts = self._counts(formula)
        if not self.is_complete:
            return {}
        parts = self._computed().decomposition(counts)
        return {self._formulas[part]: parts[part] for part in sorted(parts, key=_position)}

    @property
    def stable(self) -> tuple[str, ...]:
        """Return the formulas on the hull, from the first element to the last; empty while it is not complete."""
        if not self.is_complete:
            return ()
        vertices = self._computed().vertices
        return tuple(self._formulas[c] for c in sorted(vertices, key=_position))

    def facets(self) -> list[tuple[str, ...]]:
        """Return the formulas at the corners of each facet: tie lines of a binary system, triangles of a ternary one.

        The result is empty while the hull is not complete.
        """
        if not self.is_complete:
            return []
        return [tuple(self._formulas[counts] for counts in facet) for facet in self._computed().facets]

    def copy(self) -> Self:
        """Return a hull that changes independently of this one."""
        other = type(self)(self.elements)
        other._enthalpies, other._formulas = dict(self._enthalpies), dict(self._formulas)
        other._candidates, other._surface = set(self._candidates), self._surface
        return other

    def _counts(self, formula: str) -> _Counts:
        counts, strange = _reduced(formula, self.elements)
        if strange or not any(counts):
            system = "-".join(self.elements)
            raise InputError("formula", formula, f"a formula with elements of the system {system} and no others")
        return counts

    def _end_members(self) -> list[_Counts]:
        n = len(self.elements)
        return [tuple(int(i == j) for j in range(n)) for i in range(n)]

    def _energy(self, counts: _Counts) -> float:
        return self._computed().energy(counts)

    def _computed(self) -> _Surface:
        if self._surface is None:
            ends = self._end_members()
            phases = {counts: self._enthalpies[counts] for counts in sorted(self._candidates | set(ends))}
            self._surface = _Surface(self.elements, phases, [self._enthalpies[end] for end in ends])
            self._candidates = set(self._surface.vertices)
        return self._surface


class _Surface:
    """A computed hull, which does not change."""

    def __init__(self, elements: Sequence[str], phases: dict[_Counts, float], ends: list[float]) -> None:
        self._ends = np.array(ends)
        self._elements = elements
        formation = {c: phases[c] - float(_fractions(c) @ self._ends) for c in phases}
        self._diagram = self._phase_diagram({c: e for c, e in formation.items() if e < 0 or sum(c) == max(c)})
        corners = [tuple(entry.attribute) for entry in self._diagram.qhull_entries]
        facets = [[corners[i] for i in np.atleast_1d(facet)] for facet in self._diagram.facets]
        self.facets = sorted(
            (tuple(sorted(facet, key=_position)) for facet in facets), key=lambda f: [*map(_position, f)]
        )
        self.vertices = frozenset(corner for facet in self.facets for corner in facet)
        self._planes = self._fitted_planes(formation)
        self._energies: dict[_Counts, float] = {}

    def energy(self, counts: _Counts) -> float:
        """Return the enthalpy per atom of the hull at a composition."""
        if counts not in self._energies:
            x = _fractions(counts)
            # The hull is convex: at each composition the highest of its planes is the hull itself.
            self._energies[counts] = round(float((self._planes @ x).max() + self._ends @ x), _DECIMALS)
        return self._energies[counts]

    def decomposition(self, counts: _Counts) -> dict[_Counts, float]:
        """Return fractions of atoms by phase on the hull."""
        if counts in self.vertices:
            return {counts: 1.0}
        from pymatgen.core import Composition

        parts = self._diagram.get_decomposition(Composition(dict(zip(self._elements, counts, strict=True))))
        return {tuple(e.attribute): round(float(f), _DECIMALS) for e, f in parts.items() if f > _LEAST_FRACTION}

    def _phase_diagram(self, formation: dict[_Counts, float]) -> PhaseDiagram:
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition, Element

        entries = [
            PDEntry(Composition(dict(zip(self._elements, counts, strict=True))), energy * sum(counts), attribute=counts)
            for counts, energy in formation.items()
        ]
        return PhaseDiagram(entries, [Element(symbol) for symbol in self._elements])

    def _fitted_planes(self, formation: dict[_Counts, float]) -> NDArray[np.float64]:
        """Return one plane for each facet: enthalpies of formation of the elements, linear between them."""
        phases = np.array([_fractions(c) for c in self.vertices]), np.array([formation[c] for c in self.vertices])
        planes = []
        for facet in self.facets:
            plane = np.linalg.solve([_fractions(c) for c in facet], [formation[c] for c in facet])
            if np.all(phases[0] @ plane <= phases[1] + _PLANE_TOLERANCE):
                planes.append(plane)
        return np.array(planes)


@lru_cache(maxsize=100_000)
def _reduced(formula: str, elements: tuple[str, ...]) -> tuple[_Counts, bool]:
    """Return the reduced counts of the elements, and whether the formula has others or is none."""
    try:
        found = Formula(formula).count()
    except ValueError:
        found = {"": 1}
    counts = [int(found.get(element, 0)) for element in elements]
    divisor = math.gcd(*counts) or 1
    return tuple(count // divisor for count in counts), not set(found) <= set(elements)


def _fractions(counts: _Counts) -> NDArray[np.float64]:
    return np.array(counts) / sum(counts)


def _position(counts: _Counts) -> list[float]:
    """Return the key that sorts compositions from the first element of the system to the last."""
    return [-count / sum(counts) for count in counts]


def _rounded(value: float) -> float:
    """Return a value without the rounding errors of a difference of enthalpies (and without a negative zero)."""
    return round(value, _DECIMALS - 2) + 0.0
