"""Crystals as space group, occupied Wyckoff positions with their free coordinates, and free lattice parameters.

All descriptions of a crystal give the same representation up to rounding: one of the descriptions that are equivalent
under the affine normalizer of the space group (:mod:`hybridcsp.structure.normalizer`) is chosen by fixed rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.prototypes.labels import reduced_counts
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.geometry import unimodular_matrices
from hybridcsp.structure.normalizer import letter_exchange, normalizer_operations
from hybridcsp.structure.orbits import find_tabulated_orbits, primitive_cell_with
from hybridcsp.structure.symmetry import SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import (
    COORDINATE_STEPS,
    LETTERS,
    orbit_coordinates,
    polar_axes,
    rounded_coordinates,
)


@dataclass(frozen=True)
class Site:
    """Occupied Wyckoff position.

    Attributes
    ----------
    element
        Atomic number.
    letter
        Wyckoff letter.
    coordinates
        Free coordinates in [0, 1) among x, y, z of the position's first operation in the tables.
    """

    element: int
    letter: str
    coordinates: tuple[float, ...]


@dataclass(frozen=True)
class WyckoffCrystal:
    """Crystal in PyXtal's setting of its space group (unique axis b, hexagonal axes, second origin choice).

    Attributes
    ----------
    spacegroup
        International number; the lower one of an enantiomorphic pair, whose crystals may be mirror images.
    sites
        Sites in ascending order of their elements' numbers of atoms and electronegativities, letters, and coordinates.
    cell
        Lengths (Å) and angles (degrees) of the conventional cell.
    """

    spacegroup: int
    sites: tuple[Site, ...]
    cell: tuple[float, float, float, float, float, float]


def encode_wyckoff(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> WyckoffCrystal | None:
    """Return the Wyckoff representation of a crystal.

    Parameters
    ----------
    atoms
        Any cell of a crystal.
    symprec
        Tolerance of spglib in Å; the crystal is symmetrised within it.

    Returns
    -------
    WyckoffCrystal or None
        ``None`` if spglib finds no consistent symmetry at this tolerance.
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
    """Return the primitive cell of a crystal, with the atoms in the order of the sites."""
    sites = ((site.element, site.letter, site.coordinates) for site in crystal.sites)
    return primitive_cell_with(crystal.spacegroup, crystal.cell, sites)


def _preferred_operations(
    number: int, lattice: NDArray[np.float64], sites: Sequence[tuple[int, str]]
) -> list[tuple[Mapping[str, str], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Return the operations of the normalizer that give the first letters, and of these the first cell.

    Triclinic cells, for which letters are not sufficient, are reduced in addition.

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
    """Return the lengths and angles (degrees) of cells, shape ``(n, 6)``."""
    lengths = np.linalg.norm(cells, axis=-1)
    cosines = [
        (cells[:, i] * cells[:, j]).sum(-1) / (lengths[:, i] * lengths[:, j]) for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    return np.column_stack([lengths, *(np.degrees(np.arccos(np.clip(c, -1, 1))) for c in cosines)])


def _reductions(lattice: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the changes of basis to the reduced cell with the shortest vectors, then the smallest angles."""
    choices = unimodular_matrices()
    keys = np.rint(_cellpars(choices @ lattice) * 1e4).astype(int)
    best = np.lexsort(keys.T[::-1])[0]
    return [np.linalg.inv(choice).T for choice in choices[(keys == keys[best]).all(axis=1)]]


def _with_origin(
    number: int, orbits: Sequence[tuple[int, str, NDArray[np.float64]]]
) -> Iterator[list[tuple[int, str, tuple[float, ...]]]]:
    """Yield the free coordinates of orbits (rank of the element, letter, points) for each choice of the origin.

    The origin along polar axes is at one of the first sites.
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
