"""Distances between atoms, lattice vectors and reduced cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from numpy.typing import NDArray

# A cell that needs more images than this is reduced first.
_MANY_IMAGES = 125

# Largest number of vectors in memory at once: 24 MB.
_MAX_VECTORS = 1_000_000


class FlatCellError(ValueError):
    """A cell is so flat that the images of atoms within a distance are too many to be listed."""

    def __init__(self) -> None:
        super().__init__("the cell is so flat that lattice planes nearly coincide")


def nearest_distances(atoms: Atoms, cutoff: float) -> NDArray[np.float64]:
    """Return the distance of each atom to the nearest image of each other atom, and of itself.

    Returns
    -------
    ndarray
        Distances in Å, shape ``(n_atoms, n_atoms)``; exact up to the cutoff, and larger than it otherwise.

    Raises
    ------
    FlatCellError
        If there are too many images.
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
    """Return all pairs of atoms, including periodic images, within a cutoff; each pair in both directions.

    The result is that of ASE's ``neighbor_list("ijDd", …)`` in another order; it is faster for tens of atoms.

    Returns
    -------
    tuple
        First and second atom, shape ``(n,)``; the vector from the first to the second and its length in Å, shapes
        ``(n, 3)`` and ``(n,)``.

    Raises
    ------
    FlatCellError
        If there are too many images.
    """
    parts = []
    for first, second, vectors in _separations(atoms, cutoff):
        lengths = np.sqrt(np.einsum("pix,pix->pi", vectors, vectors))
        lengths[first == second, 0] = np.inf  # itself
        pair, image = np.nonzero(lengths < cutoff)
        parts.append((first[pair], second[pair], vectors[pair, image], lengths[pair, image]))
    first, second, vectors, lengths = (np.concatenate(part) for part in zip(*parts, strict=True))
    other = first != second  # an atom and its own images are listed in both directions already
    return (
        np.concatenate([first, second[other]]),
        np.concatenate([second, first[other]]),
        np.concatenate([vectors, -vectors[other]]),
        np.concatenate([lengths, lengths[other]]),
    )


def _separations(
    atoms: Atoms, cutoff: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]]:
    """Yield pairs of atoms with the vectors between their images; none within the cutoff is missing.

    Each pair is yielded once, in batches of bounded memory: first and second atom, shape ``(n_pairs,)``, and the
    vectors, shape ``(n_pairs, n_images, 3)``, of which the first leads to the nearest or nearly nearest image.
    """
    cell = atoms.cell.array
    inverse = np.linalg.inv(cell)
    reach = _reach(inverse, cutoff)
    if _number_of_images(reach) > _MANY_IMAGES:
        cell = niggli_cell(cell)
        inverse = np.linalg.inv(cell)
        reach = _reach(inverse, cutoff)
    images = _steps(reach) @ cell
    pairs = np.triu_indices(len(atoms))
    step = max(1, _MAX_VECTORS // len(images))
    for start in range(0, len(pairs[0]), step):
        first, second = (index[start : start + step] for index in pairs)
        vectors = atoms.positions[second] - atoms.positions[first]
        vectors -= np.rint(vectors @ inverse) @ cell
        yield first, second, vectors[:, None] + images


def lattice_vectors(cell: NDArray[np.float64], cutoff: float) -> NDArray[np.float64]:
    """Return the lattice vectors that can bring two atoms within a cutoff, the zero vector first.

    Parameters
    ----------
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``.
    cutoff
        Distance in Å.

    Returns
    -------
    ndarray
        Shape ``(n, 3)``; complete if the fractional coordinates of the atoms differ by at most 1/2.

    Raises
    ------
    FlatCellError
        If there are too many.
    """
    return _steps(_reach(np.linalg.inv(cell), cutoff)) @ cell


def _reach(inverse: NDArray[np.floating[Any]], cutoff: float) -> list[float]:
    """Return the largest multiple of each lattice vector that can bring two atoms within a cutoff."""
    heights = 1 / np.linalg.norm(inverse, axis=0)
    found: list[float] = np.floor(cutoff / heights + 0.5).tolist()
    return found


def _number_of_images(reach: Sequence[float]) -> float:
    return math.prod(2 * n + 1 for n in reach)


def _steps(reach: Sequence[float]) -> NDArray[np.float64]:
    """Return all triples of integers up to three limits, zero first, shape ``(n, 3)``."""
    number = _number_of_images(reach)
    if not number <= _MAX_VECTORS:
        raise FlatCellError
    return _few_steps(*reach) if number <= _MANY_IMAGES else _listed_steps(*reach)


def _listed_steps(*reach: float) -> NDArray[np.float64]:
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1.0) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    middle = len(steps) // 2
    return np.concatenate([steps[middle : middle + 1], steps[:middle], steps[middle + 1 :]])


@lru_cache(maxsize=256)
def _few_steps(*reach: float) -> NDArray[np.float64]:
    return _listed_steps(*reach)


@cache
def unimodular_matrices() -> NDArray[np.float64]:
    """Return all matrices of -1, 0 and 1 with determinant 1 or -1, shape ``(6960, 3, 3)``.

    They are the changes of basis that are needed between reduced cells.
    """
    matrices = np.array(list(product((-1.0, 0.0, 1.0), repeat=9))).reshape(-1, 3, 3)
    return np.asarray(matrices[np.abs(np.rint(np.linalg.det(matrices))) == 1])


def niggli_cell(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Niggli-reduced cell, or the unchanged cell if spglib fails."""
    import spglib

    try:
        reduced = spglib.niggli_reduce(cell, eps=1e-5)
    except spglib.SpglibError:
        reduced = None
    return cell if reduced is None else np.asarray(reduced, dtype=float)


def niggli_parameters(atoms: Atoms) -> NDArray[np.float64]:
    """Return the lengths (Å) and angles (degrees) of the Niggli-reduced cell, shape ``(6,)``."""
    return np.asarray(Cell(niggli_cell(atoms.cell.array)).cellpar(), dtype=float)
