"""Crystals as sequences of tokens for the networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.generators.wyckoff.representation import Site, WyckoffCrystal, encode_wyckoff
from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.symmetry import SYMPREC, SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import LETTERS

# Approximate mean and spread of the parameters of the cell in the training data, by which they are scaled.
_CENTRE = np.array([0.0, 0.0, 0.0, np.pi / 2, np.pi / 2, np.pi / 2])
_SPREAD = np.array([0.3, 0.5, 0.5, 0.3, 0.3, 0.3])

# Largest deviation of the angles of a cell from a right angle.
_MAX_DEVIATION = np.radians(85.0)

# Approximate fraction of the volume filled by spheres with covalent radii.
_PACKING = 0.6


@dataclass(frozen=True, eq=False)
class Occupation:
    """Contents, space group and occupied Wyckoff positions of a crystal.

    Attributes
    ----------
    elements, counts
        Atomic numbers and numbers of atoms in the primitive cell in the order of
        :func:`hybridcsp.structure.elements.element_order`.
    spacegroup
        Number of the space group.
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
        """Space group and the letters of each element."""
        own = ["" for _ in self.elements]
        for slot, letter in zip(self.slots.tolist(), self.letters.tolist(), strict=True):
            own[slot] += LETTERS[letter]
        return self.spacegroup, tuple(own)


@dataclass(frozen=True, eq=False)
class CrystalTokens(Occupation):
    """Tokens of a crystal: contents, space group, ordered sites, free coordinates and cell.

    Attributes
    ----------
    coordinates
        Fractional coordinates, zero where they are not free, shape ``(n_sites, 3)``.
    cell
        Scaled logarithms of volume per atom (over that of spheres) and axis ratios, scaled angles; shape ``(6,)``.
    """

    coordinates: NDArray[np.float64]
    cell: NDArray[np.float64]

    @property
    def occupation(self) -> Occupation:
        """The occupation without coordinates and cell."""
        return Occupation(self.elements, self.counts, self.spacegroup, self.slots, self.letters)


def contents_in_order(contents: Mapping[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the elements (atomic numbers) in the order of placement, and their numbers of atoms."""
    elements = element_order(contents)
    return elements, tuple(contents[z] for z in elements)


def tokens_of(atoms: Atoms, positions: WyckoffTables) -> CrystalTokens | None:
    """Return the tokens of a primitive cell, or ``None`` without a symmetry that keeps its contents."""
    contents = Counter(atoms.numbers.tolist())
    # A loose tolerance may find a smaller primitive cell, whose contents would not be those of a request.
    for symprec in (SYMPREC_LOOSE, SYMPREC):
        crystal = encode_wyckoff(atoms, symprec)
        if crystal is None:
            continue
        sequence = tokenize(crystal, positions)
        if dict(zip(sequence.elements, sequence.counts, strict=True)) == contents:
            return sequence
    return None


def tokenize(crystal: WyckoffCrystal, positions: WyckoffTables) -> CrystalTokens:
    """Return the tokens of a crystal."""
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
    """Return the crystal of tokens, or ``None`` if the angles do not make a cell."""
    number = sequence.spacegroup
    free = positions.free_cell[number] > 0
    raw = np.where(free, sequence.cell * _SPREAD + _CENTRE, _CENTRE * [0, 0, 0, 1, 1, 1])
    if positions.hexagonal[number]:
        raw[5] = 2 * np.pi / 3
    shape = _unit_volume(raw[3:])
    # The chosen setting of a monoclinic crystal may have an angle as small as 15 degrees.
    if not shape > 0.05 or not (np.abs(raw[3:] - np.pi / 2) < _MAX_DEVIATION).all():
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
    """Return the volume per atom (Å³) of covalent spheres at the packing fraction of most crystals."""
    radii = covalent_radii[list(elements)]
    return float(np.dot(counts, 4 / 3 * np.pi * radii**3) / sum(counts) / _PACKING)


def _cells(positions: WyckoffTables, number: int) -> int:
    """Return the number of primitive cells in the conventional one."""
    general = positions.features[number, :, 1:3][positions.multiplicity[number].argmax()]
    return round(2 ** float(4 * (general[1] - general[0])))


def _unit_volume(angles: NDArray[np.float64]) -> float:
    """Return the volume of a cell with lengths of 1 and given angles (radians); 0 if there is none."""
    x, y, z = np.cos(angles)
    return float(np.sqrt(max(0.0, 1 - x * x - y * y - z * z + 2 * x * y * z)))
