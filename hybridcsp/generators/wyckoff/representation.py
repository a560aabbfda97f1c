"""Crystals as space group, occupied Wyckoff positions with their free coordinates, and free lattice parameters.

All descriptions of a crystal give the same representation, up to rounding: of the equivalent descriptions that the
affine normaliser of the space group makes (origins, axes; doi:10.1107/97809553602060000515), one is chosen by rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

from hybridcsp.prototypes.labels import reduced_counts
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.normalizer import letter_exchange, normalizer_operations
from hybridcsp.structure.orbits import find_tabulated_orbits
from hybridcsp.structure.symmetry import SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import (
    COORDINATE_STEPS,
    LETTERS,
    free_axes,
    orbit_coordinates,
    polar_axes,
    rounded_coordinates,
    space_group,
    wyckoff_position,
)


@dataclass(frozen=True)
class Site:
    """One orbit of atoms.

    Attributes
    ----------
    element
        Atomic number.
    letter
        Of the Wyckoff position.
    coordinates
        Its free coordinates, in [0, 1): those of x, y, z that the position's first operation in the tables takes.
    """

    element: int
    letter: str
    coordinates: tuple[float, ...]


@dataclass(frozen=True)
class WyckoffCrystal:
    """A crystal in PyXtal's setting of its space group (unique axis b, hexagonal axes, second origin choice).

    Attributes
    ----------
    spacegroup
        International number; of an enantiomorphic pair the lower one (the crystal is mirrored where it must be).
    sites
        Elements come with the fewest atoms first, those of equal numbers with the least electronegative first;
        the sites of an element in the order of their letters, then coordinates.
    cell
        Lengths (Å) and angles (degrees) of the conventional cell.
    """

    spacegroup: int
    sites: tuple[Site, ...]
    cell: tuple[float, float, float, float, float, float]


def encode_wyckoff(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> WyckoffCrystal | None:
    """Describe a crystal by its symmetry.

    Parameters
    ----------
    atoms
        Any cell of a crystal.
    symprec
        Tolerance of spglib in Å; the crystal is described as if it were exactly as symmetric as found.

    Returns
    -------
    WyckoffCrystal or None
        ``None`` where spglib finds no consistent symmetry at this tolerance.
    """
    found = find_tabulated_orbits(atoms, symprec)
    if found is None:
        return None
    number, orbits = found.spacegroup, found.orbits
    order = element_order(reduced_counts(atoms.numbers))
    rank = {z: i for i, z in enumerate(order)}
    best: tuple[Any, ...] | None = None
    for renaming, rotation, shift, cell in _preferred_operations(
        number, found.lattice, [(rank[orbit.element], orbit.letter) for orbit in orbits]
    ):
        moved = [(rank[o.element], renaming[o.letter], o.points @ rotation.T + shift) for o in orbits]
        for sites in _with_origin(number, moved):
            key = [rounded_coordinates(x) for _, _, x in sites]
            if best is None or key < best[0]:
                best = key, cell, sites
    if best is None:
        return None
    _, cell, sites = best
    return WyckoffCrystal(
        number,
        tuple(Site(order[i], letter, tuple(float(c) for c in x)) for i, letter, x in sites),
        tuple(map(float, cell)),  # type: ignore[arg-type]
    )


def decode_wyckoff(crystal: WyckoffCrystal) -> Atoms:
    """Return the primitive cell of a crystal, atoms of a site one after the other, sites in their order."""
    group = space_group(crystal.spacegroup)
    numbers: list[int] = []
    fractions = []
    for site in crystal.sites:
        position = wyckoff_position(crystal.spacegroup, site.letter)
        point = np.zeros(3)
        point[list(free_axes(crystal.spacegroup, site.letter))] = site.coordinates
        fractions.append(position.rotations @ point + position.translations)
        numbers += [site.element] * position.multiplicity
    cell = group.vectors @ Cell.fromcellpar(crystal.cell).array
    atoms = Atoms(numbers, scaled_positions=np.concatenate(fractions) % 1.0, cell=cell, pbc=True)
    return atoms


def _preferred_operations(
    number: int, lattice: NDArray[np.float64], sites: Sequence[tuple[int, str]]
) -> list[tuple[Mapping[str, str], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Operations of the normaliser that give the first letters, and of these the first cell.

    A triclinic cell has no letters to prefer one by: it is reduced, and what remains decides.

    Returns
    -------
    list of (new letters, rotation, shift, lengths and angles of the new cell)
    """
    operations = [(o.letters, o.rotation, o.shift) for o in normalizer_operations(number)]
    if number <= 2:
        turns = [(letter_exchange(number, turn, np.zeros(3)), turn) for turn in _reductions(lattice)]
        operations = [
            ({letter: names[turned] for letter, turned in first.items()}, rotation @ turn, shift)
            for names, rotation, shift in operations
            for first, turn in turns
        ]
    letters = [
        tuple(sorted((rank, LETTERS.index(names[letter])) for rank, letter in sites)) for names, _, _ in operations
    ]
    first = min(letters)
    left = [operation for operation, own in zip(operations, letters, strict=True) if own == first]
    cells = _cellpars(np.linalg.inv(np.array([turn for _, turn, _ in left])).transpose(0, 2, 1) @ lattice)
    keys = [tuple(key) for key in np.rint(cells * 1e4).astype(int).tolist()]
    return [(*operation, cell) for operation, cell, key in zip(left, cells, keys, strict=True) if key == min(keys)]


def _cellpars(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths and angles (degrees) of cells, shape ``(n, 6)``."""
    lengths = np.linalg.norm(cells, axis=-1)
    cosines = [
        (cells[:, i] * cells[:, j]).sum(-1) / (lengths[:, i] * lengths[:, j]) for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    return np.column_stack([lengths, *(np.degrees(np.arccos(np.clip(c, -1, 1))) for c in cosines)])


def _reductions(lattice: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Rotations of coordinates that lead to the reduced cell: the shortest vectors, then the smallest angles."""
    choices = _unimodular()
    keys = np.rint(_cellpars(choices @ lattice) * 1e4).astype(int)
    best = np.lexsort(keys.T[::-1])[0]
    return [np.linalg.inv(choice).T for choice in choices[(keys == keys[best]).all(axis=1)]]


@cache
def _unimodular() -> NDArray[np.float64]:
    """All matrices of -1, 0 and 1 whose determinant is 1 or -1: they reach the reduced cell from spglib's."""
    matrices: NDArray[np.float64] = np.array(list(product((-1.0, 0.0, 1.0), repeat=9))).reshape(-1, 3, 3)
    return np.asarray(matrices[np.abs(np.abs(np.linalg.det(matrices)) - 1) < 1e-6], dtype=float)


def _with_origin(
    number: int, orbits: Sequence[tuple[int, str, NDArray[np.float64]]]
) -> Iterator[list[tuple[int, str, tuple[float, ...]]]]:
    """Describe orbits (rank of the element, letter, points) by free coordinates, once for each choice of the origin.

    Where axes are polar, the origin along them is at one of the sites that come first.
    """
    axes = list(polar_axes(number))
    ordered = sorted(orbits, key=lambda orbit: (orbit[0], LETTERS.index(orbit[1])))
    candidates = [orbit for orbit in ordered if orbit[:2] == ordered[0][:2]] if axes else ordered[:1]
    # A polar group may move an atom of an orbit along its axis by a fraction of the cell, as a screw axis does.
    origins = np.concatenate([points for _, _, points in candidates])[:, axes] if axes else np.zeros((1, 0))
    for origin in np.unique(
        np.rint(origins % 1.0 * COORDINATE_STEPS).astype(int) % COORDINATE_STEPS, axis=0, return_index=True
    )[1]:
        shift = np.zeros(3)
        shift[axes] = origins[origin]
        sites = []
        for rank, letter, points in ordered:
            coordinates = orbit_coordinates(number, letter, points - shift)
            if coordinates is None:
                break
            sites.append((rank, letter, coordinates))
        else:
            yield sorted(sites, key=lambda site: (site[0], LETTERS.index(site[1]), rounded_coordinates(site[2])))
