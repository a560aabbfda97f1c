"""The problem of a search in a chemical system: its compositions, and the limits that hold for each of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ase import units
from ase.data import atomic_numbers, chemical_symbols

from hybridcsp.core.problem import DISTANCE_FRACTION, MOST_ATOMS, MOST_SIZES, Problem
from hybridcsp.errors import InputError
from hybridcsp.utils.checks import numbers_by_name, sequence, whole_number
from hybridcsp.utils.formulas import elements_of_system

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Default of the largest number of atoms in the primitive cell.
MAX_ATOMS = 12

#: Default of the largest number of atoms in the formula unit by the number of elements; 4 for more.
GRID = {1: 1, 2: 10, 3: 8, 4: 6}

#: Largest number of elements and of compositions of a system.
MOST_ELEMENTS, MOST_COMPOSITIONS = 6, 2_000


@dataclass(frozen=True)
class System:
    """A crystal structure prediction problem in a chemical system: every composition, compared by the convex hull.

    The elements themselves always belong to the compositions, because the hull begins at them.

    Parameters
    ----------
    elements
        The elements, as a list of symbols or as text: ``"V-O"``. Their order is that of symbols in formulas.
    compositions
        Formulas to search, such as ``("V2O5", "VO2")``; by default all of the grid.
    composition_grid
        Largest number of atoms in the formula unit of a composition, if none are listed. Default: 10 for two elements,
        8 for three, 6 for four and 4 for more, but at most ``max_atoms``.
    charge_neutral
        Whether compositions are left out whose charges cannot cancel with the usual oxidation states of the elements,
        by :meth:`pymatgen.core.Composition.oxi_state_guesses`.
    min_atoms, max_atoms
        Smallest and largest number of atoms in the primitive cell.
    pressure_gpa
        External pressure in GPa, from 0; the hull is that of enthalpies.
    distance_fraction, min_distances, initial_magmoms, initial_charges
        As for :class:`~hybridcsp.core.problem.Problem`; they hold for every composition with the elements named.

    Raises
    ------
    InputError
        If a value is invalid, alone or in combination with others.

    Examples
    --------
    >>> System("V-O", compositions=("V2O5", "O2V")).compositions
    ('V', 'VO2', 'V2O5', 'O')
    """

    elements: tuple[str, ...] | str
    compositions: tuple[str, ...] = ()
    composition_grid: int | None = None
    charge_neutral: bool = False
    min_atoms: int = 1
    max_atoms: int = MAX_ATOMS
    pressure_gpa: float = 0.0
    distance_fraction: float = DISTANCE_FRACTION
    min_distances: Mapping[str, float] = field(default_factory=dict)
    initial_magmoms: Mapping[str, float] = field(default_factory=dict)
    initial_charges: Mapping[str, float] = field(default_factory=dict)

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        self._set("elements", _elements(self.elements))
        self._set("min_atoms", whole_number("min_atoms", self.min_atoms, "a whole number from 1"))
        self._set("max_atoms", whole_number("max_atoms", self.max_atoms, "a whole number from 1"))
        if self.min_atoms > self.max_atoms:
            reason = f"it is above the largest number, max_atoms = {self.max_atoms}; change one of the two"
            raise InputError("min_atoms", self.min_atoms, reason=reason)
        listed = [str(formula) for formula in sequence("compositions", self.compositions, "a list of formulas")]
        if listed and self.composition_grid is not None:
            reason = "it cannot be combined with compositions, which list all of them; give one of the two"
            raise InputError("composition_grid", self.composition_grid, reason=reason)
        found = [self._listed(formula) for formula in listed] if listed else list(self._on_grid())
        if len(found) > MOST_COMPOSITIONS:
            raise InputError(
                "composition_grid",
                self.composition_grid,
                f"a number that gives at most {MOST_COMPOSITIONS} compositions; this one gives {len(found)}",
            )
        if self.charge_neutral:
            found = [counts for counts in found if _can_be_neutral(self._formula(counts))]
        elements = {tuple(int(i == j) for j in range(len(self.elements))) for i in range(len(self.elements))}
        ordered = sorted({*found, *elements}, key=_place)
        self._set("compositions", tuple(self._formula(counts) for counts in ordered))
        if len(self.compositions) == len(self.elements) and len(self.elements) > 1:
            raise self._nothing_left(listed)
        self._check_limits()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _listed(self, formula: str) -> tuple[int, ...]:
        """Return the reduced numbers of atoms of a formula that the user lists."""
        try:
            composition = Problem(formula, max_atoms=10**6).composition
        except InputError as error:
            raise InputError("compositions", formula, error.allowed, reason=error.reason) from None
        if foreign := [symbol for symbol in composition if symbol not in self.elements]:
            reason = f"{foreign[0]} is not an element of the system {self.formula}"
            raise InputError("compositions", formula, reason=reason)
        counts = [composition.get(symbol, 0) for symbol in self.elements]
        divisor = math.gcd(*counts)
        reduced = tuple(count // divisor for count in counts)
        if not self._units(sum(reduced)):
            reason = (
                f"no whole number of its formula units of {sum(reduced)} atoms has {self.min_atoms} to "
                f"{self.max_atoms} atoms; change min_atoms or max_atoms"
            )
            raise InputError("compositions", formula, reason=reason)
        return reduced

    def _nothing_left(self, listed: Sequence[str]) -> InputError:
        """Return the error that only the elements are left, about the setting that leaves out the others."""
        left = "no composition is left besides the elements"
        if self.charge_neutral:
            reason = f"{left}, because the charges of no other can cancel; search without charge_neutral = true"
            return InputError("charge_neutral", self.charge_neutral, reason=reason)
        if listed:
            reason = f"{left}; list compositions of several elements, or none for all of the grid"
            return InputError("compositions", ",".join(listed), reason=reason)
        if self.max_atoms < 2:
            return InputError("max_atoms", self.max_atoms, reason=f"{left}; allow more atoms")
        reason = f"{left}; allow formula units of more atoms, or list compositions"
        return InputError("composition_grid", self.composition_grid, reason=reason)

    def _on_grid(self) -> Iterator[tuple[int, ...]]:
        """Yield the reduced numbers of atoms of all compositions of the grid."""
        default = min(GRID.get(len(self.elements), 4), self.max_atoms)
        allowed = f"a whole number from 1 to max_atoms ({self.max_atoms})"
        largest = default
        if self.composition_grid is not None:
            largest = whole_number("composition_grid", self.composition_grid, allowed)
        if largest > self.max_atoms:
            raise InputError("composition_grid", largest, allowed)
        self._set("composition_grid", largest)
        if math.comb(largest + len(self.elements), len(self.elements)) > 50 * MOST_COMPOSITIONS:
            raise InputError(
                "composition_grid", largest, f"a number that gives at most {MOST_COMPOSITIONS} compositions"
            )
        for counts in _tuples(len(self.elements), largest):
            if math.gcd(*counts) == 1 and self._units(sum(counts)):
                yield counts

    def _units(self, atoms: int) -> range:
        """Return the numbers of formula units with this many atoms that the limits allow."""
        return range(-(-self.min_atoms // atoms), self.max_atoms // atoms + 1)

    def _check_limits(self) -> None:
        allowed = "a finite number"
        for name in ("initial_magmoms", "initial_charges"):
            values = numbers_by_name(name, getattr(self, name), allowed)
            for symbol, value in values.items():
                if symbol not in self.elements:
                    reason = f"{symbol} is not an element of the system {self.formula}"
                    raise InputError(f"{name}.{symbol}", value, reason=reason)
            self._set(name, values)
        distances = numbers_by_name("min_distances", self.min_distances, "a distance in Å, from 0", 0.0)
        for pair in distances:
            if len(pair.split("-")) != 2 or not set(pair.split("-")) <= set(self.elements):
                raise InputError("min_distances", pair, f"a pair A-B with A and B among {', '.join(self.elements)}")
        self._set("min_distances", distances)
        for formula in self.compositions:  # what is wrong with one of them is told now
            problem = self.problem(formula)
        self._set("pressure_gpa", problem.pressure_gpa)
        self._set("distance_fraction", problem.distance_fraction)

    def _formula(self, counts: Sequence[int]) -> str:
        pairs = zip(self.elements, counts, strict=True)
        return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in pairs if count)

    @property
    def formula(self) -> str:
        """Name of the system, such as ``"V-O"``."""
        return "-".join(self.elements)

    @property
    def pressure(self) -> float:
        """External pressure in eV/Å³."""
        return float(self.pressure_gpa * units.GPa)

    @property
    def cell(self) -> None:
        """``None``: a cell that is not relaxed belongs to one composition."""
        return

    def problem(self, formula: str) -> Problem:
        """Return the problem of one composition.

        Parameters
        ----------
        formula
            One of :attr:`compositions`.
        """
        known = self._problems.get(formula)
        if known is None:
            known = self._problems[formula] = self._new_problem(formula)
        return known

    @cached_property
    def _problems(self) -> dict[str, Problem]:
        return {}

    def _new_problem(self, formula: str) -> Problem:
        if formula not in self.compositions:
            raise InputError("formula", formula, f"a composition of this search: {', '.join(self.compositions)}")
        counts = Problem(formula, max_atoms=10**6, formula_units=1).composition
        allowed = self._units(sum(counts.values()))
        if not allowed:  # of an element: every other composition has some
            reason = f"no cell of {formula} has {self.min_atoms} to {self.max_atoms} atoms"
            raise InputError("min_atoms", self.min_atoms, reason=reason)
        present = set(counts)
        return Problem(
            formula,
            formula_units=(max(1, allowed[0]), allowed[-1]),
            min_atoms=self.min_atoms,
            max_atoms=self.max_atoms,
            pressure_gpa=self.pressure_gpa,
            distance_fraction=self.distance_fraction,
            min_distances={pair: d for pair, d in self.min_distances.items() if set(pair.split("-")) <= present},
            initial_magmoms={symbol: value for symbol, value in self.initial_magmoms.items() if symbol in present},
            initial_charges={symbol: value for symbol, value in self.initial_charges.items() if symbol in present},
        )

    def problem_of_known_phases(self, formula: str) -> Problem:
        """Return a problem of any composition of the elements that allows cells of every size."""
        return Problem(formula, formula_units=(1, MOST_SIZES), max_atoms=MOST_ATOMS, pressure_gpa=self.pressure_gpa)

    def formula_of(self, numbers: Sequence[int] | NDArray[Any]) -> str | None:
        """Return the composition of atomic numbers, searched or not; ``None`` if there are other elements or none."""
        counts = [0] * len(self.elements)
        for number in numbers:
            symbol = chemical_symbols[int(number)]
            if symbol not in self.elements:
                return None
            counts[self.elements.index(symbol)] += 1
        divisor = math.gcd(*counts)
        if not divisor:
            return None
        return self._formula([count // divisor for count in counts])

    def describe(self) -> dict[str, Any]:
        """Return the parameters as plain JSON; ``System(**description)`` is the same system."""
        described: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        described["charge_neutral"] = False  # the compositions have been chosen
        described["composition_grid"] = None
        return described


def _elements(given: tuple[str, ...] | str) -> tuple[str, ...]:
    allowed = "a chemical system of two elements or more, such as V-O or Mg-Mn-O"
    listed = elements_of_system(given) if isinstance(given, str) else list(sequence("elements", given, allowed))
    if isinstance(given, str) and not listed:
        raise InputError("elements", given, allowed)
    for symbol in listed:
        if symbol not in atomic_numbers or symbol == "X":
            raise InputError("elements", symbol, "a symbol of an element, such as V or O")
    if twice := [symbol for symbol in listed if listed.count(symbol) > 1]:
        raise InputError("elements", given, reason=f"{twice[0]} is named twice")
    if len(listed) < 2:
        one = listed[0] if listed else None
        reason = f"one element is no system; search its structures with hybridcsp search {one}" if one else allowed
        raise InputError("elements", given, reason=reason)
    if len(listed) > MOST_ELEMENTS:
        raise InputError("elements", given, f"at most {MOST_ELEMENTS} elements")
    return tuple(listed)


def _tuples(elements: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Yield all numbers of atoms of elements with a sum from 1 to the largest."""
    if elements == 1:
        yield from ((count,) for count in range(1, largest + 1))
        return
    for first in range(largest + 1):
        if first:
            yield (first, *([0] * (elements - 1)))
        yield from ((first, *rest) for rest in _tuples(elements - 1, largest - first)) if largest > first else ()


def _place(counts: tuple[int, ...]) -> tuple[float, ...]:
    """Return the place of a composition in the order of the fractions of elements, the first element decreasing."""
    total = sum(counts)
    return tuple(-count / total for count in counts)


def _can_be_neutral(formula: str) -> bool:
    from pymatgen.core import Composition

    return bool(Composition(formula).oxi_state_guesses())
