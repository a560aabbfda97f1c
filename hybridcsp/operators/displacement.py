"""Random displacements of atoms: uniform, or larger for atoms in less ordered surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.operators.base import Operator
from hybridcsp.operators.common import Floats, bounded_attempts, length_unit
from hybridcsp.structure.geometry import neighbours


@dataclass(frozen=True)
class Rattle(Operator):
    """Displace all atoms by Gaussian noise.

    The standard deviation is the same for all atoms and directions. It is drawn uniformly from ``deviation``, in cube
    roots of the volume per atom (2 to 3 Å).

    References
    ----------
    Johnston, Dalton Trans. 2003, 4193, doi:10.1039/b305686d.
    """

    name: str = "rattle"
    n_parents: int = 1
    deviation: tuple[float, float] = (0.08, 0.25)

    def applies_to(self, problem: Problem) -> bool:
        """Return whether there is more than one atom."""
        return problem.units[-1] * problem.atoms_per_unit > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail."""
        (parent,) = parents

        def rattle() -> Atoms:
            deviation = rng.uniform(*self.deviation) * length_unit(parent)
            return displaced(parent, rng.normal(0, deviation, (len(parent), 3)))

        return bounded_attempts(rattle, parents, problem)


@dataclass(frozen=True)
class Shake(Operator):
    """Displace all atoms and strain the cell slightly, to leave a possible saddle point.

    A relaxation keeps the symmetry of its start, so that its result may be a minimum only among crystals of that
    symmetry. Displacements of 0.1 to 0.2 Å break the symmetry at the cost of a short relaxation, which leads back to
    the minimum if it is a true one.

    The standard deviation of the displacements is drawn uniformly from ``deviation``, in cube roots of the volume per
    atom (2 to 3 Å); that of the strain components is half of it.

    References
    ----------
    Relax and shake: Pickard, Needs, J. Phys.: Condens. Matter 23, 053201 (2011), doi:10.1088/0953-8984/23/5/053201.
    """

    name: str = "shake"
    n_parents: int = 1
    deviation: tuple[float, float] = (0.04, 0.1)

    def applies_to(self, problem: Problem) -> bool:
        """Return whether there is more than one atom, or a free cell."""
        return problem.cell is None or problem.units[-1] * problem.atoms_per_unit > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail."""
        (parent,) = parents

        def shake() -> Atoms:
            deviation = rng.uniform(*self.deviation)
            child = displaced(parent, rng.normal(0, deviation * length_unit(parent), (len(parent), 3)))
            if problem.cell is None:
                strain = rng.normal(0, deviation / 2, (3, 3))
                child.set_cell(child.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
            return child

        return bounded_attempts(shake, parents, problem)


@dataclass(frozen=True)
class CoordinateMutation(Operator):
    """Displace atoms at random, more strongly in less ordered surroundings.

    The standard deviation decreases linearly with :func:`local_order`, from a value drawn uniformly from ``deviation``
    (in cube roots of the volume per atom) for the atom of lowest order to ``least`` times this value for the atom of
    highest order.

    References
    ----------
    Lyakhov, Oganov, Stokes, Zhu, Comput. Phys. Commun. 184, 1172 (2013), doi:10.1016/j.cpc.2012.12.009.
    """

    name: str = "coordinate-mutation"
    n_parents: int = 1
    deviation: tuple[float, float] = (0.15, 0.4)
    least: float = 0.1

    def applies_to(self, problem: Problem) -> bool:
        """Return whether there is more than one atom."""
        return problem.units[-1] * problem.atoms_per_unit > 1

    def __call__(self, parents: Sequence[Atoms], problem: Problem, rng: np.random.Generator) -> Atoms | None:
        """Return a child of one parent, or ``None`` if all attempts fail."""
        (parent,) = parents
        order = local_order(parent)
        spread = max(float(np.ptp(order)), 1e-9)
        scales = 1 - (1 - self.least) * (order - order.min()) / spread

        def mutate() -> Atoms:
            deviation = rng.uniform(*self.deviation) * length_unit(parent)
            return displaced(parent, rng.normal(0, 1, (len(parent), 3)) * (deviation * scales)[:, None])

        return bounded_attempts(mutate, parents, problem)


def displaced(atoms: Atoms, displacements: Floats) -> Atoms:
    """Return a displaced copy; the displacements in Å, shape ``(n_atoms, 3)``, are used without their mean."""
    result = atoms.copy()
    result.positions += displacements - displacements.mean(axis=0)
    return result


def local_order(atoms: Atoms, cutoff: float = 8.0, smearing: float = 0.15, step: float = 0.1) -> Floats:
    r"""Return the degree of local order of each atom.

    It measures the deviation of the density of each element around an atom from the mean density: with
    :math:`F_{iB}(R) = \sum_{j \in B} \delta(R - R_{ij}) V / (4 \pi R^2 N_B) - 1`, smeared by a Gaussian,

    .. math:: \Pi_i^2 = \sum_B \frac{N_B}{N} \frac{\Delta}{(V/N)^{1/3}} \sum_k F_{iB}(R_k)^2.

    It is high if all distances lie in few sharp shells, as in a simple crystal, and low in a disordered region.

    Parameters
    ----------
    atoms
        The crystal.
    cutoff, smearing, step
        Largest R, standard deviation of the Gaussian, and :math:`\Delta`, all in Å.

    Returns
    -------
    ndarray
        Dimensionless, shape ``(n_atoms,)``.

    References
    ----------
    Oganov, Valle, J. Chem. Phys. 130, 104504 (2009), doi:10.1063/1.3079326.
    """
    radii = np.arange(step, cutoff, step)
    first, second, _, found = neighbours(atoms, cutoff + 3 * smearing)
    shells = np.exp(-((radii - found[:, None]) ** 2) / (2 * smearing**2)) / (smearing * np.sqrt(2 * np.pi))
    shells /= 4 * np.pi * radii**2
    squared = np.zeros(len(atoms))
    for number in np.unique(atoms.numbers):
        of_kind = atoms.numbers[second] == number
        count = int((atoms.numbers == number).sum())
        density = np.zeros((len(atoms), len(radii)))
        np.add.at(density, first[of_kind], shells[of_kind])
        departure = density * atoms.get_volume() / count - 1
        squared += count / len(atoms) * step / length_unit(atoms) * (departure**2).sum(axis=1)
    return np.asarray(np.sqrt(squared))
