"""Mapping of one crystal onto another: aligned cells, shifted origins and assigned atoms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.structure.geometry import unimodular_matrices

Floats = NDArray[np.float64]

# All cells are tried whose logarithmic strain (Frobenius norm) exceeds the smallest by less than this ...
_STRAIN_WINDOW = 0.1
# ... up to this number: a cubic lattice alone is mapped onto itself by 24 rotations.
_MAX_CELLS = 48
# Largest number of pairs of atoms that are compared to rank cells and origins.
_MAX_RANKED_PAIRS = 800_000
# Number of the best ranked cells and origins for which the assignment is solved.
_MAX_ASSIGNMENTS = 16
_ITERATIONS = 20

_IMAGES = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)


@dataclass(frozen=True, eq=False, slots=True)
class Match:
    """Deformation of one crystal into another; see :func:`match`.

    Attributes
    ----------
    order
        Index in the second crystal of each atom of the first one, shape ``(n_atoms,)``.
    displacements
        Displacements of the atoms in fractions of the first crystal's cell, shape ``(n_atoms, 3)``, zero on average.
    strain
        Symmetric logarithmic strain in the first crystal's Cartesian frame, shape ``(3, 3)``.
    distance
        Root of the mean squared displacement in Å, including the contribution of the strain.
    """

    order: NDArray[np.int_]
    displacements: Floats
    strain: Floats
    distance: float


def match(structure: Atoms, target: Atoms, *, largest_strain: float = math.inf) -> Match:
    r"""Find the smallest deformation of one crystal into another of the same contents.

    The cell of the target's lattice, the origin, the handedness and the assignment of equal atoms are chosen such that
    the root of the mean squared displacement,

    .. math:: d^2 = \frac{1}{n} \sum_i |\Delta r_i|^2 + \frac{1}{12} \|\epsilon\|^2 V^{2/3},

    is smallest, where :math:`\epsilon` is the logarithmic strain between the cells, and the second term is the mean
    squared displacement of the points of a cell of volume V by the strain. Displacements are measured in the mean of
    both metrics. The assignment has minimum cost (Hungarian method, scipy) under the minimum image convention. It is
    solved for a bounded number of cells and origins, each of which superimposes one pair of atoms; then origin and
    assignment are improved in turn. Copies of one crystal are always recognised; for very different structures the
    result may not be the global minimum.

    Parameters
    ----------
    structure, target
        Crystals of the same numbers of atoms of each element. Neither is changed.
    largest_strain
        Cells with a larger strain (Frobenius norm of the logarithmic strain) are excluded unless there are no others.

    Returns
    -------
    Match
        ``deformed(structure, match.displacements, match.strain)`` is the target, up to a rotation or an inversion.

    Raises
    ------
    InputError
        If the contents differ.
    """
    if not np.array_equal(np.sort(structure.numbers), np.sort(target.numbers)):
        allowed = f"a structure with the same atoms as {structure.get_chemical_formula()}"
        raise InputError("target", target.get_chemical_formula(), allowed)
    cell, basis = minkowski_reduce(structure.cell.array)
    target_cell, target_basis = minkowski_reduce(target.cell.array)
    own = structure.get_scaled_positions(wrap=False) @ np.linalg.inv(basis)
    others = target.get_scaled_positions(wrap=False) @ np.linalg.inv(target_basis)
    like = structure.numbers[:, None] == target.numbers

    bases, strains = _aligned_bases(cell, target_cell, largest_strain)
    length = abs(float(np.linalg.det(cell))) ** (1 / 3)
    strain_costs = (strains * length) ** 2 / 12
    metrics = np.array([(cell @ cell.T + (b @ target_cell) @ (b @ target_cell).T) / 2 for b in bases])
    frames = np.linalg.cholesky(metrics)

    best: tuple[float, int, NDArray[np.int_], Floats] | None = None
    for which, positions, shift in _starts(own, others, like, bases, frames, strain_costs):
        if best is not None and strain_costs[which] >= best[0]:
            continue
        squared, order, differences = _assigned(own, positions, like, frames[which], shift)
        total = squared + strain_costs[which]
        if best is None or total < best[0]:
            best = total, which, order, differences
    assert best is not None
    total, which, order, differences = best
    deformation = np.linalg.solve(cell, bases[which] @ target_cell)
    displacements = (differences - differences.mean(axis=0)) @ basis
    return Match(order, displacements, _half_log(deformation @ deformation.T), math.sqrt(max(0.0, total)))


def deformed(structure: Atoms, displacements: Floats, strain: Floats) -> Atoms:
    """Return a crystal with its atoms moved and its cell strained.

    Parameters
    ----------
    structure
        Crystal; it is not changed.
    displacements
        Displacements of the atoms in fractions of the cell, shape ``(n_atoms, 3)``.
    strain
        Symmetric logarithmic strain in the Cartesian frame, shape ``(3, 3)``: the cell becomes ``cell @ exp(strain)``.
    """
    values, vectors = np.linalg.eigh(strain)
    stretch = (vectors * np.exp(values)) @ vectors.T
    scaled = structure.get_scaled_positions(wrap=False) + displacements
    result = structure.copy()
    result.set_cell(structure.cell.array @ stretch, scale_atoms=False)
    result.set_scaled_positions(scaled)
    return result


def _aligned_bases(cell: Floats, target: Floats, largest_strain: float) -> tuple[Floats, Floats]:
    """Return the bases of the target's lattice closest to the cell, in terms of the target's own, and their strains."""
    bases = _right_handed_bases()
    root = np.linalg.inv(np.linalg.cholesky(cell @ cell.T))
    ratios = np.linalg.eigvalsh(root @ bases @ (target @ target.T) @ bases.transpose(0, 2, 1) @ root.T)
    strains = np.sqrt((np.log(np.maximum(ratios, 1e-12)) ** 2).sum(axis=1)) / 2
    order = np.argsort(strains, kind="stable")[:_MAX_CELLS]
    limit = max(strains[order[0]] + 1e-6, min(strains[order[0]] + _STRAIN_WINDOW, largest_strain))
    kept = order[strains[order] <= limit]
    return bases[kept], strains[kept]


@cache
def _right_handed_bases() -> Floats:
    """Return the unimodular matrices with determinant 1, shape ``(3480, 3, 3)``."""
    matrices = unimodular_matrices()
    return np.asarray(matrices[np.linalg.det(matrices) > 0])


def _starts(
    own: Floats, others: Floats, like: NDArray[np.bool_], bases: Floats, frames: Floats, strain_costs: Floats
) -> list[tuple[int, Floats, Floats]]:
    """Return the best ranked cells and origins: index of the cell, target positions in it, and shift of the origin."""
    pairs = np.argwhere(like)
    rarity = like.sum(axis=1)[pairs[:, 0]]
    most = max(int(rarity.min()), _MAX_RANKED_PAIRS // (2 * len(bases) * like.size))
    anchors, partners = pairs[np.argsort(rarity, kind="stable")[:most]].T
    starts, scores = [], []
    far = np.where(like, 0.0, np.inf)
    for which, basis in enumerate(bases):
        turned = others @ np.linalg.inv(basis)
        for positions in (turned, -turned):
            shifts = own[anchors] - positions[partners]
            differences = positions + shifts[:, None, None] - own[:, None]
            squares = (((differences - np.rint(differences)) @ frames[which]) ** 2).sum(axis=-1) + far
            # Each atom paired with the nearest atom of its element: a lower bound of the cost of any assignment.
            bound = np.maximum(squares.min(axis=2).mean(axis=1), squares.min(axis=1).mean(axis=1))
            starts += [(which, positions, shift) for shift in shifts]
            scores += (bound + strain_costs[which]).tolist()
    return [starts[i] for i in np.argsort(scores, kind="stable")[:_MAX_ASSIGNMENTS]]


def _assigned(
    own: Floats, positions: Floats, like: NDArray[np.bool_], frame: Floats, shift: Floats
) -> tuple[float, NDArray[np.int_], Floats]:
    """Improve assignment and origin in turn.

    Returns
    -------
    tuple
        Mean squared displacement (Å²) about its mean, order of the target's atoms, and displacements in fractions.
    """
    from scipy.optimize import linear_sum_assignment

    rows = np.arange(len(own))
    best = math.inf
    order, differences = rows, own
    for _ in range(_ITERATIONS):
        every = _minimum_images(positions + shift - own[:, None], frame)
        costs = ((every @ frame) ** 2).sum(axis=-1)
        found = linear_sum_assignment(np.where(like, costs, 1e9))[1]
        chosen = every[rows, found]
        mean = chosen.mean(axis=0)
        squared = float((((chosen - mean) @ frame) ** 2).sum(axis=1).mean())
        if squared >= best - 1e-12:
            break
        best, order, differences = squared, found, chosen
        shift = shift - mean
    return best, order, differences


def _minimum_images(differences: Floats, frame: Floats) -> Floats:
    """Return the shortest of the equivalent differences, in fractions of a reduced cell."""
    images = (differences - np.rint(differences))[..., None, :] + _IMAGES
    nearest = ((images @ frame) ** 2).sum(axis=-1).argmin(axis=-1)
    shortest: Floats = np.take_along_axis(images, nearest[..., None, None], axis=-2)[..., 0, :]
    return shortest


def _half_log(squared_stretch: Floats) -> Floats:
    values, vectors = np.linalg.eigh(squared_stretch)
    half: Floats = (vectors * (np.log(values) / 2)) @ vectors.T
    return half
