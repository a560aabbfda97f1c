"""Crystals as point clouds: rows of cell parameters and of coordinates in slots of each element.

The representation of the composition-conditioned crystal GAN (Kim et al., ACS Cent. Sci. 6, 1412 (2020),
doi:10.1021/acscentsci.0c00426): the first row holds the lengths of the cell over 30 Å, the second the angles over
180 degrees, and each element has a fixed number of rows for fractional coordinates f, stored as (10 f + 2.5) / 15, so
that they are between 1/6 and 5/6 and a row of zeros is an empty slot.

The two ways of reading are components: :class:`OccupiedSlots` rejects a cloud without atoms of an element (default),
:class:`InventedAtoms` places one at the origin of such an element, as published.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.structure.representations.base import (
    DecodingError,
    Representation,
    cell_of_parameters,
    right_handed_fractions,
)

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

#: Length (Å) and angle (degrees) that are stored as 1.
LENGTH, ANGLE = 30.0, 180.0
#: A slot is occupied if the sum of its row is above this: rows of atoms have at least 0.5, empty rows 0.
OCCUPIED = 0.4


class SlotReading(ABC):
    """Abstract base class of a way to read the atoms of one element from its slots."""

    @abstractmethod
    def coordinates(self, rows: Array, occupied: NDArray[np.bool_], element: str) -> Array:
        """Return the stored coordinates of the atoms of one element, shape ``(n_atoms, 3)``.

        Parameters
        ----------
        rows
            Slots of the element, shape ``(n_slots, 3)``.
        occupied
            Whether a slot holds an atom, shape ``(n_slots,)``.
        element
            Symbol of the element.
        """


class OccupiedSlots(SlotReading):
    """Reading of occupied slots that rejects a cloud in which an element has no atom."""

    def coordinates(self, rows: Array, occupied: NDArray[np.bool_], element: str) -> Array:
        """Return the rows of the occupied slots.

        Raises
        ------
        DecodingError
            If no slot is occupied.
        """
        if not occupied.any():
            raise DecodingError(f"no slot of {element} is occupied")
        return rows[occupied]


class InventedAtoms(SlotReading):
    """Reading of occupied slots that places an atom at the origin for an element without any, as published."""

    def coordinates(self, rows: Array, occupied: NDArray[np.bool_], element: str) -> Array:
        """Return the rows of the occupied slots, or one row of an atom at the origin."""
        return rows[occupied] if occupied.any() else np.full((1, 3), 1 / 6)


class PointCloud(Representation[Array]):
    """Representation of the crystals of one chemical system as arrays of shape ``(2 + n_slots, 3)``.

    Parameters
    ----------
    slots
        Number of slots of each element; the elements are in this order in the arrays.
    reading
        Reading of the atoms of an element.
    """

    name = "point cloud"

    def __init__(self, slots: Mapping[str, int], reading: SlotReading | None = None) -> None:
        self.slots = dict(slots)
        self.reading = reading or OccupiedSlots()

    @classmethod
    def of(cls, crystals: Iterable[Atoms], reading: SlotReading | None = None) -> PointCloud:
        """Return a representation with enough slots for these crystals, elements by atomic number.

        Raises
        ------
        InputError
            If there are no crystals.
        """
        from ase.data import atomic_numbers

        slots: Counter[str] = Counter()
        for atoms in crystals:
            for element, count in Counter(atoms.get_chemical_symbols()).items():
                slots[element] = max(slots[element], count)
        if not slots:
            raise InputError("crystals", 0, "at least one crystal, whose numbers of atoms determine the slots")
        return cls({element: slots[element] for element in sorted(slots, key=atomic_numbers.__getitem__)}, reading)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the arrays."""
        return 2 + sum(self.slots.values()), 3

    def rows(self) -> dict[str, slice]:
        """Return the rows of the slots of each element."""
        rows, start = {}, 2
        for element, count in self.slots.items():
            rows[element] = slice(start, start + count)
            start += count
        return rows

    def _own_limit(self, atoms: Atoms) -> str:
        """Return why a crystal has no place: another element, more atoms than slots, or a longer edge."""
        counts = Counter(atoms.get_chemical_symbols())
        for element, count in counts.items():
            if element not in self.slots:
                return f"there are no slots for {element}"
            if count > self.slots[element]:
                return f"it has {count} atoms of {element}, and there are {self.slots[element]} slots"
        if missing := [element for element in self.slots if element not in counts]:
            return f"it has no atom of {missing[0]}"
        if (edge := atoms.cell.lengths().max()) > LENGTH:
            return f"it has an edge of {edge:.1f} Å, longer than {LENGTH:g} Å"
        return ""

    def encode(self, atoms: Atoms) -> Array:
        """Return the point cloud of a crystal in its own axes.

        Raises
        ------
        InputError
            If the crystal is beyond the limits.
        """
        self.check(atoms)
        cloud = np.zeros(self.shape)
        cloud[0] = atoms.cell.lengths() / LENGTH
        cloud[1] = atoms.cell.angles() / ANGLE
        fractions = right_handed_fractions(atoms)
        symbols = np.array(atoms.get_chemical_symbols())
        for element, rows in self.rows().items():
            found = fractions[symbols == element]
            cloud[rows][: len(found)] = (10 * found + 2.5) / 15
        return cloud

    def decode(self, encoded: Array) -> Atoms:
        """Return the crystal in a point cloud; slots are occupied by the size of their coordinates."""
        return self.decode_slots(encoded, encoded[2:].sum(axis=1) > OCCUPIED)

    def decode_slots(self, encoded: Array, occupied: NDArray[np.bool_]) -> Atoms:
        """Return the crystal in a point cloud whose occupied slots are known, for example from a classifier.

        Parameters
        ----------
        encoded
            Point cloud.
        occupied
            Whether each slot holds an atom, shape ``(n_slots,)``.

        Raises
        ------
        DecodingError
            If the lengths and angles make no cell, or the reading finds an element without atoms.
        """
        from ase import Atoms

        cell = cell_of_parameters(encoded[0] * LENGTH, encoded[1] * ANGLE)
        symbols: list[str] = []
        parts = []
        for element, rows in self.rows().items():
            found = self.reading.coordinates(encoded[rows], occupied[rows.start - 2 : rows.stop - 2], element)
            symbols += [element] * len(found)
            parts.append((15 * found - 2.5) / 10)
        return Atoms(symbols, scaled_positions=np.concatenate(parts) % 1.0, cell=cell, pbc=True)


class PointClouds(Representation[tuple[frozenset[str], Array]]):
    """Representation of the crystals of several chemical systems: a :class:`PointCloud` for each of them.

    Parameters
    ----------
    crystals
        Crystals whose numbers of atoms determine the slots of their systems.
    reading
        How the atoms of an element are read.
    """

    name = "point cloud"

    def __init__(self, crystals: Iterable[Atoms], reading: SlotReading | None = None) -> None:
        systems: dict[frozenset[str], list[Atoms]] = {}
        for atoms in crystals:
            systems.setdefault(frozenset(atoms.get_chemical_symbols()), []).append(atoms)
        self.systems = {system: PointCloud.of(own, reading) for system, own in systems.items()}

    def _own_limit(self, atoms: Atoms) -> str:
        """Return why a crystal has no place: an unknown system, more atoms than slots, or a longer edge."""
        system = frozenset(atoms.get_chemical_symbols())
        if system not in self.systems:
            return f"there are no slots for the system {'-'.join(sorted(system))}"
        return self.systems[system].limit(atoms)

    def encode(self, atoms: Atoms) -> tuple[frozenset[str], Array]:
        """Return the system of a crystal and its point cloud.

        Raises
        ------
        InputError
            If the crystal is beyond the limits.
        """
        self.check(atoms)
        system = frozenset(atoms.get_chemical_symbols())
        return system, self.systems[system].encode(atoms)

    def decode(self, encoded: tuple[frozenset[str], Array]) -> Atoms:
        """Return the crystal in the point cloud of a system."""
        system, cloud = encoded
        return self.systems[system].decode(cloud)
