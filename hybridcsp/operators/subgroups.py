"""Crystals described in the standard settings of subgroups of their space groups.

Two crystals that have a subgroup of one type in common can be described in the same setting of it, with their symmetry
elements at the same places. What is then taken from either keeps the operations of the subgroup.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.problem import Problem
from hybridcsp.operators.common import CARRIED, Floats
from hybridcsp.operators.displacement import local_order
from hybridcsp.operators.symmetry import Operations, symmetrised
from hybridcsp.structure.geometry import unimodular_matrices
from hybridcsp.structure.normalizer import ENANTIOMORPHS, normalizer_operations
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, primitive, symmetry_dataset
from hybridcsp.structure.wyckoff import polar_axes

#: Largest numbers of operations, and of pairs of them, whose subgroups are considered.
SINGLE, PAIRS = 16, 10

#: Largest number of operations of a crystal whose subgroups are considered; only large cells that are not primitive
#: have more.
MOST_OPERATIONS = 96

#: Squared strain over which the probability of a setting decreases by a factor of e.
MISFIT = 0.05

# Generic points in fractions of a cell, whose images show the operations of a subgroup to spglib.
_GENERIC = ((0.1537, 0.2882, 0.4095), (0.3719, 0.0843, 0.2291), (0.0931, 0.4377, 0.1643))

_PRECISION = 1e-3


@dataclass(frozen=True, eq=False)
class View:
    """A crystal in the standard setting of a subgroup of its space group.

    Attributes
    ----------
    atoms
        The crystal, symmetrised, in its own cell.
    number
        International number of the subgroup.
    metric
        Products of the vectors of the conventional cell in Å², shape ``(3, 3)``.
    positions
        Fractional positions of the atoms in that cell, shape ``(n_atoms, 3)``.
    orbits
        Indices of the atoms of each orbit under the subgroup.
    local_order
        Degree of local order of the atoms, shape ``(n_atoms,)``.
    """

    atoms: Atoms
    number: int
    metric: Floats
    positions: Floats
    orbits: tuple[NDArray[np.int_], ...]
    local_order: Floats


class Subgroups:
    """The subgroups of a crystal's space group, by their numbers.

    They are the group itself, and some of those that one or two operations generate. Subgroups with
    translations within the crystal's cell, and the group of number 1, are left out.

    Parameters
    ----------
    atoms
        The symmetrised crystal.
    group
        Its operations.
    """

    def __init__(self, atoms: Atoms, group: Operations) -> None:
        self._atoms = atoms
        self._group = group

    @property
    def order(self) -> int:
        """Number of operations of the whole group in the cell."""
        return len(self._group)

    @cached_property
    def whole(self) -> View | None:
        """The crystal in the setting of the whole group; ``None`` if its cell is not primitive or has no symmetry."""
        translations = (self._group.rotations == np.eye(3, dtype=int)).all(axis=(1, 2)).sum()
        return self.view(range(self.order)) if translations == 1 and self.order > 1 else None

    @cached_property
    def by_number(self) -> dict[int, list[tuple[int, ...]]]:
        """Members of the subgroups of each space group number, as indices of operations."""
        import spglib

        found: dict[int, list[tuple[int, ...]]] = {}
        for members in self._distinct():
            chosen = self._group.select(list(members))
            kind = spglib.get_spacegroup_type_from_symmetry(
                chosen.rotations, chosen.translations, self._atoms.cell.array, _PRECISION
            )
            if kind is not None and kind.number > 1:
                found.setdefault(int(ENANTIOMORPHS.get(kind.number, kind.number)), []).append(members)
        return found

    def draw_number(self, numbers: Sequence[int], rng: np.random.Generator) -> int:
        """Draw one of several space group numbers in proportion to the square roots of the orders of the subgroups.

        Subgroups of low order are by far the most frequent. With these weights those of high order have their share,
        whose crystals have few free parameters and relax in few steps.
        """
        weights = np.sqrt([len(self.by_number[number][0]) for number in numbers])
        return int(numbers[rng.choice(len(numbers), p=weights / weights.sum())])

    def draw_view(self, number: int, rng: np.random.Generator) -> View | None:
        """Return the crystal in the setting of a random subgroup of a number; ``None`` if spglib fails."""
        kind = self.by_number[number]
        return self.view(kind[rng.integers(len(kind))])

    def view(self, members: Sequence[int]) -> View | None:
        """Return the crystal in the standard setting of a subgroup, or ``None`` if spglib does not recognise it."""
        group = self._group.select(list(members))
        for point in _GENERIC:
            view = _view(self._atoms, group, np.array(point), self._local_order)
            if view is not None:
                return view
        return None

    @cached_property
    def _local_order(self) -> Floats:
        return local_order(self._atoms)

    def _distinct(self) -> list[tuple[int, ...]]:
        group = self._group
        if len(group) > MOST_OPERATIONS:
            return []
        products = _products(group)
        is_translation = (group.rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
        rng = np.random.default_rng(0)  # the choice of subgroups belongs to the crystal, not to a call
        single = rng.permutation(len(group))[:SINGLE, None].tolist()
        pairs = rng.integers(len(group), size=(PAIRS, 2)).tolist()
        generators = [list(range(len(group))), *single, *pairs]
        found = dict.fromkeys(_closure(own, products) for own in generators)
        return [members for members in found if is_translation[list(members)].sum() == 1]


def subgroups_of(parent: Atoms, problem: Problem) -> Subgroups | None:
    """Return the subgroups of a crystal's space group at the loose tolerance; ``None`` if spglib finds no symmetry.

    The crystal is described in its primitive cell if the problem allows its size, or else in its own.
    """
    return _subgroups(_Parent(parent), problem.units, problem.atoms_per_unit)


def subgroups_of_primitive(parent: Atoms) -> Subgroups | None:
    """Return the subgroups of the space group of a crystal in its primitive cell, as :func:`subgroups_of` does."""
    return _subgroups(_Parent(parent), range(1, sys.maxsize), 1)


class _Parent:
    """A crystal as a key: equal to others with the same bytes, because parents have many children."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms.copy()
        arrays = [atoms.numbers, atoms.cell.array, atoms.positions]
        arrays += [atoms.get_array(name) for name in CARRIED if atoms.has(name)]
        self._key = tuple(array.tobytes() for array in arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parent) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=256)
def _subgroups(parent: _Parent, units: Sequence[int], atoms_per_unit: int) -> Subgroups | None:
    small = primitive(parent.atoms, SYMPREC_LOOSE)
    size, rest = divmod(len(small), atoms_per_unit)
    ideal = symmetrised(small if not rest and size in units else parent.atoms)
    return None if ideal is None else Subgroups(*ideal)


def _products(group: Operations) -> NDArray[np.int_]:
    """Return the multiplication table of a group: index of the product of each two operations, shape ``(n, n)``."""
    table = np.empty((len(group), len(group)), dtype=int)
    for index, (rotation, translation) in enumerate(zip(group.rotations, group.translations, strict=True)):
        rotations = rotation @ group.rotations
        translations = group.translations @ rotation.T + translation
        mismatch = translations[:, None] - group.translations
        misfit = np.abs(mismatch - np.rint(mismatch)).sum(axis=-1)
        misfit += np.abs(rotations[:, None] - group.rotations).sum(axis=(-1, -2))
        table[index] = misfit.argmin(axis=1)
    return table


def _closure(generators: Sequence[int], products: NDArray[np.int_]) -> tuple[int, ...]:
    """Return the sorted members of the group that some operations generate."""
    members = set(generators)
    new = members
    while new:
        new = set(products[np.ix_(sorted(new), list(generators))].ravel().tolist()) - members
        members |= new
    return tuple(sorted(members))


def _view(atoms: Atoms, group: Operations, point: Floats, order: Floats) -> View | None:
    """Return a view; the images of a generic point, of an element that does not occur, lower the symmetry to it."""
    from pyxtal.symmetry import pyxtal_hall_numbers

    images = (group.rotations @ point + group.translations) % 1.0
    scaled = np.vstack([atoms.get_scaled_positions(), images])
    numbers = np.concatenate([atoms.numbers, np.zeros(len(images), dtype=int)])
    cell = atoms.cell.array, scaled, numbers
    dataset = symmetry_dataset(cell, _PRECISION)
    if dataset is not None and dataset.number in ENANTIOMORPHS:
        scaled = -scaled
        cell = atoms.cell.array, scaled, numbers
        dataset = symmetry_dataset(cell, _PRECISION)
    if dataset is None or len(dataset.rotations) != len(group):
        return None
    hall = int(pyxtal_hall_numbers[dataset.number - 1])
    if dataset.hall_number != hall:
        dataset = symmetry_dataset(cell, _PRECISION, hall)
        if dataset is None:
            return None
    change = np.asarray(dataset.transformation_matrix)
    vectors = np.linalg.inv(change).T @ atoms.cell.array
    positions = scaled[: len(atoms)] @ change.T + np.asarray(dataset.origin_shift)
    orbits = {tuple(sorted(set(own))) for own in group.images.T.tolist()}
    return View(
        atoms=atoms,
        number=int(dataset.number),
        metric=vectors @ vectors.T,
        positions=positions,
        orbits=tuple(np.array(own) for own in sorted(orbits)),
        local_order=order,
    )


def fitted(view: View, metric: Floats, rng: np.random.Generator) -> View:
    """Return the same view in an equivalent setting whose cell resembles another one.

    The setting is drawn from those that the normaliser of the group makes, with a probability that decreases
    exponentially with the squared strain between the cells at equal volume. Along polar axes, where every origin is
    equivalent, the origin is drawn too.

    Parameters
    ----------
    view
        The view to change.
    metric
        Metric of the other cell in Å², shape ``(3, 3)``.
    rng
        Random number generator.
    """
    rotations, shifts = _settings(view.number)
    inverse = np.linalg.inv(rotations)
    metrics = inverse.transpose(0, 2, 1) @ view.metric @ inverse
    scale = np.cbrt(np.linalg.det(metric) / np.linalg.det(view.metric))
    there = np.einsum("ab,nba->n", np.linalg.inv(metric), metrics) * scale
    back = np.einsum("nab,ba->n", np.linalg.inv(metrics), metric) / scale
    misfits = np.maximum(there + back - 6, 0.0) / 2
    chances = np.exp(-(misfits - misfits.min()) / MISFIT)
    chosen = int(rng.choice(len(chances), p=chances / chances.sum()))
    own = chosen if len(shifts) == len(rotations) else rng.integers(len(shifts))
    shift = shifts[own].copy()
    for axis in polar_axes(view.number):
        shift[axis] += rng.random()
    return replace(view, metric=metrics[chosen], positions=view.positions @ rotations[chosen].T + shift)


@lru_cache(maxsize=256)
def _settings(number: int) -> tuple[Floats, Floats]:
    """Return rotations ``(n, 3, 3)`` and shifts ``(m, 3)``; each belongs to one rotation, or each to all of them."""
    operations = normalizer_operations(number)
    shifts = np.array([operation.shift for operation in operations])
    if number <= 2:  # any other cell of the lattice will do
        return unimodular_matrices(), np.unique(shifts % 1.0, axis=0)
    return np.array([operation.rotation for operation in operations]), shifts
