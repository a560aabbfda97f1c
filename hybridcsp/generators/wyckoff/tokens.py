"""Crystals as the sequences that the network writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.generators.wyckoff.representation import Site, WyckoffCrystal
from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.wyckoff import LETTERS

# Mean and spread by which the parameters of the cell are scaled: about those of the training data.
_CENTRE = np.array([0.0, 0.0, 0.0, np.pi / 2, np.pi / 2, np.pi / 2])
_SPREAD = np.array([0.3, 0.5, 0.5, 0.3, 0.3, 0.3])

# Angles of a cell are nearer to a right angle than this.
_SHARPEST = np.radians(85.0)

# Share of the volume that spheres with covalent radii fill, about.
_PACKING = 0.6


@dataclass(frozen=True, eq=False)
class Occupation:
    """Which elements occupy which Wyckoff positions: what a crystal is without its numbers.

    Attributes
    ----------
    elements, counts
        Atomic numbers and how many atoms of each there are in the primitive cell, in the order of
        :func:`hybridcsp.structure.elements.element_order`.
    spacegroup
        Its number.
    slots, letters
        Index of the element and of the Wyckoff letter of each site, shape ``(n_sites,)``.
    """

    elements: tuple[int, ...]
    counts: tuple[int, ...]
    spacegroup: int
    slots: NDArray[np.int_]
    letters: NDArray[np.int_]

    @property
    def prototype(self) -> tuple[int, tuple[str, ...]]:
        """Space group and the letters of each element: what is left without the elements."""
        own = ["" for _ in self.elements]
        for slot, letter in zip(self.slots.tolist(), self.letters.tolist(), strict=True):
            own[slot] += LETTERS[letter]
        return self.spacegroup, tuple(own)


@dataclass(frozen=True, eq=False)
class CrystalTokens(Occupation):
    """A crystal: contents, space group, sites in their order, free coordinates, cell.

    Attributes
    ----------
    coordinates
        Zero where they are not free; shape ``(n_sites, 3)``.
    cell
        Scaled logarithms of volume per atom (over that of spheres) and axis ratios, scaled angles; shape ``(6,)``.
    """

    coordinates: NDArray[np.float64]
    cell: NDArray[np.float64]

    @property
    def occupation(self) -> Occupation:
        """Without coordinates and cell."""
        return Occupation(self.elements, self.counts, self.spacegroup, self.slots, self.letters)


def contents_in_order(contents: Mapping[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Elements (atomic numbers) in the order in which they are placed, and their numbers of atoms."""
    elements = element_order(contents)
    return elements, tuple(contents[z] for z in elements)


def tokenize(crystal: WyckoffCrystal, positions: WyckoffTables) -> CrystalTokens:
    """Describe a crystal to the network."""
    number = crystal.spacegroup
    letters = np.array([LETTERS.index(site.letter) for site in crystal.sites])
    contents: Counter[int] = Counter()
    for site, multiplicity in zip(crystal.sites, positions.multiplicity[number, letters].tolist(), strict=True):
        contents[site.element] += multiplicity
    elements, counts = contents_in_order(contents)
    coordinates = np.zeros((len(crystal.sites), 3))
    for row, site in enumerate(crystal.sites):
        coordinates[row, positions.free[number, letters[row]] > 0] = site.coordinates
    slots = np.array([elements.index(site.element) for site in crystal.sites])
    a, b, c = crystal.cell[:3]
    angles = np.radians(crystal.cell[3:])
    conventional = a * b * c * _unit_volume(angles)
    atoms = sum(counts) * _cells(positions, number)
    volume = np.log(conventional / atoms / sphere_volume(elements, counts))
    raw = np.array([volume, np.log(b / a), np.log(c / a), *angles])
    cell = np.where(positions.free_cell[number] > 0, (raw - _CENTRE) / _SPREAD, 0.0)
    return CrystalTokens(elements, counts, number, slots, letters, coordinates, cell)


def detokenize(sequence: CrystalTokens, positions: WyckoffTables) -> WyckoffCrystal | None:
    """Return the crystal; ``None`` where the angles do not make a cell."""
    number = sequence.spacegroup
    free = positions.free_cell[number] > 0
    raw = np.where(free, sequence.cell * _SPREAD + _CENTRE, _CENTRE * [0, 0, 0, 1, 1, 1])
    if positions.hexagonal[number]:
        raw[5] = 2 * np.pi / 3
    shape = _unit_volume(raw[3:])
    # The setting that is chosen for a monoclinic crystal may have an angle of 15 degrees.
    if not shape > 0.05 or not (np.abs(raw[3:] - np.pi / 2) < _SHARPEST).all():
        return None
    atoms = sum(sequence.counts) * _cells(positions, number)
    lengths = np.exp([0.0, raw[1], raw[2]])
    volume = np.exp(raw[0]) * atoms * sphere_volume(sequence.elements, sequence.counts)
    lengths *= (volume / (lengths.prod() * shape)) ** (1 / 3)
    sites = [
        Site(
            sequence.elements[slot],
            LETTERS[letter],
            tuple((coordinates[positions.free[number, letter] > 0] % 1.0).tolist()),
        )
        for slot, letter, coordinates in zip(
            sequence.slots.tolist(), sequence.letters.tolist(), sequence.coordinates, strict=True
        )
    ]
    a, b, c = map(float, lengths)
    alpha, beta, gamma = map(float, np.degrees(raw[3:]))
    return WyckoffCrystal(number, tuple(sites), (a, b, c, alpha, beta, gamma))


def sphere_volume(elements: tuple[int, ...], counts: tuple[int, ...]) -> float:
    """Volume per atom (Å³) of covalent spheres that are packed as in most crystals."""
    radii = covalent_radii[list(elements)]
    return float(np.dot(counts, 4 / 3 * np.pi * radii**3) / sum(counts) / _PACKING)


def _cells(positions: WyckoffTables, number: int) -> int:
    """Primitive cells in the conventional one."""
    general = positions.features[number, :, 1:3][positions.multiplicity[number].argmax()]
    return round(2 ** float(4 * (general[1] - general[0])))


def _unit_volume(angles: NDArray[np.float64]) -> float:
    """Volume of a cell with lengths of 1 and these angles (radians); 0 where there is none."""
    x, y, z = np.cos(angles)
    return float(np.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z)))
