"""What is searched: cell contents, formula units, pressure, cell, volume, distances, symmetry, magnetism."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.records import Minimum
from hybridcsp.utils.formulas import explain_formula, normalise_formula

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Default bounds of the volume per atom, as multiples of the expected one. On held-out Materials Project crystals the
#: true volume lies between 0.71 and 1.76 times the estimate for 99.4 % (benchmarks/atomic_volumes.py).
VOLUME_RANGE = (0.6, 2.0)

#: Default minimum distance as a fraction of summed covalent radii (Cordero et al., doi:10.1039/b801115j). The shortest
#: distance in 3,000 Materials Project crystals drawn at random is 0.65 of that sum, in all but 2 % above 0.75.
DISTANCE_FRACTION = 0.6


@dataclass(frozen=True)
class Problem:
    """A crystal structure prediction problem at fixed composition.

    Parameters
    ----------
    formula
        One formula unit, for example ``"TiO2"`` or ``"Ca(OH)2"``. ``Problem("Ti4O8", formula_units=1)`` is exactly that
        primitive cell.
    formula_units
        Smallest and largest number of formula units in the primitive cell, or one number.
    min_atoms, max_atoms
        Numbers of formula units that lead outside these limits are left out.
    pressure_gpa
        External pressure in GPa; what is minimised is the enthalpy.
    cell
        A fixed cell: ``(a, b, c, alpha, beta, gamma)`` in Å and degrees. It is neither drawn nor relaxed.
    length_bounds, angle_bounds
        Bounds for the lengths (Å) and angles (degrees) of a proposal's Niggli-reduced cell.
    volume_per_atom
        Bounds in Å³. By default 0.6 to 2.0 times :attr:`expected_volume_per_atom`, or the fixed cell's volume.
    distance_fraction
        Default minimum distance of two atoms as a fraction of their summed covalent radii.
    min_distances
        Minimum distances in Å for some pairs, ``{"Ti-O": 1.7}``; the others keep the default.
    spacegroups
        Space group numbers that proposals may have (at 0.01 Å); empty: all.
    initial_magmoms, initial_charges
        Initial magnetic moments (μ_B) and charges by element, set on proposals that bring none.
    dimension
        Of periodicity. Only 3 is built.

    Raises
    ------
    InputError
        For a value that makes no sense, alone or beside the others.
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
    dimension: int = 3

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if isinstance(self.formula, str):
            object.__setattr__(self, "formula", normalise_formula(self.formula))
        if isinstance(self.formula_units, int):
            object.__setattr__(self, "formula_units", (self.formula_units, self.formula_units))
        for name in ("formula_units", "cell", "length_bounds", "angle_bounds", "volume_per_atom", "spacegroups"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _ = self.composition
        self._check_size()
        self._check_cell()
        self._check_limits()

    def _check_size(self) -> None:
        match self.formula_units:
            case (int(low), int(high)) if 1 <= low <= high:
                pass
            case _:
                raise InputError("formula_units", self.formula_units, "a whole number from 1, or two in order: 1-4")
        if not 1 <= self.min_atoms <= self.max_atoms:
            raise InputError("max_atoms", self.max_atoms, f"at least min_atoms ({self.min_atoms}), which is from 1")
        if not self.units:
            raise InputError(
                "max_atoms",
                self.max_atoms,
                f"no number of formula units from {low} to {high} gives {self.min_atoms} to {self.max_atoms} atoms: "
                f"{self.formula} has {self.atoms_per_unit} atoms",
            )
        if self.dimension not in (0, 1, 2, 3):
            raise InputError("dimension", self.dimension, "0, 1, 2 or 3")
        if self.dimension != 3:
            raise InputError("dimension", self.dimension, "only 3 (bulk crystals) is built so far")

    def _check_cell(self) -> None:
        if self.cell is not None:
            if len(self.cell) != 6 or not all(math.isfinite(x) and x > 0 for x in self.cell):
                raise InputError("cell", self.cell, "six positive numbers: a b c (Å) alpha beta gamma (degrees)")
            if not _cell_volume(self.cell) > 1e-3 * math.prod(self.cell[:3]):
                raise InputError("cell", self.cell, "angles that span a volume")
            if len(self.units) > 1:
                raise InputError("cell", self.cell, "a fixed cell needs one number of formula units: formula_units = 1")
            for other in ("length_bounds", "angle_bounds", "volume_per_atom"):
                if getattr(self, other) is not None:
                    raise InputError(other, getattr(self, other), "not beside a fixed cell, which says it already")
        for name, top in (("length_bounds", math.inf), ("angle_bounds", 180.0), ("volume_per_atom", math.inf)):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < top):
                limit = "" if math.isinf(top) else f" below {top:g}"
                raise InputError(name, bounds, f"two positive numbers{limit}, the smaller first")

    def _check_limits(self) -> None:
        if not math.isfinite(self.pressure_gpa):
            raise InputError("pressure_gpa", self.pressure_gpa, "a finite number of GPa")
        if not 0 < self.distance_fraction <= 1.2:
            raise InputError("distance_fraction", self.distance_fraction, "a number above 0, at most 1.2")
        for pair, distance in self.min_distances.items():
            symbols = pair.split("-")
            if len(symbols) != 2 or not set(symbols) <= set(self.composition):
                raise InputError("min_distances", pair, f"A-B with A and B among {', '.join(self.composition)}")
            if not (math.isfinite(distance) and distance >= 0):
                raise InputError(f"min_distances.{pair}", distance, "a distance in Å, from 0")
        for number in self.spacegroups:
            if not 1 <= number <= 230:
                raise InputError("spacegroups", number, "numbers from 1 to 230")
        for name in ("initial_magmoms", "initial_charges"):
            for symbol, value in getattr(self, name).items():
                if symbol not in self.composition:
                    raise InputError(f"{name}.{symbol}", value, f"an element of {self.formula}")
                if not math.isfinite(value):
                    raise InputError(f"{name}.{symbol}", value, "a finite number")

    @cached_property
    def composition(self) -> dict[str, int]:
        """Atoms of each element in one formula unit."""
        try:
            # ASE reads a "+" as the sum of two formulas; here it is more likely a charge.
            counts: dict[str, int] = {} if "+" in self.formula else Formula(self.formula).count()
        except ValueError:
            counts = {}
        if not counts:
            raise InputError("formula", self.formula, explain_formula(self.formula))
        for symbol, count in counts.items():
            if symbol not in atomic_numbers or symbol == "X":
                raise InputError(
                    "formula",
                    self.formula,
                    f"{symbol!r} is not an element; {explain_formula(self.formula)}",
                )
            if count < 1:
                raise InputError("formula", self.formula, f"{symbol} occurs {count} times; at least once is needed")
        return counts

    @property
    def atoms_per_unit(self) -> int:
        """Number of atoms in one formula unit."""
        return sum(self.composition.values())

    @property
    def units(self) -> tuple[int, ...]:
        """The numbers of formula units that the atom limits allow, ascending."""
        low, high = self.formula_units  # type: ignore[misc]  # normalised in __post_init__
        return tuple(z for z in range(low, high + 1) if self.min_atoms <= z * self.atoms_per_unit <= self.max_atoms)

    def contents(self, units: int) -> dict[str, int]:
        """Atoms of each element in a cell of ``units`` formula units."""
        return {symbol: count * units for symbol, count in self.composition.items()}

    def units_of(self, numbers: Sequence[int] | NDArray[Any]) -> int | None:
        """Return how many formula units these atomic numbers are, or ``None`` if they are not a whole number."""
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
        """The volume per atom (Å³) to expect.

        The sum of atomic volumes fitted to Materials Project crystals, where an atom is the smaller the more
        electronegative its neighbourhood is (mean error 7 % on formulas held out); a covalent-radius sphere at a
        packing of 0.6 for the few elements that do not occur there. Under pressure times
        ``(1 + 4 P / 100 GPa) ** (-1/4)``, Murnaghan's equation of state for a bulk modulus of 100 GPa with B' = 4.
        """
        if self.cell is not None:
            return _cell_volume(self.cell) / (self.units[0] * self.atoms_per_unit)
        table = _atomic_volumes()
        atoms = [symbol for symbol, count in self.composition.items() for _ in range(count)]
        known = [table[symbol][0] for symbol in atoms if symbol in table]
        mean = sum(known) / len(known) if known else 0.0
        total = 0.0
        for symbol in atoms:
            if symbol in table:
                electronegativity, volume, slope = table[symbol]
                total += max(volume + slope * (mean - electronegativity), 0.3 * volume)
            else:
                total += 4 / 3 * math.pi * float(covalent_radii[atomic_numbers[symbol]]) ** 3 / 0.6
        compression = (1 + 4 * max(self.pressure_gpa, 0.0) / 100) ** -0.25
        return float(total / len(atoms) * compression)

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
        """Minimum distance in Å between atoms of two elements."""
        for pair in (f"{first}-{second}", f"{second}-{first}"):
            if pair in self.min_distances:
                return self.min_distances[pair]
        radii = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
        return float(self.distance_fraction * radii)

    @cached_property
    def distance_table(self) -> NDArray[np.float64]:
        """Minimum distances in Å by atomic numbers, shape ``(119, 119)``; 0 for elements that do not occur."""
        table = np.zeros((119, 119))
        for first in self.composition:
            for second in self.composition:
                table[atomic_numbers[first], atomic_numbers[second]] = self.min_distance(first, second)
        return table

    def dress(self, atoms: Atoms) -> Atoms:
        """Return a copy with the problem's initial magnetic moments and charges, where it brings none of its own."""
        dressed = atoms.copy()
        for array, by_element in (("initial_magmoms", self.initial_magmoms), ("initial_charges", self.initial_charges)):
            if by_element and not dressed.has(array):
                dressed.set_array(array, np.array([by_element.get(s, 0.0) for s in dressed.symbols]), float, ())
        dressed.pbc = True
        return dressed

    def fitness(self, minimum: Minimum) -> float:
        """Return what ranks minima, lower is better: the enthalpy per atom in eV."""
        return minimum.enthalpy_per_atom

    def describe(self) -> dict[str, Any]:
        """Return the fields as plain JSON; ``Problem(**description)`` is the same problem."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


def plain_problem(contents: Mapping[str, int]) -> Problem:
    """Return the problem of one cell with these contents, however many atoms they are, and nothing else said."""
    formula = "".join(f"{symbol}{count}" for symbol, count in contents.items())
    return Problem(formula, formula_units=1, max_atoms=sum(contents.values()))


def _cell_volume(parameters: Sequence[float]) -> float:
    a, b, c = parameters[:3]
    x, y, z = (math.cos(math.radians(angle)) for angle in parameters[3:])
    return a * b * c * math.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z))


@cache
def _atomic_volumes() -> dict[str, tuple[float, float, float]]:
    table = json.loads(files("hybridcsp").joinpath("data/atomic_volumes.json").read_text(encoding="utf-8"))
    return dict(table["volumes"])
