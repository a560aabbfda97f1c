"""Crystals as stacks of slabs: cut along a lattice plane, repeated in it, and put on one another.

Heredity stacks slabs of two parents; adding or removing formula units stacks a thicker or thinner slab of one parent on
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from ase import Atoms
from ase.symbols import symbols2numbers

from hybridcsp.operators.common import Floats, carry

#: Planes that are cut along, by Miller indices of the reduced cell; each stands for its opposite too.
PLANES = tuple((a, b, c) for a, b, c in product((-1, 0, 1), repeat=3) if (a, b, c) > (0, 0, 0))

#: How far (Å) from the cut an atom may be taken that is missing on the other side of it.
MARGIN = 1.5

#: Sideways shifts of a slab that are tried on the one below.
SHIFTS = 16

# The proper rotations of a face onto itself, as far as the integers go: turns about its normal, and upside down.
_TURNS = (((1, 0), (0, 1)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)), ((0, -1), (1, 0)))
ORIENTATIONS = tuple(
    np.array([[*turn[0], 0], [*turn[1], 0], [0, 0, 1]]) @ flip
    for flip in (np.eye(3, dtype=int), np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]]))
    for turn in _TURNS
)


@dataclass(frozen=True, eq=False)
class Block:
    """A crystal seen from one of its lattice planes.

    Attributes
    ----------
    atoms
        The crystal.
    basis
        Two vectors in the plane and one out of it in terms of the crystal's own, whole numbers, shape ``(3, 3)``.
    repeats
        How often the first two are repeated.
    lateral
        The two vectors, repeated, in the plane's own coordinates: lower triangular, shape ``(2, 2)``, Å.
    stacking
        The third vector: two fractions of the lateral ones, and the height in Å, shape ``(3,)``.
    """

    atoms: Atoms
    basis: np.ndarray
    repeats: tuple[int, int]
    lateral: Floats
    stacking: Floats

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the repeated cell."""
        return len(self.atoms) * self.repeats[0] * self.repeats[1]

    def sites(self) -> tuple[np.ndarray, Floats]:
        """Return indices of the atoms in the repeated cell, and their positions in fractions of its vectors."""
        scaled = self.atoms.get_scaled_positions() @ np.linalg.inv(self.basis)
        shifts = np.array([(i, j, 0) for i, j in product(*map(range, self.repeats))])
        inside = (scaled[None] + shifts[:, None]).reshape(-1, 3) / (*self.repeats, 1)
        return np.tile(np.arange(len(self.atoms)), len(shifts)), inside % 1.0


def block(atoms: Atoms, basis: np.ndarray, repeats: tuple[int, int] = (1, 1)) -> Block:
    """Turn a crystal so that the first two vectors of a basis lie in the plane."""
    vectors = (basis @ atoms.cell.array) * np.array([[repeats[0]], [repeats[1]], [1]])
    lower = np.linalg.cholesky(vectors @ vectors.T)
    sideways = np.linalg.solve(lower[:2, :2].T, lower[2, :2])
    return Block(atoms, basis, repeats, lower[:2, :2], np.array([*sideways, lower[2, 2]]))


def face(atoms: Atoms, plane: tuple[int, int, int]) -> np.ndarray:
    """Shortest basis of the lattice with two vectors in a plane, shape ``(3, 3)``; the cell must be reduced."""
    inside, outside = (_steps(plane, level) for level in (0, 1))
    inside = inside[np.argsort(np.linalg.norm(inside @ atoms.cell.array, axis=1).round(6), kind="stable")]
    first = inside[0]
    second = inside[np.cross(first, inside).any(axis=1).argmax()]
    third = outside[np.linalg.norm(outside @ atoms.cell.array, axis=1).round(6).argmin()]
    basis = np.array([first, second, third])
    if np.linalg.det(basis) < 0:
        basis[1] *= -1
    return basis


def axis_face(plane: tuple[int, int, int]) -> np.ndarray:
    """Return the basis whose third vector is one axis of the cell and whose first two are the others."""
    return np.roll(np.eye(3, dtype=int), 2 - int(np.argmax(plane)), axis=0)


@dataclass(frozen=True, eq=False)
class Slab:
    """Part of a block: ``thickness`` (in repeats of the block, more than one is allowed) around ``centre``."""

    block: Block
    centre: float
    thickness: float

    def depths(self) -> tuple[np.ndarray, Floats, Floats]:
        """List the atoms in the slab and near its faces.

        Returns
        -------
        tuple
            Indices of atoms, shape ``(n,)``; positions in fractions of the lateral vectors and Å above the centre,
            shape ``(n, 3)``; how far outside the slab each is in Å, negative inside, shape ``(n,)``.
        """
        indices, scaled = self.block.sites()
        sideways, height = self.block.stacking[:2], self.block.stacking[2]
        reach = self.thickness / 2 + MARGIN / height
        steps = np.arange(np.floor(-reach - 1), np.ceil(reach + 1) + 1)
        above = (scaled[:, 2] - self.centre)[:, None] + steps
        atom, step = np.nonzero(np.abs(above) <= reach)
        above = above[atom, step]
        positions = np.column_stack([scaled[atom, :2] + above[:, None] * sideways, above * height])
        return indices[atom], positions, (np.abs(above) - self.thickness / 2) * height


def stack(
    slabs: Sequence[Slab], contents: dict[str, int], wanted: Floats, rng: np.random.Generator, *, free: bool = True
) -> tuple[Atoms, list[int]] | None:
    """Put slabs on one another so that they fit, with given contents.

    Of each element, the atoms deepest inside their slabs are taken, as many as there have to be: what is too many is
    left out next to the cuts, and what is missing is taken from beyond them, from where it is in the parent. Each slab
    is then shifted sideways on the one below to where atoms are least closer than in the parents.

    Parameters
    ----------
    slabs
        One or two.
    contents
        Atoms of each element.
    wanted
        Distances in Å by atomic numbers that the fit of the slabs is measured by, shape ``(119, 119)``.
    rng
        Source of the shifts that are tried.
    free
        Whether the lateral vectors are blended and the last slab may be shifted against the first of the next cell;
        otherwise the slabs share one cell and so does the child.

    Returns
    -------
    tuple or None
        The crystal, its third vector out of the plane, and how many atoms come from each slab; ``None`` where an
        element would have to be taken from too far beyond the cuts.
    """
    parts = [slab.depths() for slab in slabs]
    chosen = _innermost(slabs, parts, contents)
    if chosen is None:
        return None
    weights = np.array([slab.thickness * slab.block.n_atoms for slab in slabs])
    lateral = np.average([slab.block.lateral for slab in slabs], axis=0, weights=weights)
    rises = [slab.block.stacking * slab.thickness for slab in slabs]
    numbers = [slab.block.atoms.numbers[parts[k][0][chosen[k]]] for k, slab in enumerate(slabs)]
    positions = [parts[k][1][chosen[k]] for k in range(len(slabs))]
    if len(slabs) == 2:
        positions[1] = positions[1] + (rises[0] + rises[1]) / 2
        positions[1][:, :2] += _best_shift(positions, numbers, lateral, wanted, rng, stay=True)
    top = np.sum(rises, axis=0)
    if free:
        whole = len(slabs) == 1 and abs(slabs[0].thickness - round(slabs[0].thickness)) < 1e-6
        layers, kinds = np.vstack(positions), np.concatenate(numbers)
        top[:2] += _best_shift([layers, layers + top], [kinds, kinds], lateral, wanted, rng, stay=not whole)
    to_cartesian = np.zeros((3, 3))
    to_cartesian[:2, :2], to_cartesian[2, 2] = lateral, 1.0
    cell = np.vstack([to_cartesian[:2], top @ to_cartesian])
    child = Atoms(numbers=np.concatenate(numbers), cell=cell, positions=np.vstack(positions) @ to_cartesian, pbc=True)
    pieces = [slab.block.atoms[parts[k][0][chosen[k]]] for k, slab in enumerate(slabs)]
    origin = pieces[0] if len(pieces) == 1 else pieces[0] + pieces[1]
    carry(origin, child, np.arange(len(child)))
    return child, [len(own) for own in chosen]


def _innermost(
    slabs: Sequence[Slab], parts: Sequence[tuple[np.ndarray, Floats, Floats]], contents: dict[str, int]
) -> list[np.ndarray] | None:
    """Of each element, the atoms deepest inside; rows of each part."""
    owner = np.concatenate([np.full(len(part[0]), k) for k, part in enumerate(parts)])
    row = np.concatenate([np.arange(len(part[0])) for part in parts])
    depth = np.concatenate([part[2] for part in parts])
    kinds = np.concatenate([slab.block.atoms.numbers[part[0]] for slab, part in zip(slabs, parts, strict=True)])
    chosen: list[np.ndarray] = []
    for symbol, count in contents.items():
        candidates = np.flatnonzero(kinds == symbols2numbers(symbol)[0])
        if len(candidates) < count:
            return None
        chosen.append(candidates[np.argsort(depth[candidates], kind="stable")[:count]])
    all_chosen = np.concatenate(chosen)
    return [np.sort(row[all_chosen[owner[all_chosen] == k]]) for k in range(len(slabs))]


def _best_shift(
    positions: Sequence[Floats],
    numbers: Sequence[np.ndarray],
    lateral: Floats,
    wanted: Floats,
    rng: np.random.Generator,
    *,
    stay: bool,
) -> Floats:
    """Shift of the upper atoms, in fractions of the lateral vectors, at which they fit best on the lower ones.

    With ``stay``, no shift at all is one of those that are tried; otherwise all are a fifth of a vector at least.
    """
    shifts = rng.random((SHIFTS, 2))
    if stay:
        shifts[0] = 0.0
    else:
        shifts[range(SHIFTS), rng.integers(2, size=SHIFTS)] = rng.uniform(0.2, 0.8, SHIFTS)
    apart = positions[1][None] - positions[0][:, None]
    required = wanted[np.ix_(numbers[0], numbers[1])]
    near = np.abs(apart[..., 2]) < required
    if not near.any():
        return np.array(shifts[0])
    apart, required = apart[near], required[near]
    flat = apart[:, None, :2] + shifts
    flat = (flat - np.round(flat))[:, :, None] + _NEIGHBOURS
    squares = ((flat @ lateral) ** 2).sum(axis=-1).min(axis=-1) + apart[:, None, 2] ** 2
    overlap = np.maximum(0.0, 1 - np.sqrt(squares) / required[:, None]) ** 2
    return np.array(shifts[overlap.sum(axis=0).argmin()])


_NEIGHBOURS: Floats = np.array(list(product((-1, 0, 1), repeat=2)), dtype=float)


@cache
def _steps(plane: tuple[int, int, int], level: int) -> np.ndarray:
    """Small lattice vectors in the plane (level 0) or one layer above it (level 1)."""
    steps = [step for step in product(range(-2, 3), repeat=3) if any(step) and np.dot(plane, step) == level]
    return np.array(steps)
