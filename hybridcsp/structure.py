"""Geometry that every room shares: distances, cells, symmetry, conversions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Tolerances in Å at which space groups are stated: for a structure as it is, and for one close to a higher symmetry.
SYMPREC = 0.01
SYMPREC_LOOSE = 0.1

#: Tolerance in Å at which samples of generators that come out without symmetry are made symmetric. Of samples of the
#: flow generator for held-out crystals that match them, it gives 43 % their space group (0.1 Å: 11 %), and loses as few
#: matches, 3 of 110.
SYMPREC_ROUGH = 0.3

# A cell in which more images than these must be looked at is reduced first.
_MANY_IMAGES = 125

# Vectors that are made at once: 24 MB.
_MOST_VECTORS = 1_000_000


def is_finite_crystal(atoms: Atoms) -> bool:
    """Whether there are atoms, finite positions, and a finite cell that spans a volume."""
    return bool(
        len(atoms) > 0
        and np.isfinite(atoms.positions).all()
        and np.isfinite(atoms.cell.array).all()
        and atoms.cell.rank == 3
        and abs(np.linalg.det(atoms.cell.array)) > 1e-3
    )


def shortest_violation(atoms: Atoms, distances: NDArray[np.float64]) -> tuple[int, int, float] | None:
    """Find the pair of atoms that is closest in proportion to what is required.

    Parameters
    ----------
    atoms
        Periodic structure; an atom and its own image are a pair too.
    distances
        Required distances in Å by atomic numbers, shape ``(119, 119)``.

    Returns
    -------
    tuple or None
        Indices and distance (Å) of the worst pair that is closer than required, ``None`` if there is none.
    """
    required = distances[np.ix_(atoms.numbers, atoms.numbers)]
    found = nearest_distances(atoms, float(required.max()))
    ratio = found / np.maximum(required, 1e-9)
    worst = int(ratio.argmin())
    if not ratio.flat[worst] < 1:
        return None
    first, second = divmod(worst, len(atoms))
    return first, second, float(found[first, second])


def nearest_distances(atoms: Atoms, cutoff: float) -> NDArray[np.float64]:
    """Distance of each atom to the nearest image of each other atom, and of itself.

    Returns
    -------
    ndarray
        In Å, shape ``(n_atoms, n_atoms)``; exact up to the cutoff, and above it no shorter than that.
    """
    n = len(atoms)
    result = np.full((n, n), np.inf)
    for first, second, vectors in _separations(atoms, cutoff):
        squares = np.einsum("pix,pix->pi", vectors, vectors)
        squares[first == second, 0] = np.inf  # itself
        result[first, second] = result[second, first] = np.sqrt(squares.min(axis=1))
    return result


def neighbours(
    atoms: Atoms, cutoff: float
) -> tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]]:
    """List all pairs of atoms, images among them, that are nearer than a cutoff; each pair in both directions.

    It is ASE's ``neighbor_list("ijDd", …)``, faster for the tens of atoms that a search deals with, in another order.

    Returns
    -------
    tuple
        First and second atom, shape ``(n,)``; the vector from the first to the second and its length in Å, shapes
        ``(n, 3)`` and ``(n,)``.
    """
    parts = []
    for first, second, vectors in _separations(atoms, cutoff):
        lengths = np.sqrt(np.einsum("pix,pix->pi", vectors, vectors))
        lengths[first == second, 0] = np.inf  # itself
        pair, image = np.nonzero(lengths < cutoff)
        parts.append((first[pair], second[pair], vectors[pair, image], lengths[pair, image]))
    first, second, vectors, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    other = first != second  # of an atom and its own images both directions are there
    return (
        np.concatenate([first, second[other]]),
        np.concatenate([second, first[other]]),
        np.concatenate([vectors, -vectors[other]]),
        np.concatenate([lengths, lengths[other]]),
    )


def _separations(
    atoms: Atoms, cutoff: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]]:
    """Yield pairs of atoms with vectors between them, among which are all that are no longer than the cutoff.

    Each pair comes once, so many at a time that memory stays bounded: first and second atom, shape ``(n_pairs,)``, and
    the vectors, shape ``(n_pairs, n_images, 3)``, of which the first leads to the nearest or nearly nearest image.
    """
    cell = atoms.cell.array
    images = lattice_vectors(cell, cutoff)
    if len(images) > _MANY_IMAGES:
        cell = niggli_cell(cell)
        images = lattice_vectors(cell, cutoff)
    pairs = np.triu_indices(len(atoms))
    inverse = np.linalg.inv(cell)
    step = max(1, _MOST_VECTORS // len(images))
    for start in range(0, len(pairs[0]), step):
        first, second = (index[start : start + step] for index in pairs)
        apart = atoms.positions[second] - atoms.positions[first]
        apart -= np.rint(apart @ inverse) @ cell
        yield first, second, apart[:, None] + images


def lattice_vectors(cell: NDArray[np.float64], cutoff: float) -> NDArray[np.float64]:
    """Lattice vectors, zero first, that can bring two atoms within ``cutoff`` whose fractions differ by at most 1/2."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.floor(cutoff / heights + 0.5).astype(int).tolist()
    return _steps(*reach) @ cell


@lru_cache(maxsize=256)
def _steps(*reach: int) -> NDArray[np.float64]:
    """All whole numbers up to three limits, zero first, shape ``(n, 3)``."""
    shells = [range(-n, n + 1) for n in reach]
    return np.array(sorted(product(*shells), key=lambda step: step != (0, 0, 0)), dtype=float)


def niggli_cell(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Niggli-reduced cell, or the cell as it is where spglib fails."""
    import spglib

    try:
        reduced = spglib.niggli_reduce(cell, eps=1e-5)
    except spglib.SpglibError:
        reduced = None
    return cell if reduced is None else np.asarray(reduced, dtype=float)


def niggli_parameters(atoms: Atoms) -> NDArray[np.float64]:
    """Lengths (Å) and angles (degrees) of the Niggli-reduced cell, shape ``(6,)``."""
    return np.asarray(Cell(niggli_cell(atoms.cell.array)).cellpar(), dtype=float)


def spacegroup(atoms: Atoms, symprec: float = SYMPREC) -> int:
    """Space group number of the positions (magnetic moments aside); 1 where spglib finds none at all."""
    dataset = _dataset(atoms, atoms.numbers, symprec)
    return 1 if dataset is None else int(dataset.number)


def spacegroups(atoms: Atoms) -> tuple[int, int]:
    """Return space group numbers at 0.01 Å and at 0.1 Å; what has no symmetry at 0.1 Å has none at 0.01 Å."""
    loose = spacegroup(atoms, SYMPREC_LOOSE)
    return (1 if loose == 1 else spacegroup(atoms, SYMPREC)), loose


def primitive(atoms: Atoms, symprec: float = SYMPREC) -> Atoms:
    """Return the standardised primitive cell; initial moments and charges stay with their atoms."""
    return _standardized(atoms, symprec, to_primitive=True)


def in_group(atoms: Atoms, number: int, symprec: float = SYMPREC) -> Atoms | None:
    """Return a primitive cell made as symmetric as it is nearly, if that is of this space group and no smaller."""
    symmetric = primitive(atoms, symprec)
    return symmetric if len(symmetric) == len(atoms) and spacegroup(symmetric) == number else None


def conventional(atoms: Atoms, symprec: float = SYMPREC) -> Atoms:
    """Return the standardised conventional cell; initial moments and charges stay with their atoms."""
    return _standardized(atoms, symprec, to_primitive=False)


def to_pymatgen(atoms: Atoms) -> Structure:
    """Return the same crystal as a pymatgen ``Structure``."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(atoms.cell.array), list(atoms.symbols), atoms.get_scaled_positions(wrap=False))


def from_pymatgen(structure: Structure) -> Atoms:
    """Return the same crystal as ``Atoms``; every site must be one element at full occupancy."""
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
        pbc=True,
    )


def _dataset(atoms: Atoms, labels: NDArray[Any], symprec: float) -> Any:
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), labels), symprec)
        except spglib.SpglibError:
            return None


def _standardized(atoms: Atoms, symprec: float, *, to_primitive: bool) -> Atoms:
    import spglib

    # Atoms that differ in moment or charge are different atoms: a magnetic cell is not folded onto a smaller one.
    states = np.column_stack([atoms.numbers, atoms.get_initial_magnetic_moments(), atoms.get_initial_charges()])
    kinds, labels = np.unique(states, axis=0, return_inverse=True)
    crystal = atoms.cell.array, atoms.get_scaled_positions(), labels.ravel() + 1
    try:
        found = spglib.standardize_cell(crystal, to_primitive=to_primitive, symprec=symprec)
    except spglib.SpglibError:
        found = None
    if found is None:
        return atoms.copy()
    cell, positions, kind = found
    state = kinds[np.asarray(kind) - 1]
    result = Atoms(numbers=state[:, 0].astype(int), cell=cell, scaled_positions=positions, pbc=True)
    if atoms.has("initial_magmoms"):
        result.set_initial_magnetic_moments(state[:, 1])
    if atoms.has("initial_charges"):
        result.set_initial_charges(state[:, 2])
    result.info.update(atoms.info)
    return result


@cache
def spacegroup_symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of a space group in its standard setting: ``"C2/m"``, ``"P4_2/mnm"``."""
    import spglib

    for hall_number in range(number, 531):  # the first of a space group's settings is the standard one
        found = spglib.get_spacegroup_type(hall_number)
        if found is not None and found.number == number:
            return str(found.international_short)
    raise ValueError(f"there is no space group {number}; they run from 1 to 230")
