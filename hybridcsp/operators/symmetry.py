"""Mutations that keep all or part of the symmetry of a parent, and symmetrisation of nearly symmetric parents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import Floats, bounded_attempts, finish, length_unit
from hybridcsp.operators.strain import random_strain
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, spglib_cell, symmetry_dataset


@dataclass(frozen=True, eq=False)
class Operations:
    """Symmetry operations x → R x + t in fractional coordinates, and their effect on the atoms.

    Attributes
    ----------
    rotations, translations
        Integer matrices R, shape ``(n, 3, 3)``, and vectors t, shape ``(n, 3)``.
    images
        Index of the atom onto which each operation maps each atom, shape ``(n, n_atoms)``.
    """

    rotations: np.ndarray
    translations: Floats
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.rotations)

    def select(self, chosen: Sequence[int]) -> Operations:
        """Return the operations with the given indices."""
        return Operations(self.rotations[chosen], self.translations[chosen], self.images[chosen])

    def average_positions(self, scaled: Floats) -> Floats:
        """Return the nearest fractional positions that obey all operations, shape ``(n_atoms, 3)``."""
        moved = np.einsum("gab,ib->gia", self.rotations, scaled) + self.translations[:, None]
        mismatch = moved - scaled[self.images]
        return scaled + self._gather(mismatch - np.rint(mismatch))

    def average_displacements(self, scaled: Floats) -> Floats:
        """Return the part of fractional displacements that obeys all operations, shape ``(n_atoms, 3)``."""
        return self._gather(np.einsum("gab,ib->gia", self.rotations, scaled))

    def average_cell(self, cell: Floats) -> Floats:
        """Return the nearest cell whose metric obeys all operations, without a rotation, shape ``(3, 3)``."""
        metric = np.einsum("gba,bc,gcd->ad", self.rotations, cell @ cell.T, self.rotations) / len(self)
        inverse = np.linalg.inv(cell)
        values, vectors = np.linalg.eigh(inverse @ metric @ inverse.T)
        return np.asarray(cell @ (vectors * np.sqrt(values)) @ vectors.T)

    def subgroup(self, generators: Sequence[int]) -> Operations:
        """Return the group that the operations with the given indices generate."""
        members = list(dict.fromkeys(generators))
        for member in members:  # the list grows during the iteration
            for generator in generators:
                product = self._product(generator, member)
                if product not in members:
                    members.append(product)
        return self.select(members)

    def _product(self, first: int, second: int) -> int:
        rotation = self.rotations[first] @ self.rotations[second]
        translation = self.rotations[first] @ self.translations[second] + self.translations[first]
        mismatch = self.translations - translation
        misfit = np.abs(mismatch - np.rint(mismatch)).sum(axis=1) + np.abs(self.rotations - rotation).sum(axis=(1, 2))
        return int(misfit.argmin())

    def _gather(self, moved: Floats) -> Floats:
        result = np.zeros(moved.shape[1:])
        np.add.at(result, self.images, moved)
        return result / len(self)


def operations(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> Operations | None:
    """Return the symmetry operations in the cell of a structure; ``None`` if spglib finds none."""
    cell = spglib_cell(atoms)
    found = symmetry_dataset(cell, symprec)
    if found is None:
        return None
    scaled = cell[1]
    moved = np.einsum("gab,ib->gia", found.rotations, scaled) + found.translations[:, None]
    mismatch = moved[:, :, None] - scaled
    squares = (((mismatch - np.rint(mismatch)) @ atoms.cell.array) ** 2).sum(axis=-1)
    squares[:, atoms.numbers[:, None] != atoms.numbers] = np.inf
    images = squares.argmin(axis=-1)
    if not (np.sort(images, axis=1) == np.arange(len(atoms))).all():
        return None  # the tolerance is too large to distinguish the atoms
    return Operations(np.asarray(found.rotations), np.asarray(found.translations), images)


def symmetrised(atoms: Atoms, symprec: float = SYMPREC_LOOSE) -> tuple[Atoms, Operations] | None:
    """Return the nearest structure that has the symmetry found within a tolerance exactly, and its operations.

    The order of the atoms and the setting of the cell stay the same. More operations may hold in the symmetrised
    structure, so that the symmetrisation is repeated until their number no longer grows. The result is ``None`` if
    spglib finds no operations.
    """
    result, known = atoms.copy(), 0
    while True:
        group = operations(result, symprec)
        if group is None:
            return None
        if len(group) <= known:
            return result, group
        known = len(group)
        result.set_cell(group.average_cell(result.cell.array), scale_atoms=True)
        result.set_scaled_positions(group.average_positions(result.get_scaled_positions(wrap=False)))


def idealised(parent: Atoms, problem: Problem) -> tuple[Atoms, Operations] | None:
    """Return a parent with exact symmetry at the loose tolerance and its operations; unchanged if the cell is fixed."""
    if problem.cell is None:
        return symmetrised(parent)
    group = operations(parent)
    return None if group is None else (parent, group)


@dataclass(frozen=True)
class SymmetricMutation(Operator):
    """Change free Wyckoff coordinates and lattice parameters such that the full symmetry is kept.

    The parent is symmetrised at the loose tolerance. Random displacements and a random strain are averaged over its
    operations, so that only free parameters change. The displacements are then scaled; the largest one is drawn
    uniformly from ``amplitude``, in cube roots of the volume per atom. The volume stays constant. A parent without free
    parameters except its volume has no children.

    References
    ----------
    Symmetry in mutations: Lyakhov, Oganov, Stokes, Zhu, Comput. Phys. Commun. 184, 1172 (2013),
    doi:10.1016/j.cpc.2012.12.009; operations from spglib: Togo, Shinohara, Tanaka, Sci. Technol. Adv. Mater. Meth. 4,
    2384822 (2024), doi:10.1080/27660400.2024.2384822.
    """

    name: str = "symmetric-mutation"
    n_parents: int = 1
    amplitude: tuple[float, float] = (0.1, 0.6)
    deviation: tuple[float, float] = (0.03, 0.25)

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail."""
        ideal = idealised(parents[0], problem)
        if ideal is None:
            return None
        return bounded_attempts(lambda: self.mutated(*ideal, problem, rng), parents, problem)

    def mutated(self, parent: Atoms, group: Operations, problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a mutated parent that keeps a group of its operations; ``None`` if no parameter is free."""
        child = parent.copy()
        old = child.cell.array.copy()
        free = False
        if problem.cell is None:
            cell = group.average_cell(old @ random_strain(rng.uniform(*self.deviation), rng))
            cell *= abs(np.linalg.det(old) / np.linalg.det(cell)) ** (1 / 3)
            free = not np.allclose(cell, old, atol=1e-4)
            child.set_cell(cell, scale_atoms=True)
        noise = rng.normal(size=(len(child), 3)) @ np.linalg.inv(child.cell.array)
        moves = group.average_displacements(noise - noise.mean(axis=0)) @ child.cell.array
        moves -= moves.mean(axis=0)
        largest = float(np.linalg.norm(moves, axis=1).max())
        if largest > 1e-6:
            child.positions += moves * (rng.uniform(*self.amplitude) * length_unit(child) / largest)
            free = True
        return child if free else None


@dataclass(frozen=True)
class SubgroupMutation(Operator):
    """Apply the symmetric mutation under a random subgroup of the parent's operations.

    The subgroup is generated by one or two random operations. Displacements into phases of lower symmetry
    (ferroelectric, tilted, …) keep a subgroup, whereas random displacements break the whole symmetry.

    References
    ----------
    Group-subgroup relations between structures: Bärnighausen, MATCH 9, 139 (1980).
    """

    name: str = "subgroup-mutation"
    n_parents: int = 1
    mutation: SymmetricMutation = SymmetricMutation(amplitude=(0.15, 0.5), deviation=(0.02, 0.2))

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail or the parent has no symmetry."""
        ideal = idealised(parents[0], problem)
        if ideal is None or len(ideal[1]) < 2:
            return None
        parent, group = ideal

        def mutate() -> Atoms | None:
            chosen = group.subgroup(rng.integers(len(group), size=rng.integers(1, 3)).tolist())
            return None if len(chosen) == len(group) else self.mutation.mutated(parent, chosen, problem, rng)

        return bounded_attempts(mutate, parents, problem)


#: Tolerances in Å for the symmetry of nearly symmetric structures.
TOLERANCES = (0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)


@dataclass(frozen=True)
class Symmetrisation(Operator):
    """Move the atoms and the cell of a nearly symmetric parent to a structure of higher symmetry.

    spglib searches for operations at increasing tolerances, from a random one on. The first tolerance with more
    operations than the parent has at 0.1 Å gives the child; a parent without such a tolerance has no children.

    References
    ----------
    Togo, Shinohara, Tanaka, Sci. Technol. Adv. Mater. Meth. 4, 2384822 (2024), doi:10.1080/27660400.2024.2384822.
    """

    name: str = "symmetrisation"
    n_parents: int = 1

    def applies_to(self, problem: Problem) -> bool:
        """Return whether the cell is free, because it is symmetrised too."""
        return problem.cell is None

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if there is no higher symmetry close to it."""
        (parent,) = parents
        now = operations(parent)
        for symprec in TOLERANCES[rng.integers(len(TOLERANCES)) :]:
            ideal = symmetrised(parent, symprec)
            if ideal is not None and now is not None and len(ideal[1]) > len(now):
                child = finish(ideal[0], problem, parents=parents)
                if child is not None:
                    return child
        return None
