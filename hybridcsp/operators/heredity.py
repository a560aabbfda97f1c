"""Combination of slabs of two parents (cut-and-splice)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import Floats, bounded_attempts, length_unit, reduced
from hybridcsp.operators.displacement import local_order
from hybridcsp.operators.splicing import ORIENTATIONS, PLANES, Block, Slab, axis_face, block, face, stack
from hybridcsp.structure.separations import shortest_distances

#: Smallest and largest fraction of the atoms that one parent contributes.
SHARES = (0.25, 0.75)

#: Smallest thickness of a slab, in cube roots of the volume per atom.
THINNEST = 0.5

#: Largest number of repeats of a cell in the plane of the cut.
REPEATS = 4

#: Squared strain over which the probability of a pair of faces decreases by a factor of e.
MISFIT = 0.02


@dataclass(frozen=True)
class Heredity(Operator):
    """Combine a slab of one parent with a slab of the other (cut-and-splice).

    One parent is cut along a random lattice plane. The cut of the other parent is drawn from all planes, repeats and
    orientations, with a probability that decreases exponentially with the squared strain between the two lattices, so
    that parents of different shapes and sizes can be combined. Each parent contributes a random share of the atoms: of
    some slabs at random heights, the one of highest local order. The lateral vectors are averaged with these shares,
    the slabs keep their heights, and the child gets the weighted mean of the parents' volumes per atom.
    :func:`~hybridcsp.operators.splicing.stack` restores the composition; it uses only atoms at their positions in the
    parents.

    In a fixed cell, both parents are cut along the same axis of the cell.

    References
    ----------
    Deaven, Ho, Phys. Rev. Lett. 75, 288 (1995), doi:10.1103/PhysRevLett.75.288; for crystals Oganov, Glass, J. Chem.
    Phys. 124, 244704 (2006), doi:10.1063/1.2210932; local order: Lyakhov, Oganov, Stokes, Zhu, Comput. Phys. Commun.
    184, 1172 (2013), doi:10.1016/j.cpc.2012.12.009.
    """

    name: str = "heredity"
    n_parents: int = 2
    cuts: int = 3

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of two parents, or ``None`` where bounded attempts fail."""
        wanted = shortest_distances(parents)
        orders = [local_order(parent) for parent in parents]
        if problem.cell is None:
            faces = [faces_of(reduced(parent)) for parent in parents]

        own_sizes = {problem.units_of(parent.numbers) for parent in parents}
        sizes = [z for z in problem.units if z in own_sizes] or list(problem.units)

        def splice() -> Atoms | None:
            units = int(rng.choice(sizes))
            contents = problem.contents(units)
            n_atoms = units * problem.atoms_per_unit
            share = rng.uniform(*SHARES)
            first, second = rng.permutation(2)
            if problem.cell is None:
                pair = matching_blocks(faces[first], faces[second], n_atoms, share, rng)
            else:
                pair = _same_cell(parents[first], parents[second], rng)
            if pair is None:
                return None
            shares = (share, 1 - share)
            slabs = [
                ordered_slab(own, part * n_atoms / own.n_atoms, orders[which], self.cuts, rng)
                for own, part, which in zip(pair, shares, (first, second), strict=True)
            ]
            stacked = stack(slabs, contents, wanted, rng, free=problem.cell is None)
            if stacked is None or min(stacked[1]) == 0:
                return None
            child = stacked[0]
            if problem.cell is not None:
                return _in_cell(child, pair[0])
            volume = n_atoms * sum(length_unit(own.atoms) ** 3 * part for own, part in zip(pair, shares, strict=True))
            child.set_cell(child.cell.array * (volume / child.get_volume()) ** (1 / 3), scale_atoms=True)
            return child

        return bounded_attempts(splice, parents, problem)


@dataclass(frozen=True, eq=False)
class Faces:
    """All faces of a reduced crystal: planes, repeats in the plane, and orientations.

    Attributes
    ----------
    atoms
        The crystal.
    bases
        Basis of each plane in terms of the crystal's own vectors, shape ``(n_planes, 3, 3)``.
    lateral
        Lattices in the planes in Å, lower triangular, shape ``(n_planes, n_repeats * n_orientations, 2, 2)``.
    heights
        Thickness of a slab per atom in Å, shape ``(n_planes, n_repeats * n_orientations)``.
    """

    atoms: Atoms
    bases: np.ndarray
    lateral: Floats
    heights: Floats

    def thick(self, n_atoms: float) -> NDArray[np.bool_]:
        """Return for which faces a slab of a number of atoms is thick enough, in the shape of ``heights``."""
        return np.asarray(self.heights * n_atoms >= THINNEST * length_unit(self.atoms))

    def block(self, plane: int, way: int) -> Block:
        """Return the block of one face."""
        repeats, orientation = divmod(way, len(ORIENTATIONS))
        return block(self.atoms, ORIENTATIONS[orientation] @ self.bases[plane], _REPEATS[repeats])


def ordered_slab(own: Block, thickness: float, order: Floats, cuts: int, rng: np.random.Generator) -> Slab:
    """Return the slab of highest local order among ``cuts`` slabs at random heights.

    Parameters
    ----------
    own
        The block.
    thickness
        Thickness in heights of the block.
    order
        Degree of local order of the atoms, shape ``(n_atoms,)``.
    cuts
        Number of slabs that are compared.
    rng
        Random number generator.
    """
    slabs = [Slab(own, rng.random(), thickness) for _ in range(cuts)]

    def order_inside(slab: Slab) -> float:
        atoms, _, depths = slab.depths()
        inside = atoms[depths <= 0]
        return float(order[inside].mean()) if len(inside) else 0.0

    return max(slabs, key=order_inside)


def faces_of(atoms: Atoms) -> Faces:
    """Return all faces of a crystal in its reduced cell."""
    bases = np.array([face(atoms, plane) for plane in PLANES])
    vectors = _WAYS @ (bases[:, :2] @ atoms.cell.array)[:, None]
    lateral = np.linalg.cholesky(vectors @ vectors.transpose(0, 1, 3, 2))
    heights = atoms.get_volume() / len(atoms) / (lateral[..., 0, 0] * lateral[..., 1, 1])
    return Faces(atoms, bases, lateral, heights)


def matching_blocks(
    first: Faces, second: Faces, n_atoms: int, share: float, rng: np.random.Generator
) -> list[Block] | None:
    """Draw a plane of the first parent, and blocks of both parents with similar lattices in the plane."""
    plane = int(rng.integers(len(PLANES)))
    ways = np.flatnonzero(first.thick(share * n_atoms)[plane])
    ways = ways[ways % len(ORIENTATIONS) == 0]  # it is sufficient to rotate the other block
    planes, other_ways = np.nonzero(second.thick((1 - share) * n_atoms))
    if len(ways) == 0 or len(planes) == 0:
        return None
    misfits = _misfits(first.lateral[plane, ways], second.lateral[planes, other_ways])
    chances = np.exp(-(misfits - misfits.min()) / MISFIT).ravel()
    own, other = divmod(int(rng.choice(chances.size, p=chances / chances.sum())), len(planes))
    return [first.block(plane, int(ways[own])), second.block(int(planes[other]), int(other_ways[other]))]


def _same_cell(first: Atoms, second: Atoms, rng: np.random.Generator) -> list[Block]:
    basis = axis_face(((1, 0, 0), (0, 1, 0), (0, 0, 1))[rng.integers(3)])
    return [block(first, basis), block(second, basis)]


def _in_cell(child: Atoms, own: Block) -> Atoms:
    """Return a child whose axes were permuted in the cell of the parent."""
    result = child.copy()
    result.set_cell(own.atoms.cell, scale_atoms=False)
    result.set_scaled_positions(child.get_scaled_positions(wrap=False) @ own.basis)
    return result


def _misfits(first: Floats, second: Floats) -> Floats:
    """Return the sum of (s - 1/s)² over the stretches s between two lattices, for all pairs of lattices."""
    maps = np.linalg.inv(first)[:, None] @ second[None]
    squared, determinant = (maps**2).sum(axis=(2, 3)), np.abs(np.linalg.det(maps))
    return np.asarray(squared + squared / determinant**2 - 4)


_REPEATS = tuple((p, q) for p, q in product(range(1, REPEATS + 1), repeat=2) if p * q <= REPEATS)

# All repeats and rotations of the two vectors of a face, shape (n_repeats * n_orientations, 2, 2).
_WAYS = np.array([np.diag(repeats) @ turn[:2, :2] for repeats in _REPEATS for turn in ORIENTATIONS])
