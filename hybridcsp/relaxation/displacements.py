"""Leaving a minimum before a relaxation: by molecular dynamics, or along a soft mode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.relaxation.guards import nearest_distances

#: Defaults of an escape: temperature in K at the start, maxima of the potential energy to pass, most steps.
TEMPERATURE, MAXIMA, STEPS = 1000.0, 3, 100

# fs, for atoms of 16 amu; others in proportion to the root of the lightest one's mass.
_TIME_STEP = 2.0

# Å: displacements of the finite differences.
_DIFFERENCE = 0.01

#: Largest displacement along a soft mode in cube roots of the volume per atom, the factor by which it shrinks while
#: atoms are too close, and the share of summed covalent radii that they keep.
AMPLITUDE, SHORTER, SEPARATION = 0.6, 0.9, 0.7


def escape(atoms: Atoms, tag: Mapping[str, Any]) -> None:
    """Leave a minimum by a short molecular dynamics run at constant energy and cell.

    Velocities are drawn from the Maxwell-Boltzmann distribution; it ends after as many maxima of the potential energy
    as the tag says, so that barriers were crossed which the kinetic energy allows, or after its number of steps.

    Parameters
    ----------
    atoms
        With a calculator; its positions are changed.
    tag
        ``temperature`` in K, ``seed`` of the velocities, ``maxima``, ``steps``; each has a default.

    References
    ----------
    Minima hopping: Goedecker, J. Chem. Phys. 120, 9911 (2004), doi:10.1063/1.1724816; for crystals: Amsler, Goedecker,
    J. Chem. Phys. 133, 224104 (2010), doi:10.1063/1.3512900, who also let the cell move, which here only the
    relaxation after the escape does, and who turn the velocities to soft directions first.
    """
    from ase.md.velocitydistribution import Stationary, thermalize_momenta
    from ase.md.verlet import VelocityVerlet

    rng = np.random.default_rng(int(tag.get("seed", 0)))
    thermalize_momenta(atoms, temperature_K=float(tag.get("temperature", TEMPERATURE)), rng=rng)
    Stationary(atoms)
    time_step = _TIME_STEP * math.sqrt(float(atoms.get_masses().min()) / 16)
    dynamics = VelocityVerlet(atoms, timestep=time_step * units.fs)
    energies = [float(atoms.get_potential_energy())]
    maxima = 0
    for _ in range(int(tag.get("steps", STEPS))):
        dynamics.run(1)
        energies.append(float(atoms.get_potential_energy()))
        maxima += len(energies) > 2 and energies[-3] < energies[-2] >= energies[-1]
        if maxima >= int(tag.get("maxima", MAXIMA)):
            break
    atoms.set_momenta(None)


def follow_soft_mode(atoms: Atoms, tag: Mapping[str, Any]) -> None:
    """Displace atoms along a soft mode of the calculator's Hessian.

    The Hessian takes ``3 * (n_atoms - 1) + 1`` calls: forward differences of the forces, one atom's columns by
    translational invariance. The amplitude is the largest up to :data:`AMPLITUDE` at which atoms do not come too close.

    Parameters
    ----------
    atoms
        With a calculator; its positions are changed. It should be near a minimum.
    tag
        ``mode``, a number from 0, default 0: the softest first, translations left out; after the last one they begin
        again in the opposite direction.

    References
    ----------
    Lyakhov, Oganov, Valle, Comput. Phys. Commun. 181, 1623 (2010), doi:10.1016/j.cpc.2010.06.007.
    """
    if len(atoms) < 2:
        return
    modes = soft_modes(hessian(atoms))
    turn, mode = divmod(int(tag.get("mode", 0)), len(modes))
    direction = modes[mode] / np.linalg.norm(modes[mode], axis=1).max() * (-1) ** turn
    start = atoms.positions.copy()
    amplitude = AMPLITUDE * (atoms.get_volume() / len(atoms)) ** (1 / 3)
    apart = min(SEPARATION, _separation(atoms))
    while True:
        atoms.positions = start + amplitude * direction
        if _separation(atoms) >= apart or amplitude < _DIFFERENCE:
            return
        amplitude *= SHORTER


def hessian(atoms: Atoms) -> NDArray[np.float64]:
    """Return second derivatives of the energy in eV/Å², shape ``(3 * n_atoms, 3 * n_atoms)``, at constant cell."""
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


def soft_modes(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvectors of a Hessian but for translations, softest first, shape ``(3 * n - 3, n, 3)``."""
    n = len(matrix) // 3
    translations = np.tile(np.eye(3), (n, 1)) / math.sqrt(n)
    # Put on top of the spectrum, from where they are left out.
    lift = 2 * float(np.linalg.norm(matrix)) + 1.0
    vectors = np.linalg.eigh(matrix + lift * translations @ translations.T)[1][:, : 3 * n - 3]
    # The sign that an eigenvector comes with is no choice: make its largest component positive.
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, range(vectors.shape[1])])
    modes: NDArray[np.float64] = vectors.T.reshape(-1, n, 3)
    return modes


def _separation(atoms: Atoms) -> float:
    """Return the shortest distance as a fraction of summed covalent radii."""
    radii = covalent_radii[atoms.numbers]
    return float((nearest_distances(atoms.cell.array, atoms.positions) / (radii[:, None] + radii)).min())
