"""Slabs of crystals: cut along a lattice plane, repeated in the plane, and stacked.

Heredity stacks slabs of two parents. The addition or removal of formula units stacks a thicker or thinner slab of one
parent on itself.
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

#: Miller indices of the planes of a cut, in the reduced cell; each also represents the opposite plane.
PLANES = tuple((a, b, c) for a, b, c in product((-1, 0, 1), repeat=3) if (a, b, c) > (0, 0, 0))

#: Largest distance (Å) beyond the cut from which a missing atom is taken.
MARGIN = 1.5

#: Number of sideways shifts that are tried for each slab.
SHIFTS = 16

# Proper rotations of a face that are integer matrices: about its normal, and by 180° about an axis in the plane.
_TURNS = (((1, 0), (0, 1)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)), ((0, -1), (1, 0)))
ORIENTATIONS = tuple(
    np.array([[*turn[0], 0], [*turn[1], 0], [0, 0, 1]]) @ flip
    for flip in (np.eye(3, dtype=int), np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]]))
    for turn in _TURNS
)


@dataclass(frozen=True, eq=False)
class Block:
    """A crystal in the coordinates of one of its lattice planes.

    Attributes
    ----------
    atoms
        The crystal.
    basis
        Two vectors in the plane and one out of it, as integer combinations of the crystal's vectors, shape ``(3, 3)``.
    repeats
        Number of repeats of the first two vectors.
    lateral
        The two repeated vectors in Cartesian coordinates of the plane in Å: lower triangular, shape ``(2, 2)``.
    stacking
        The third vector: two fractions of the lateral vectors, and the height in Å, shape ``(3,)``.
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
        """Return indices of the atoms in the repeated cell, shape ``(n,)``, and fractional positions, ``(n, 3)``."""
        scaled = self.atoms.get_scaled_positions() @ np.linalg.inv(self.basis)
        shifts = np.array([(i, j, 0) for i, j in product(*map(range, self.repeats))])
        inside = (scaled[None] + shifts[:, None]).reshape(-1, 3) / (*self.repeats, 1)
        return np.tile(np.arange(len(self.atoms)), len(shifts)), inside % 1.0


def block(atoms: Atoms, basis: np.ndarray, repeats: tuple[int, int] = (1, 1)) -> Block:
    """Rotate a crystal so that the first two vectors of a basis lie in the plane."""
    vectors = (basis @ atoms.cell.array) * np.array([[repeats[0]], [repeats[1]], [1]])
    lower = np.linalg.cholesky(vectors @ vectors.T)
    sideways = np.linalg.solve(lower[:2, :2].T, lower[2, :2])
    return Block(atoms, basis, repeats, lower[:2, :2], np.array([*sideways, lower[2, 2]]))


def face(atoms: Atoms, plane: tuple[int, int, int]) -> np.ndarray:
    """Return the shortest lattice basis with two vectors in a plane, shape ``(3, 3)``; the cell must be reduced."""
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
    """Return the basis of a plane spanned by two axes; the third vector is the other axis, shape ``(3, 3)``."""
    return np.roll(np.eye(3, dtype=int), 2 - int(np.argmax(plane)), axis=0)


@dataclass(frozen=True, eq=False)
class Slab:
    """A slab of a block.

    Attributes
    ----------
    block
        The block.
    centre
        Height of the centre of the slab, as a fraction of the height of the block.
    thickness
        Thickness in heights of the block; it may exceed 1.
    """

    block: Block
    centre: float
    thickness: float

    def depths(self) -> tuple[np.ndarray, Floats, Floats]:
        """Return the atoms in the slab and near its faces.

        Returns
        -------
        tuple
            Indices of the atoms, shape ``(n,)``; positions, in fractions of the lateral vectors and Å above the centre,
            shape ``(n, 3)``; distances from the slab in Å, negative inside, shape ``(n,)``.
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
    """Stack slabs into a crystal of given contents.

    For each element, the required number of atoms is selected from the innermost atoms of the slabs: superfluous atoms
    are removed next to the cuts, and missing atoms are taken from beyond the cuts, at their positions in the parent.
    Each slab is then shifted sideways such that its atoms overlap least with those of the slab below.

    Parameters
    ----------
    slabs
        One or two slabs.
    contents
        Number of atoms of each element.
    wanted
        Distances in Å by atomic numbers below which atoms overlap, shape ``(119, 119)``.
    rng
        Random number generator for the shifts.
    free
        Whether the lateral vectors are averaged and the last slab may be shifted against the first slab of the next
        cell; otherwise all slabs and the child have the same cell.

    Returns
    -------
    tuple or None
        The crystal, whose third vector points out of the plane, and the number of atoms from each slab; ``None`` if
        there are too few atoms of an element within reach of the cuts.
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
    """Return the rows of each part with the innermost atoms of each element; ``None`` if there are too few."""
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
    """Return the shift of the upper atoms at which they overlap least, as fractions of the lateral vectors.

    With ``stay`` the zero shift is tried too; otherwise all shifts are at least a fifth of a vector.
    """
    shifts = rng.random((SHIFTS, 2))
    if stay:
        shifts[0] = 0.0
    else:
        shifts[range(SHIFTS), rng.integers(2, size=SHIFTS)] = rng.uniform(0.2, 0.8, SHIFTS)
    separations = positions[1][None] - positions[0][:, None]
    required = wanted[np.ix_(numbers[0], numbers[1])]
    near = np.abs(separations[..., 2]) < required
    if not near.any():
        return np.array(shifts[0])
    separations, required = separations[near], required[near]
    flat = separations[:, None, :2] + shifts
    flat = (flat - np.round(flat))[:, :, None] + _NEIGHBOURS
    squares = ((flat @ lateral) ** 2).sum(axis=-1).min(axis=-1) + separations[:, None, 2] ** 2
    overlap = np.maximum(0.0, 1 - np.sqrt(squares) / required[:, None]) ** 2
    return np.array(shifts[overlap.sum(axis=0).argmin()])


_NEIGHBOURS: Floats = np.array(list(product((-1, 0, 1), repeat=2)), dtype=float)


@cache
def _steps(plane: tuple[int, int, int], level: int) -> np.ndarray:
    """Return short lattice vectors in a plane (level 0) or one layer above it (level 1), shape ``(n, 3)``."""
    steps = [step for step in product(range(-2, 3), repeat=3) if any(step) and np.dot(plane, step) == level]
    return np.array(steps)
