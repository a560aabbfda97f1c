"""Escape from the saddle points at which relaxations of symmetric structures end.

A relaxation keeps the symmetry of its start: it ends in a minimum among crystals of that symmetry, which may be a
saddle point among all crystals. The lowest modes of the Hessian show that, at the price of a few force calls.
"""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.relaxation.descent import Descent
from hybridcsp.relaxation.guards import JobEnded
from hybridcsp.structure.symmetry import number_of_operations

Floats = NDArray[np.float64]

#: Largest enthalpy above the lowest known minimum in eV/atom of an end that is examined. From higher ones the way down
#: takes as many force calls as a new relaxation, and symmetric relaxations are short. Without the limit, a third to a
#: fifth of the random starts of four model potentials were relaxed with the same force calls, and in three of four the
#: best was found later. With it four fifths to all of them were relaxed, and the best was not found sooner.
WINDOW = 0.2

#: Largest number of force calls to find the lowest mode.
CALLS = 10

#: Curvature in eV/Å² below which a mode leads down, and one that is low enough to stop looking for lower ones, which
#: needs a smallest number of force calls.
UNSTABLE, CERTAIN, FEWEST = -0.2, -1.0, 4

#: Largest displacement of an atom in Å, and largest strain, in the finite differences and along the modes.
DIFFERENCE, STRAIN_DIFFERENCE = 0.02, 0.005
PUSH, STRAIN_PUSH = 0.2, 0.02

#: Multiples of the first push that are tried, as long as they lead further down.
FACTORS = (1.0, 2.0, 4.0)

#: Smallest fall in eV/atom for which a symmetric structure is given up.
FALL = 0.0005

#: Largest number of saddle points that one relaxation leaves, each of lower symmetry than the one before.
ROUNDS = 3

#: Tolerance in Å within which an end is symmetric; rounding in a calculator breaks symmetries a little.
SYMMETRY_TOLERANCE = 0.1


def leave_saddles(descent: Descent, seed: int) -> int:
    """Go on from a symmetric end of a descent to a minimum, if it is a saddle point; return how often it was one.

    The lowest mode is found by the method of Lanczos in the space of positions and strains, without translations and
    rotations, and the structure is pushed along all modes found that lead down. The optimiser goes on with what is
    known of the Hessian. If a limit or a guard ends that, the last end stays.

    Measured on the ends of random symmetric crystals of model potentials and EMT: ten calls found the way down from
    saddle points where pushes of 0.05 and 0.1 Å in random directions, with strains of 1 %, came back (they do where the
    unstable mode is soft), and cost less at true minima than these and than a new relaxation of a shaken copy.

    Parameters
    ----------
    descent
        A descent that has converged; its atoms are moved.
    seed
        Seed of the first direction.

    References
    ----------
    Malek, Mousseau, Phys. Rev. E 62, 7723 (2000), doi:10.1103/PhysRevE.62.7723.
    """
    atoms, guarded, rng = descent.atoms, descent.guarded, np.random.default_rng(seed)
    left = 0
    while left < ROUNDS and descent.captured_by is None and number_of_operations(atoms, SYMMETRY_TOLERANCE) > 1:
        end = guarded.evaluated()
        try:
            found = _is_left(descent, rng) and guarded.evaluated().enthalpy_per_atom < end.enthalpy_per_atom - FALL
        except (JobEnded, ArithmeticError, ValueError):  # as in any relaxation; this one has a result already
            found = False
        if not found:
            descent.captured_by = None
            guarded.return_to(end, atoms)
            break
        left += 1
    return left


def _is_left(descent: Descent, rng: np.random.Generator) -> bool:
    """Push a structure along its unstable modes and relax it; return whether there were any and it converged."""
    start = descent.target.get_positions().copy()
    space = _Krylov(descent, rng)
    values, modes = space.modes()
    down = values < UNSTABLE
    if not down.any():
        return False
    signs = rng.choice([-1.0, 1.0], size=int(down.sum()))
    push = modes[:, down] @ (signs * np.sqrt(-values[down]))
    push = push.reshape(start.shape)
    n_atoms = len(descent.atoms)
    push *= _scale(push, n_atoms, PUSH, STRAIN_PUSH)
    descent.hessian = space.improved(descent.hessian)
    lowest, length = math.inf, 0.0
    for factor in FACTORS:  # near the saddle point forces are small, and the descent would end there
        descent.target.set_positions(start + factor * push)
        descent.target.get_forces()
        enthalpy = descent.guarded.evaluated().enthalpy_per_atom
        if enthalpy >= lowest:
            break
        lowest, length = enthalpy, factor
    descent.target.set_positions(start + length * push)
    return descent.run()


def _scale(direction: Floats, n_atoms: int, displacement: float, strain: float) -> float:
    """Return the factor at which a direction has a largest displacement of an atom (Å), or a largest strain."""
    moved = float(np.linalg.norm(direction[:n_atoms], axis=1).max())
    strained = float(np.abs(direction[n_atoms:]).max(initial=0.0)) / math.sqrt(n_atoms)
    return 1 / max(moved / displacement, strained / strain)


class _Krylov:
    """The space that Lanczos' method builds from a random direction, and the Hessian in it.

    Parameters
    ----------
    descent
        A descent at its end, whose target is moved for finite differences of the forces.
    rng
        Random numbers for the first direction.
    """

    def __init__(self, descent: Descent, rng: np.random.Generator) -> None:
        target = descent.target
        start = target.get_positions().copy()
        forces = target.get_forces().copy()
        n_atoms, size = len(descent.atoms), start.size
        rigid = _rigid_motions(n_atoms, start.shape)
        products: list[Floats] = []
        basis: list[Floats] = []
        # One atom in a fixed cell has no other motions.
        self._basis, self._matrix = np.empty((size, 0)), np.empty((0, 0))
        direction = rng.normal(size=size)
        for _ in range(min(CALLS, size - rigid.shape[1])):
            for _ in range(2):  # once more against rounding
                direction -= rigid @ (rigid.T @ direction)
                for known in basis:
                    direction -= known * (known @ direction)
            length = float(np.linalg.norm(direction))
            if length < 1e-6:  # the space is complete
                break
            direction /= length
            step = _scale(direction.reshape(start.shape), n_atoms, DIFFERENCE, STRAIN_DIFFERENCE)
            target.set_positions(start + step * direction.reshape(start.shape))
            product = (forces - target.get_forces()).ravel() / step
            basis.append(direction.copy())
            products.append(product)
            direction = product.copy()
            self._basis = np.array(basis).T
            matrix = self._basis.T @ np.array(products).T
            self._matrix = (matrix + matrix.T) / 2
            if len(basis) >= FEWEST and float(np.linalg.eigvalsh(self._matrix)[0]) < CERTAIN:
                break

    def modes(self) -> tuple[Floats, Floats]:
        """Return curvatures in eV/Å², ascending, and modes as columns, shape ``(n, n_calls)``."""
        values, vectors = np.linalg.eigh(self._matrix)
        return values, self._basis @ vectors

    def improved(self, hessian: Floats | None) -> Floats | None:
        """Return a Hessian with the known part replaced by that of this space."""
        if hessian is None:
            return None
        basis = self._basis
        improved: Floats = hessian + basis @ (self._matrix - basis.T @ hessian @ basis) @ basis.T
        return improved


def _rigid_motions(n_atoms: int, shape: tuple[int, ...]) -> Floats:
    """Return an orthonormal basis of the translations and, if the cell can change, its rotations, as columns."""
    motions = []
    for axis in range(3):
        motion = np.zeros(shape)
        motion[:n_atoms, axis] = 1
        motions.append(motion.ravel())
    if shape[0] > n_atoms:
        for first, second in ((0, 1), (0, 2), (1, 2)):
            motion = np.zeros(shape)
            motion[n_atoms + first, second], motion[n_atoms + second, first] = 1, -1
            motions.append(motion.ravel())
    basis: Floats = np.linalg.qr(np.array(motions).T)[0]
    return basis


def is_symmetric(atoms: Atoms) -> bool:
    """Return whether a structure has any symmetry, so that a relaxation from it may end at a saddle point."""
    return number_of_operations(atoms) > 1
