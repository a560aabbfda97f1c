"""Crystals as space group, occupied Wyckoff positions with their free coordinates, and free lattice parameters.

All descriptions of a crystal give the same representation, up to rounding: of the equivalent descriptions that the
affine normaliser of the space group makes (origins, axes; doi:10.1107/97809553602060000515), one is chosen by rules.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import product
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

from hybridcsp.prototypes.labels import (
    OTHER_HAND,
    is_normalising,
    letter_permutations,
    reduced_counts,
    wyckoff_sets,
)
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.symmetry import SYMPREC_LOOSE
from hybridcsp.structure.wyckoff import LETTERS, WyckoffPosition, space_group

# Free coordinates are compared after rounding to this many steps of a cell vector, lengths to steps of 1e-4 Å.
_STEPS = 10_000

# How far (fractions of the cell) an atom of spglib's idealised cell may be from its Wyckoff position.
_TOLERANCE = 2e-3

# A point that is on no special position of any group, nor close to one.
_POINT = np.array([0.1537129, 0.2881937, 0.4095311])


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


def encode(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> WyckoffCrystal | None:
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
    found = _standard(atoms, symprec)
    if found is None:
        return None
    number, lattice, orbits = found
    order = element_order(reduced_counts(atoms.numbers))
    rank = {z: i for i, z in enumerate(order)}
    best: tuple[Any, ...] | None = None
    for renaming, rotation, shift, cell in _chosen(number, lattice, [(rank[z], letter) for z, letter, _ in orbits]):
        moved = [(rank[z], renaming[letter], points @ rotation.T + shift) for z, letter, points in orbits]
        for sites in _with_origin(number, moved):
            key = [_rounded(x) for _, _, x in sites]
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


def decode(crystal: WyckoffCrystal) -> Atoms:
    """Return the primitive cell of a crystal, atoms of a site one after the other, sites in their order."""
    group = space_group(crystal.spacegroup)
    by_letter = {position.letter: position for position in group.positions}
    numbers: list[int] = []
    fractions = []
    for site in crystal.sites:
        position = by_letter[site.letter]
        point = np.zeros(3)
        point[list(free_axes(crystal.spacegroup, site.letter))] = site.coordinates
        fractions.append(position.rotations @ point + position.translations)
        numbers += [site.element] * position.multiplicity
    cell = group.vectors @ Cell.fromcellpar(crystal.cell).array
    atoms = Atoms(numbers, scaled_positions=np.concatenate(fractions) % 1.0, cell=cell, pbc=True)
    return atoms


@lru_cache(maxsize=1 << 16)
def canonical_letters(number: int, letters: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first of the equivalent ways to name the Wyckoff positions that elements occupy.

    Parameters
    ----------
    number
        Space group.
    letters
        Those of each element, the elements in a given order.
    """
    ways = ([sorted(LETTERS.index(names[letter]) for letter in own) for own in letters] for names in _exchanges(number))
    return tuple("".join(LETTERS[index] for index in own) for own in min(ways))


@cache
def free_axes(number: int, letter: str) -> tuple[int, ...]:
    """Which of x, y, z (0, 1, 2) a Wyckoff position leaves free."""
    rotation = _position(number, letter).rotations[0]
    return tuple(np.flatnonzero(np.abs(rotation).max(axis=0) > 0.5).tolist())


@cache
def polar_axes(number: int) -> tuple[int, ...]:
    """Which axes of the conventional cell no operation of the group turns: along them the origin can be anywhere."""
    mean = space_group(number, conventional=True).positions[0].rotations.mean(axis=0)
    return tuple(axis for axis in range(3) if abs(mean[axis, axis] - 1) < 1e-6)


@cache
def _position(number: int, letter: str) -> WyckoffPosition:
    return next(p for p in space_group(number, conventional=True).positions if p.letter == letter)


def _standard(
    atoms: Atoms, symprec: float
) -> tuple[int, NDArray[np.float64], list[tuple[int, str, NDArray[np.float64]]]] | None:
    """Space group, conventional cell, and for each orbit its element, letter and all its points in that cell."""
    import spglib
    from pyxtal.symmetry import pyxtal_hall_numbers

    scaled = atoms.get_scaled_positions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = spglib.get_symmetry_dataset((atoms.cell.array, scaled, atoms.numbers), symprec)
            if dataset is not None and dataset.number in OTHER_HAND:
                scaled = -scaled
                dataset = spglib.get_symmetry_dataset((atoms.cell.array, scaled, atoms.numbers), symprec)
            if dataset is not None and dataset.hall_number != (hall := int(pyxtal_hall_numbers[dataset.number - 1])):
                dataset = spglib.get_symmetry_dataset(
                    (atoms.cell.array, scaled, atoms.numbers), symprec, hall_number=hall
                )
        except spglib.SpglibError:
            dataset = None
    if dataset is None:
        return None
    member: dict[int, int] = {}
    for atom, primitive_atom in enumerate(np.asarray(dataset.mapping_to_primitive).tolist()):
        member.setdefault(primitive_atom, atom)
    atom_of = [member[p] for p in np.asarray(dataset.std_mapping_to_primitive).tolist()]
    orbit_of = np.asarray(dataset.crystallographic_orbits)[atom_of]
    number = int(dataset.number)
    orbits = []
    for orbit in np.unique(orbit_of).tolist():
        inside = np.flatnonzero(orbit_of == orbit)
        letter = str(dataset.wyckoffs[atom_of[inside[0]]])
        if len(inside) != _position(number, letter).multiplicity:
            return None
        orbits.append((int(dataset.std_types[inside[0]]), letter, np.asarray(dataset.std_positions)[inside]))
    return number, np.asarray(dataset.std_lattice), orbits


def _chosen(
    number: int, lattice: NDArray[np.float64], sites: Sequence[tuple[int, str]]
) -> list[tuple[Mapping[str, str], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Operations of the normaliser that give the first letters, and of these the first cell.

    A triclinic cell has no letters to prefer one by: it is reduced, and what remains decides.

    Returns
    -------
    list of (new letters, rotation, shift, lengths and angles of the new cell)
    """
    operations = list(_normaliser(number))
    if number <= 2:
        turns = [(_exchange(number, turn, np.zeros(3)), turn) for turn in _reductions(lattice)]
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


@cache
def _normaliser(number: int) -> tuple[tuple[Mapping[str, str], NDArray[np.float64], NDArray[np.float64]], ...]:
    """Operations of the normaliser: how they exchange letters, rotation and shift of coordinates.

    They are the Bilbao server's, continuous translations along polar axes aside; in monoclinic groups times
    other choices of the cell, as far as spglib's may be from the reduced one.
    """
    found = [_operation(text) for text in wyckoff_sets()[str(number)]["Coset Representative"]]
    if 3 <= number <= 15:
        found = [(a @ b, a @ t + s) for a, s in found for b, t in _shears(number)]
    return tuple((_exchange(number, rotation, shift), rotation, shift) for rotation, shift in found)


@cache
def _exchanges(number: int) -> tuple[Mapping[str, str], ...]:
    """Distinct exchanges of letters by the normaliser."""
    if number > 2:
        return tuple(dict(zip(LETTERS, names, strict=False)) for names in letter_permutations(number))
    # All cells of a triclinic lattice are alike to its letters; the reduced one has been chosen.
    distinct = {tuple(sorted(names.items())): names for names, _, _ in _normaliser(number)}
    return tuple(distinct.values())


@cache
def _shears(number: int) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    """Find the changes of the cell in the plane across the unique axis that leave a monoclinic group as it is."""
    found = []
    for a, b, c, d in product(range(-2, 3), repeat=4):
        if abs(a * d - b * c) != 1:
            continue
        rotation = np.linalg.inv(np.array([[a, 0, b], [0, 1, 0], [c, 0, d]], dtype=float)).T
        for shift in product((0.0, 0.25, 0.5, 0.75), repeat=3):
            if is_normalising(rotation, np.array(shift), _position(number, _general(number))):
                found.append((rotation, np.array(shift)))
                break
    return tuple(found)


def _general(number: int) -> str:
    return max(space_group(number, conventional=True).positions, key=lambda p: p.multiplicity).letter


def _exchange(number: int, rotation: NDArray[np.float64], shift: NDArray[np.float64]) -> Mapping[str, str]:
    """Letters to which an operation of the normaliser leads."""
    positions = space_group(number, conventional=True).positions
    exchange = {}
    for position in positions:
        points = (position.rotations @ _POINT + position.translations) @ rotation.T + shift
        exchange[position.letter] = next(
            other.letter
            for other in positions
            if (other.multiplicity, other.freedom) == (position.multiplicity, position.freedom)
            and _coordinates(number, other.letter, points) is not None
        )
    return exchange


def _operation(text: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parse ``"-x+1/2,y,z+1/4"``."""
    rotation, shift = np.zeros((3, 3)), np.zeros(3)
    for row, part in enumerate(text.replace(" ", "").split(",")):
        for sign, factor, axis, number in re.findall(r"([+-]?)(?:(\d*)([xyz])|(\d+(?:/\d+)?))", part):
            value = float(Fraction(number or factor or "1")) * (-1 if sign == "-" else 1)
            if axis:
                rotation[row, "xyz".index(axis)] += value
            else:
                shift[row] += value
    return rotation, shift


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
    for origin in np.unique(np.rint(origins % 1.0 * _STEPS).astype(int) % _STEPS, axis=0, return_index=True)[1]:
        shift = np.zeros(3)
        shift[axes] = origins[origin]
        sites = []
        for rank, letter, points in ordered:
            coordinates = _coordinates(number, letter, points - shift)
            if coordinates is None:
                break
            sites.append((rank, letter, coordinates))
        else:
            yield sorted(sites, key=lambda site: (site[0], LETTERS.index(site[1]), _rounded(site[2])))


def _coordinates(number: int, letter: str, points: NDArray[np.float64]) -> tuple[float, ...] | None:
    """Free coordinates of an orbit: of those that its points allow, the first in order."""
    position = _position(number, letter)
    rotation, translation = position.rotations[0], position.translations[0]
    axes = free_axes(number, letter)
    apart = points - translation
    free = np.zeros_like(points)
    for axis in axes:
        # One row of the table's first operation is plus or minus this coordinate alone.
        row = next(r for r in range(3) if abs(rotation[r, axis]) == 1 and np.count_nonzero(rotation[r]) == 1)
        free[:, axis] = apart[:, row] * rotation[row, axis]
    residual = apart - free @ rotation.T
    fits = np.abs(residual - np.rint(residual)).max(axis=1) < _TOLERANCE
    if not fits.any():
        return None
    options = free[fits][:, axes] % 1.0
    return min((tuple(option) for option in options.tolist()), key=_rounded)


def _rounded(coordinates: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(c * _STEPS) % _STEPS for c in coordinates)
