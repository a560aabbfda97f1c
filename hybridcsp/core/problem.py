"""The problem of a search: composition, pressure, and limits of cells, volumes, distances and symmetry."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from numpy.typing import NDArray

from hybridcsp.core.feasibility import cell_volume, check_room, no_size
from hybridcsp.core.volumes import expected_volume
from hybridcsp.errors import InputError
from hybridcsp.utils.checks import finite_number, finite_numbers, numbers_by_name, sequence, whole_number
from hybridcsp.utils.formulas import explain_formula, normalise_formula

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Default bounds of the volume per atom, as multiples of the expected one. All but 0.06 % of 19,690 Materials Project
#: crystals lie inside, and so do all crystals from the literature, under pressure too, that
#: benchmarks/atomic_volumes.py lists.
VOLUME_RANGE = (0.4, 2.5)

#: Default minimum distance as a fraction of summed covalent radii (Cordero et al., doi:10.1039/b801115j). The shortest
#: distance in 3,000 Materials Project crystals drawn at random is 0.65 of that sum, in all but 2 % above 0.75.
DISTANCE_FRACTION = 0.6

#: Largest fraction of the expected volume that spheres with the default distances as diameters fill under pressure;
#: distances shrink to keep it. At zero pressure the fraction is smaller for every element. Under pressure large metal
#: atoms, those of alkali metals above all, come closer than their covalent radii, while molecules keep their bonds.
SPHERES_FILL = 0.35

#: Fraction of summed covalent radii below which structures that a user supplies are rejected, whatever
#: ``distance_fraction`` is: atoms are this close in no known crystal, but in broken files.
BROKEN_FRACTION = 0.5

#: Largest pressure in GPa; the equations of state do not hold beyond it.
HIGHEST_PRESSURE = 10_000

#: Largest number of atoms in a primitive cell, and of different numbers of formula units, of one problem.
MOST_ATOMS, MOST_SIZES = 1_000_000, 10_000

#: Largest length of a formula in characters, because it names a folder by default, and largest depth of its brackets,
#: because the parser is recursive.
LONGEST_FORMULA, DEEPEST_FORMULA = 250, 20

# Angles of Niggli-reduced cells lie between these, in degrees.
_REDUCED_ANGLES = (60.0, 120.0)


@dataclass(frozen=True)
class Problem:
    """A crystal structure prediction problem at fixed composition.

    Parameters
    ----------
    formula
        Formula of one formula unit, for example ``"TiO2"`` or ``"Ca(OH)2"``. ``Problem("Ti4O8", formula_units=1)`` is
        the problem of exactly that primitive cell.
    formula_units
        Smallest and largest number of formula units in the primitive cell, or one number.
    min_atoms, max_atoms
        Smallest and largest number of atoms in the primitive cell; other numbers of formula units are left out.
    pressure_gpa
        External pressure in GPa, from 0; the enthalpy is minimised.
    cell
        Fixed cell ``(a, b, c, alpha, beta, gamma)`` in Å and degrees, which is not relaxed; ``None`` for a free cell.
    length_bounds, angle_bounds
        Bounds of the lengths (Å) and angles (degrees) of the Niggli-reduced cell of a proposal.
    volume_per_atom
        Bounds of the volume per atom in Å³. The default is 0.4 to 2.5 times :attr:`expected_volume_per_atom`, widened
        if a search finds minima outside; for a fixed cell it is the volume of the cell.
    distance_fraction
        Default minimum distance of two atoms as a fraction of their summed covalent radii; it is reduced if large atoms
        are compressed.
    min_distances
        Minimum distances in Å of some pairs of elements, ``{"Ti-O": 1.7}``; other pairs have the default.
    spacegroups
        Space group numbers that proposals may have (at 0.01 Å); empty for all.
    initial_magmoms, initial_charges
        Initial magnetic moments (μ_B) and charges by element, for proposals without their own.

    Raises
    ------
    InputError
        If a value is invalid, alone or in combination with others.
    """

    formula: str
    formula_units: tuple[int, int] | int = (1, 4)
    min_atoms: int = 1
    max_atoms: int = 20
    pressure_gpa: float = 0.0
    cell: tuple[float, float, float, float, float, float] | None = None
    length_bounds: tuple[float, float] | None = None
    angle_bounds: tuple[float, float] | None = None
    volume_per_atom: tuple[float, float] | None = None
    distance_fraction: float = DISTANCE_FRACTION
    min_distances: Mapping[str, float] = field(default_factory=dict)
    spacegroups: tuple[int, ...] = ()
    initial_magmoms: Mapping[str, float] = field(default_factory=dict)
    initial_charges: Mapping[str, float] = field(default_factory=dict)

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not isinstance(self.formula, str):
            raise InputError("formula", self.formula, "a chemical formula as text, such as TiO2, MgSiO3 or Ca(OH)2")
        if len(self.formula) > LONGEST_FORMULA:
            short = f"{self.formula[:20]}…"
            raise InputError("formula", short, f"a formula of at most {LONGEST_FORMULA} characters, such as Ca(OH)2")
        opened = accumulate((letter in "([") - (letter in ")]") for letter in self.formula)
        if max(opened, default=0) > DEEPEST_FORMULA:
            short = f"{self.formula[:20]}…"
            allowed = f"a formula with at most {DEEPEST_FORMULA} brackets inside each other, such as Ca(OH)2"
            raise InputError("formula", short, allowed)
        self._set("formula", normalise_formula(self.formula))
        _ = self.composition
        self._check_size()
        self._check_cell()
        self._check_limits()
        check_room(self)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_size(self) -> None:
        allowed = "a whole number from 1, or two of them, the smaller first, such as 1-4"
        given = self.formula_units
        pair = [given, given] if isinstance(given, int) else sequence("formula_units", given, allowed)
        if len(pair) != 2:
            raise InputError("formula_units", given, allowed)
        try:
            low, high = (whole_number("formula_units", value, allowed) for value in pair)
        except InputError:
            raise InputError("formula_units", given, allowed) from None
        if low > high:
            raise InputError("formula_units", given, allowed)
        self._set("formula_units", (low, high))
        self._set("min_atoms", whole_number("min_atoms", self.min_atoms, "a whole number from 1"))
        self._set("max_atoms", whole_number("max_atoms", self.max_atoms, "a whole number from 1"))
        if self.min_atoms > self.max_atoms:
            reason = f"it is above the largest number, max_atoms = {self.max_atoms}; change one of the two"
            raise InputError("min_atoms", self.min_atoms, reason=reason)
        if self.max_atoms > MOST_ATOMS:
            raise InputError("max_atoms", self.max_atoms, f"at most {MOST_ATOMS}, the largest size of a primitive cell")
        if not self._sizes:
            raise no_size(self, (low, high), MOST_ATOMS)
        if len(self._sizes) > MOST_SIZES:
            allowed = f"a range of at most {MOST_SIZES} numbers of formula units; this one has {len(self._sizes)}"
            raise InputError("formula_units", given, allowed)

    @property
    def _sizes(self) -> range:
        """Numbers of formula units that the limits of atoms allow."""
        low, high = self.formula_units  # type: ignore[misc]  # normalised in __post_init__
        least = -(-self.min_atoms // self.atoms_per_unit)
        return range(max(low, least), min(high, self.max_atoms // self.atoms_per_unit) + 1)

    def _check_cell(self) -> None:
        if self.cell is not None:
            allowed = "six positive numbers: a, b, c in Å and alpha, beta, gamma in degrees, below 180"
            self._set("cell", finite_numbers("cell", self.cell, 6, allowed))
            assert self.cell is not None
            if max(self.cell[3:]) >= 180:
                raise InputError("cell", self.cell, allowed)
            if not cell_volume(self.cell) > 1e-3 * math.prod(self.cell[:3]):
                raise InputError("cell", self.cell, reason="a cell with these angles has no volume")
            if len(self._sizes) > 1:
                reason = "a fixed cell needs a single number of formula units, such as formula_units = 1"
                raise InputError("cell", self.cell, reason=reason)
            for other in ("length_bounds", "angle_bounds", "volume_per_atom"):
                if getattr(self, other) is not None:
                    raise InputError(other, getattr(self, other), reason="the fixed cell determines it already")
        for name, top in (("length_bounds", math.inf), ("angle_bounds", 180.0), ("volume_per_atom", math.inf)):
            given = getattr(self, name)
            if given is None:
                continue
            limit = "" if math.isinf(top) else f" below {top:g}"
            allowed = f"two positive numbers{limit}, the smaller first"
            low, high = finite_numbers(name, given, 2, allowed, top)
            if low > high:
                raise InputError(name, given, allowed)
            self._set(name, (low, high))
        if self.angle_bounds is not None:
            least, most = _REDUCED_ANGLES
            if self.angle_bounds[0] > most or self.angle_bounds[1] < least:
                allowed = (
                    f"a range that overlaps {least:g} to {most:g}, between which the angles of Niggli-reduced cells lie"
                )
                raise InputError("angle_bounds", self.angle_bounds, allowed)

    def _check_limits(self) -> None:
        allowed = f"a finite number of GPa from 0, at most {HIGHEST_PRESSURE}"
        pressure = finite_number("pressure_gpa", self.pressure_gpa, allowed, high=HIGHEST_PRESSURE)
        if pressure < 0:
            allowed = "a pressure from 0 GPa; under tension the enthalpy only decreases as atoms move apart"
            raise InputError("pressure_gpa", self.pressure_gpa, allowed)
        self._set("pressure_gpa", pressure)
        allowed = "a number above 0, at most 1.2"
        fraction = finite_number("distance_fraction", self.distance_fraction, allowed, 0.0, 1.2)
        if fraction == 0:
            raise InputError("distance_fraction", self.distance_fraction, allowed)
        self._set("distance_fraction", fraction)
        distances = numbers_by_name("min_distances", self.min_distances, "a distance in Å, from 0", 0.0)
        for pair in distances:
            symbols = pair.split("-")
            if len(symbols) != 2 or not set(symbols) <= set(self.composition):
                raise InputError("min_distances", pair, f"a pair A-B with A and B among {', '.join(self.composition)}")
            other = "-".join(reversed(symbols))
            if distances.get(other, distances[pair]) != distances[pair]:
                raise InputError(
                    "min_distances", dict(self.min_distances), f"a mapping with one distance for {pair} and {other}"
                )
        self._set("min_distances", distances)
        listed = sequence("spacegroups", self.spacegroups, "a list of space group numbers from 1 to 230")
        allowed = "a space group number from 1 to 230"
        groups = [whole_number("spacegroups", number, allowed) for number in listed]
        for number in groups:
            if number > 230:
                raise InputError("spacegroups", number, allowed)
        self._set("spacegroups", tuple(groups))
        for name in ("initial_magmoms", "initial_charges"):
            values = numbers_by_name(name, getattr(self, name), "a finite number")
            for symbol, value in values.items():
                if symbol not in self.composition:
                    raise InputError(f"{name}.{symbol}", value, reason=f"{symbol} is not an element of {self.formula}")
            self._set(name, values)

    @cached_property
    def composition(self) -> dict[str, int]:
        """Number of atoms of each element in one formula unit."""
        try:
            # ASE reads a "+" as the sum of two formulas; here it is more likely a charge.
            counts: dict[str, int] = {} if "+" in self.formula else Formula(self.formula).count()
        except ValueError:
            counts = {}
        if not counts:
            raise InputError("formula", self.formula, reason=explain_formula(self.formula))
        for symbol, count in counts.items():
            if symbol not in atomic_numbers or symbol == "X":
                raise InputError(
                    "formula",
                    self.formula,
                    reason=f"{symbol!r} is not an element; {explain_formula(self.formula)}",
                )
            if count < 1:
                raise InputError("formula", self.formula, reason=f"it contains no atom of {symbol}; leave {symbol} out")
        return counts

    @property
    def atoms_per_unit(self) -> int:
        """Number of atoms in one formula unit."""
        return sum(self.composition.values())

    @cached_property
    def units(self) -> tuple[int, ...]:
        """Numbers of formula units that the limits of atoms allow, ascending."""
        return tuple(self._sizes)

    @property
    def units_in_words(self) -> str:
        """Numbers of formula units in words: ``"2"``, ``"1 or 2"``, ``"1 to 6"``."""
        first, last = self.units[0], self.units[-1]
        return str(first) if first == last else f"{first} {'or' if last == first + 1 else 'to'} {last}"

    def contents(self, units: int) -> dict[str, int]:
        """Return the number of atoms of each element in a cell of ``units`` formula units."""
        return {symbol: count * units for symbol, count in self.composition.items()}

    def units_of(self, numbers: Sequence[int] | NDArray[Any]) -> int | None:
        """Return the number of formula units that atomic numbers make up, or ``None`` if it is not a whole number."""
        counts = np.bincount(np.asarray(numbers, dtype=int), minlength=119)
        units = int(counts.sum()) // self.atoms_per_unit
        expected = np.zeros_like(counts)
        for symbol, count in self.contents(units).items():
            expected[atomic_numbers[symbol]] = count
        return units if units > 0 and bool((counts == expected).all()) else None

    @property
    def pressure(self) -> float:
        """External pressure in eV/Å³."""
        return float(self.pressure_gpa * units.GPa)

    @cached_property
    def expected_volume_per_atom(self) -> float:
        """Expected volume per atom (Å³): that of a fixed cell or of :func:`~hybridcsp.core.volumes.expected_volume`."""
        if self.cell is not None:
            return cell_volume(self.cell) / (self.units[0] * self.atoms_per_unit)
        return expected_volume(self.composition, self.pressure_gpa)

    @property
    def compression(self) -> float:
        """Expected volume at the pressure of the problem, as a fraction of that at zero pressure."""
        if self.cell is not None or self.pressure_gpa == 0:
            return 1.0
        return self.expected_volume_per_atom / expected_volume(self.composition)

    @property
    def estimates_volume(self) -> bool:
        """Whether the bounds of the volume are an estimate and not given by the user."""
        return self.volume_per_atom is None and self.cell is None

    @property
    def volume_bounds(self) -> tuple[float, float]:
        """Smallest and largest volume per atom in Å³."""
        if self.volume_per_atom is not None:
            return self.volume_per_atom
        expected = self.expected_volume_per_atom
        if self.cell is not None:
            return 0.999 * expected, 1.001 * expected
        return VOLUME_RANGE[0] * expected, VOLUME_RANGE[1] * expected

    def min_distance(self, first: str, second: str) -> float:
        """Return the minimum distance in Å between atoms of two elements."""
        for pair in (f"{first}-{second}", f"{second}-{first}"):
            if pair in self.min_distances:
                return self.min_distances[pair]
        return self._fraction_of_radii(self.distance_fraction, first, second)

    def _fraction_of_radii(self, fraction: float, first: str, second: str) -> float:
        radii = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
        return float(fraction * self._contraction * radii)

    @cached_property
    def _contraction(self) -> float:
        """Factor by which default distances are reduced under pressure."""
        ambient, volume = (expected_volume(self.composition, pressure) for pressure in (0.0, self.pressure_gpa))
        radii = {symbol: float(covalent_radii[atomic_numbers[symbol]]) for symbol in self.composition}
        spheres = sum(count * (DISTANCE_FRACTION * radii[symbol]) ** 3 for symbol, count in self.composition.items())
        filled = 4 / 3 * math.pi * spheres / self.atoms_per_unit
        return float(np.cbrt(min(1.0, max(SPHERES_FILL, filled / ambient) * volume / filled)))

    @cached_property
    def distance_table(self) -> NDArray[np.float64]:
        """Minimum distances in Å by atomic numbers, shape ``(119, 119)``; 0 for elements outside the formula."""
        return self._table(self.min_distance)

    @cached_property
    def broken_distances(self) -> NDArray[np.float64]:
        """Distances in Å below which structures that a user supplies are rejected, shape ``(119, 119)``."""
        return self._table(lambda first, second: self._fraction_of_radii(BROKEN_FRACTION, first, second))

    def _table(self, distance: Callable[[str, str], float]) -> NDArray[np.float64]:
        table = np.zeros((119, 119))
        for first in self.composition:
            for second in self.composition:
                table[atomic_numbers[first], atomic_numbers[second]] = distance(first, second)
        return table

    def limits_in_words(self) -> str:
        """Return the limits of proposals in words: given distances, volumes, cells and space groups."""
        low, high = self.volume_bounds
        limits = [f"{pair} at least {distance:g} Å" for pair, distance in self.min_distances.items()]
        if self.distance_fraction != DISTANCE_FRACTION:
            limits.append(f"distances of at least {self.distance_fraction:g} of summed covalent radii")
        limits.append(f"{low:.1f} to {high:.1f} Å³ per atom")
        for name, bounds, unit in (("lengths", self.length_bounds, " Å"), ("angles", self.angle_bounds, "°")):
            if bounds is not None:
                limits.append(f"{name} of {bounds[0]:g} to {bounds[1]:g}{unit}")
        if self.spacegroups:
            limits.append(f"space group {', '.join(map(str, self.spacegroups))}")
        return ", ".join(limits)

    def with_initial_moments(self, atoms: Atoms) -> Atoms:
        """Return a copy with the initial magnetic moments and charges of the problem, if it has none of its own."""
        result = atoms.copy()
        for array, by_element in (("initial_magmoms", self.initial_magmoms), ("initial_charges", self.initial_charges)):
            if by_element and not result.has(array):
                result.set_array(array, np.array([by_element.get(s, 0.0) for s in result.symbols]), float, ())
        result.pbc = True
        return result

    def describe(self) -> dict[str, Any]:
        """Return the parameters as plain JSON; ``Problem(**description)`` is the same problem."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


def plain_problem(contents: Mapping[str, int]) -> Problem:
    """Return the problem of one primitive cell with the given contents, with all other parameters at their defaults."""
    formula = "".join(f"{symbol}{count}" for symbol, count in contents.items())
    return Problem(formula, formula_units=1, max_atoms=sum(contents.values()))
