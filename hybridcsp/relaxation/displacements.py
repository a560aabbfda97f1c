"""Displacements out of a minimum before a relaxation: by molecular dynamics, or along a soft mode."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.relaxation.minimum_images import minimum_image_distances
from hybridcsp.structure.vibrations import internal_modes

# Time step in fs for atoms of 16 u; it is proportional to the square root of the smallest mass.
_TIME_STEP = 2.0

# Displacement of the finite differences in Å.
_DIFFERENCE = 0.01

#: Largest displacement along a soft mode in cube roots of the volume per atom, the factor by which it is reduced while
#: atoms are too close, and the smallest distance in sums of covalent radii.
AMPLITUDE, SHRINKAGE, SEPARATION = 0.6, 0.9, 0.7


def escape(atoms: Atoms, *, temperature: float = 1000.0, seed: int = 0, maxima: int = 3, steps: int = 100) -> None:
    """Leave a minimum by a short molecular dynamics run at constant energy and constant cell.

    The velocities are drawn from the Maxwell-Boltzmann distribution. The run ends after a number of maxima of the
    potential energy, so that it has crossed barriers that the kinetic energy allows, or after a number of steps.

    Parameters
    ----------
    atoms
        Structure with a calculator; its positions are changed.
    temperature
        Initial temperature in K.
    seed
        Seed of the random velocities.
    maxima
        Number of maxima of the potential energy after which the run ends.
    steps
        Largest number of steps.

    References
    ----------
    Minima hopping: Goedecker, J. Chem. Phys. 120, 9911 (2004), doi:10.1063/1.1724816; for crystals: Amsler, Goedecker,
    J. Chem. Phys. 133, 224104 (2010), doi:10.1063/1.3512900. In the latter the cell moves during the dynamics too, and
    the velocities are first aligned with soft directions; here the cell moves only in the relaxation that follows.
    """
    if len(atoms) < 2:  # it cannot move relative to others
        return
    from ase.md.velocitydistribution import Stationary, thermalize_momenta
    from ase.md.verlet import VelocityVerlet

    thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(seed))
    Stationary(atoms)
    time_step = _TIME_STEP * math.sqrt(float(atoms.get_masses().min()) / 16)
    dynamics = VelocityVerlet(atoms, timestep=time_step * units.fs)
    energies = [float(atoms.get_potential_energy())]
    passed = 0
    for _ in range(steps):
        dynamics.run(1)
        energies.append(float(atoms.get_potential_energy()))
        passed += len(energies) > 2 and energies[-3] < energies[-2] >= energies[-1]
        if passed >= maxima:
            break
    atoms.set_momenta(None)


def follow_soft_mode(atoms: Atoms, mode: int = 0) -> None:
    """Displace the atoms along a soft mode of the calculator's Hessian.

    The Hessian takes ``3 * (n_atoms - 1) + 1`` force calls: forward differences of the forces, except for the columns
    of one atom, which follow from translational invariance. The amplitude is the largest one up to :data:`AMPLITUDE`
    at which no atoms come too close.

    Parameters
    ----------
    atoms
        Structure with a calculator, near a minimum; its positions are changed.
    mode
        Number of the mode from the softest on, without translations, counted from 0. Numbers beyond the last mode start
        again from the softest, in the opposite direction.

    References
    ----------
    Lyakhov, Oganov, Valle, Comput. Phys. Commun. 181, 1623 (2010), doi:10.1016/j.cpc.2010.06.007.
    """
    if len(atoms) < 2:
        return
    modes = displacement_patterns(finite_difference_hessian(atoms))
    cycle, index = divmod(mode, len(modes))
    direction = modes[index] / np.linalg.norm(modes[index], axis=1).max() * (-1) ** cycle
    start = atoms.positions.copy()
    amplitude = AMPLITUDE * (atoms.get_volume() / len(atoms)) ** (1 / 3)
    smallest = min(SEPARATION, _separation(atoms))
    while True:
        atoms.positions = start + amplitude * direction
        if _separation(atoms) >= smallest or amplitude < _DIFFERENCE:
            return
        amplitude *= SHRINKAGE


def finite_difference_hessian(atoms: Atoms) -> NDArray[np.float64]:
    """Return the second derivatives of the energy at constant cell in eV/Å², shape ``(3 * n_atoms, 3 * n_atoms)``."""
    n = len(atoms)
    start = atoms.positions.copy()
    forces = atoms.get_forces()
    matrix = np.zeros((n, 3, n, 3))
    for i in range(n - 1):
        for axis in range(3):
            atoms.positions[i, axis] += _DIFFERENCE
            matrix[i, axis] = (forces - atoms.get_forces()) / _DIFFERENCE
            atoms.positions = start
    matrix[-1] = -matrix[:-1].sum(axis=0)
    square = matrix.reshape(3 * n, 3 * n)
    return (square + square.T) / 2


def displacement_patterns(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvectors of a Hessian except translations, softest first, shape ``(3 * n - 3, n, 3)``."""
    _, vectors = internal_modes(hessian)
    # The sign of an eigenvector is arbitrary: its largest component is made positive.
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, range(vectors.shape[1])])
    patterns: NDArray[np.float64] = vectors.T.reshape(-1, len(hessian) // 3, 3)
    return patterns


def _separation(atoms: Atoms) -> float:
    """Return the smallest distance as a fraction of the sum of covalent radii."""
    radii = covalent_radii[atoms.numbers]
    return float((minimum_image_distances(atoms.cell.array, atoms.positions) / (radii[:, None] + radii)).min())
