"""Make problems with model pair potentials, of which no prior of the package knows anything and which cost little.

    python benchmarks/model_potentials.py                 # list some problems, and the time of one call

The elements of the problems are real, their interactions are not, so that prototypes, generators and tables of
distances that were learned from known crystals are of little use. A problem is drawn from its family by a seed:

- ``binary-lj``: Lennard-Jones potentials of two kinds of atoms with a ratio of sizes of 0.5 to 0.95, non-additive
  distances of unlike atoms, and a depth of their potential of 0.7 to 2.5 times that of like atoms;
- ``ionic``: charges that balance, screened Coulomb interactions by the damped shifted-force method and Born-Landé
  repulsion, with a ratio of radii of 0.45 to 1.2.

Lengths are scaled so that the volume per atom of the best of some orderings of cubic lattices is that which the
package expects of the elements. Odd seeds are for development, even ones for benchmarks that are reported.

References
----------
Mixtures: Kob, Andersen, Phys. Rev. E 51, 4626 (1995), doi:10.1103/PhysRevE.51.4626. Damped shifted forces: Fennell,
Gezelter, J. Chem. Phys. 124, 234104 (2006), doi:10.1063/1.2206581.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from scipy.special import erfc

from hybridcsp import Problem
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import Job
from hybridcsp.objectives import ObjectiveChoice
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.structure.geometry import lattice_vectors

Floats = NDArray[np.float64]

FAMILIES = ("binary-lj", "ionic")

#: Elements of the formulas, which have no influence on the interactions.
NAMES = {"binary-lj": (("Mg", "Zn"), ("Ti", "Al"), ("Zr", "Ni")), "ionic": (("B", "O"), ("Si", "F"), ("Be", "S"))}

#: Numbers of atoms of both elements in a formula unit.
STOICHIOMETRIES = ((1, 1), (1, 2), (2, 1), (1, 3), (2, 3), (3, 2))

#: Cutoffs: of Lennard-Jones potentials in distances of their minima, of Coulomb interactions in Å.
LJ_CUTOFF, COULOMB_CUTOFF = 2.4, 9.0

#: Damping of Coulomb interactions in 1/Å, the product of 1 / (4 pi epsilon_0) and the charges' square in eV Å, and the
#: exponent of Born-Landé repulsion.
DAMPING, COULOMB, BORN = 0.22, 14.399645, 8

#: Depth of the Lennard-Jones potential of like atoms in eV, and geometric mean of the charges of ions.
DEPTH, CHARGE = 0.25, 1.5

#: Number of times that lengths are scaled to the expected volume.
CALIBRATIONS = 4

#: Random orderings of each lattice of which the lowest is scaled.
ORDERINGS = 40


class PairPotential(Calculator):  # type: ignore[misc]  # ASE has no types
    """Base class of pair potentials with energy, forces and stress.

    Parameters
    ----------
    numbers
        Atomic numbers of the two elements.
    cutoff
        Distance in Å beyond which atoms do not interact.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, numbers: tuple[int, int], cutoff: float) -> None:
        super().__init__()
        self.numbers = numbers
        self.cutoff = cutoff

    def pairs(self, kinds: NDArray[np.int_], distances: Floats) -> tuple[Floats, Floats]:
        """Return energies in eV and their derivatives in eV/Å of pairs of kinds 0 (AA), 1 (AB) and 2 (BB)."""
        raise NotImplementedError

    def self_energies(self, kinds: NDArray[np.int_]) -> float:
        """Return the energy in eV of atoms of kinds 0 (A) and 1 (B) with themselves."""
        return 0.0

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Calculate energy, forces and stress."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        cell = self.atoms.cell.array
        kinds = (self.atoms.numbers == self.numbers[1]).astype(int)
        scaled = np.linalg.solve(cell.T, self.atoms.positions.T).T
        vectors = scaled[None, :] - scaled[:, None]
        vectors = (vectors - np.rint(vectors)) @ cell
        vectors = vectors[:, :, None] + lattice_vectors(cell, self.cutoff)
        squares = np.einsum("ijnx,ijnx->ijn", vectors, vectors)
        first, second, image = np.nonzero((squares < self.cutoff**2) & (squares > 1e-12))
        vectors = vectors[first, second, image]
        distances = np.sqrt(squares[first, second, image])
        energies, slopes = self.pairs(kinds[first] + kinds[second], distances)
        pulls = (slopes / distances)[:, None] * vectors
        forces = np.zeros_like(self.atoms.positions)
        np.add.at(forces, first, pulls)
        virial = 0.5 * np.einsum("px,py->xy", pulls, vectors)
        self.results = {
            "energy": float(0.5 * energies.sum()) + self.self_energies(kinds),
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(virial / abs(np.linalg.det(cell))),
        }


class BinaryLennardJones(PairPotential):
    """Lennard-Jones potentials of two elements, shifted so that energies and forces vanish at the cutoff.

    Parameters
    ----------
    numbers
        Atomic numbers of the two elements.
    minima, depths
        Distances (Å) and depths (eV) of the minima of the pairs AA, AB and BB.
    """

    def __init__(self, numbers: tuple[int, int], minima: tuple[float, ...], depths: tuple[float, ...]) -> None:
        super().__init__(numbers, LJ_CUTOFF * max(minima))
        self.minima, self.depths = np.array(minima), np.array(depths)

    def pairs(self, kinds: NDArray[np.int_], distances: Floats) -> tuple[Floats, Floats]:
        """Return energies in eV and their derivatives in eV/Å."""
        minima, depths = self.minima[kinds], self.depths[kinds]
        energies, slopes = _lennard_jones(minima, depths, distances)
        at_cutoff, slope = _lennard_jones(minima, depths, np.full_like(distances, self.cutoff))
        return energies - at_cutoff - (distances - self.cutoff) * slope, slopes - slope


def _lennard_jones(minima: Floats, depths: Floats, distances: Floats) -> tuple[Floats, Floats]:
    sixth = (minima / distances) ** 6
    return depths * (sixth**2 - 2 * sixth), 12 * depths * (sixth - sixth**2) / distances


class Ionic(PairPotential):
    """Damped shifted-force Coulomb interactions and Born-Landé repulsion of two ions.

    Parameters
    ----------
    numbers
        Atomic numbers of the two elements.
    charges
        Charges of the two ions in elementary charges.
    contacts
        Distances in Å at which the attraction of a pair of unlike ions, or the same of like ones, and the repulsion
        balance; of the pairs AA, AB and BB.
    """

    def __init__(self, numbers: tuple[int, int], charges: tuple[float, float], contacts: tuple[float, ...]) -> None:
        super().__init__(numbers, COULOMB_CUTOFF)
        a, b = charges
        self.charges = np.array(charges)
        self.products = COULOMB * np.array([a * a, a * b, b * b])
        self.repulsions = COULOMB * abs(a * b) * np.array(contacts) ** (BORN - 1) / BORN

    def pairs(self, kinds: NDArray[np.int_], distances: Floats) -> tuple[Floats, Floats]:
        """Return energies in eV and their derivatives in eV/Å."""
        cutoff = np.array(self.cutoff)
        screened, slope = screened_coulomb(distances)
        end, end_slope = screened_coulomb(cutoff)
        products, repulsions = self.products[kinds], self.repulsions[kinds]
        energies = products * (screened - end - (distances - cutoff) * end_slope)
        slopes = products * (slope - end_slope)
        born, born_slope = distances**-BORN, -BORN * distances ** -(BORN + 1.0)
        born_end, born_end_slope = cutoff**-BORN, -BORN * cutoff ** -(BORN + 1.0)
        energies += repulsions * (born - born_end - (distances - cutoff) * born_end_slope)
        return energies, slopes + repulsions * (born_slope - born_end_slope)

    def self_energies(self, kinds: NDArray[np.int_]) -> float:
        """Return the energy in eV of the screening charges of the ions."""
        return screening_energy(self.charges[kinds], self.cutoff)


def screening_energy(charges: Floats, cutoff: float) -> float:
    """Return the self-energy in eV of the screening charges of ions with the given charges (elementary charges)."""
    end = math.erfc(DAMPING * cutoff) / (2 * cutoff) + DAMPING / math.sqrt(math.pi)
    return float(-COULOMB * end * (charges**2).sum())


def screened_coulomb(distances: Floats) -> tuple[Floats, Floats]:
    """Return the screened Coulomb interaction of unit charges in 1/Å and its derivative."""
    screened = erfc(DAMPING * distances) / distances
    slope = -screened / distances
    slope -= 2 * DAMPING / math.sqrt(math.pi) * np.exp(-((DAMPING * distances) ** 2)) / distances
    return screened, slope


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A problem and the calculator of its model potential.

    Attributes
    ----------
    name
        Family, seed and number of atoms, such as ``"binary-lj-3-12"``.
    problem
        One primitive cell with exactly these contents.
    calculator
        Calculator, which can be pickled.
    """

    name: str
    problem: Problem
    calculator: PairPotential


class InProcess(Backend):
    """Run each job in this process, and count the processor time in seconds that jobs take."""

    capacity = 1

    def __init__(self, calculator: CalculatorLike, objectives: tuple[ObjectiveChoice, ...] = ()) -> None:
        self.processor_seconds = 0.0
        self._run = Relaxer(calculator=calculator, settings=RelaxationSettings(), objectives=objectives)()
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        """Keep a job."""
        self._jobs.append(job)

    def completed(self, timeout: float | None) -> list[Relaxed | Failed]:
        """Run the oldest job."""
        start = time.process_time()
        done = [self._run(self._jobs.pop(0))] if self._jobs else []
        self.processor_seconds += time.process_time() - start
        return done


def make(family: str, seed: int, atoms: int = 12) -> Model:
    """Draw a model of a family.

    Parameters
    ----------
    family
        ``"binary-lj"`` or ``"ionic"``.
    seed
        Seed, from 0. The same seed has the same stoichiometry and interactions at every size.
    atoms
        Largest number of atoms in the cell; it has as many formula units as fit.
    """
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    amounts = STOICHIOMETRIES[rng.integers(len(STOICHIOMETRIES))]
    names = NAMES[family][rng.integers(len(NAMES[family]))]
    units = max(1, atoms // sum(amounts))
    contents = "".join(f"{name}{amount * units}" for name, amount in zip(names, amounts, strict=True))
    problem = Problem(contents, formula_units=1, max_atoms=max(20, atoms))
    numbers = (atomic_numbers[names[0]], atomic_numbers[names[1]])
    draw = _draw_lennard_jones if family == "binary-lj" else _draw_ionic
    build = draw(numbers, amounts, rng)
    scale = problem.expected_volume_per_atom ** (1 / 3)
    for _ in range(CALIBRATIONS):
        found = _volume_of_lattices(build(scale), numbers, amounts, problem.expected_volume_per_atom)
        scale *= (problem.expected_volume_per_atom / found) ** (1 / 3)
    return Model(name=f"{family}-{seed}-{sum(amounts) * units}", problem=problem, calculator=build(scale))


def _draw_lennard_jones(
    numbers: tuple[int, int], amounts: tuple[int, int], rng: np.random.Generator
) -> Callable[[float], PairPotential]:
    """Return the function from a length in Å to a potential."""
    ratio, excess, attraction = rng.uniform(0.5, 0.95), rng.uniform(0.88, 1.06), rng.uniform(0.7, 2.5)
    sizes = (1.0, ratio) if rng.random() < 0.5 else (ratio, 1.0)
    lengths = (sizes[0], excess * sum(sizes) / 2, sizes[1])
    depths = (DEPTH, attraction * DEPTH, DEPTH)
    return lambda scale: BinaryLennardJones(numbers, tuple(scale * length for length in lengths), depths)


def _draw_ionic(
    numbers: tuple[int, int], amounts: tuple[int, int], rng: np.random.Generator
) -> Callable[[float], PairPotential]:
    """Return the function from a length in Å to a potential."""
    ratio = rng.uniform(0.45, 1.2)
    unit = CHARGE / math.sqrt(amounts[0] * amounts[1])
    charges = (unit * amounts[1], -unit * amounts[0])
    return lambda scale: Ionic(numbers, charges, (scale * ratio, scale * (ratio + 1) / 2, scale))


def _volume_of_lattices(
    calculator: PairPotential, numbers: tuple[int, int], amounts: tuple[int, int], volume: float
) -> float:
    """Return the volume per atom in Å³ of the lowest among random orderings of the cubic lattices."""
    rng = np.random.default_rng(0)
    symbols = np.repeat(numbers, np.array(amounts) * 2)
    best = (math.inf, volume)
    for lattice in ("sc", "bcc", "fcc"):
        crystal = bulk("Cu", lattice, a=1.0, cubic=lattice == "sc").repeat((1, 2, sum(amounts)))
        crystal.set_cell(crystal.cell * (volume * len(crystal) / crystal.get_volume()) ** (1 / 3), scale_atoms=True)
        crystal.calc = calculator
        energies = []
        for _ in range(ORDERINGS):
            crystal.numbers[:] = rng.permutation(symbols)
            energies.append((crystal.get_potential_energy(), crystal.numbers.tolist()))
        crystal.numbers[:] = min(energies)[1]
        for factor in np.geomspace(0.5, 2.0, 60):
            trial = crystal.copy()
            trial.set_cell(crystal.cell * factor, scale_atoms=True)
            trial.calc = calculator
            best = min(best, (trial.get_potential_energy(), trial.get_volume() / len(trial)))
    return best[1]


def main() -> None:
    for family in FAMILIES:
        for seed in range(6):
            model = make(family, seed)
            rng = np.random.default_rng(0)
            symbols = Atoms(model.problem.formula).symbols
            crystal = bulk("Cu", "bcc", a=1.0).repeat((1, 2, len(symbols) // 2))
            crystal.symbols[:] = symbols
            volume = len(symbols) * model.problem.expected_volume_per_atom
            crystal.set_cell(crystal.cell * (volume / crystal.get_volume()) ** (1 / 3), scale_atoms=True)
            crystal.rattle(0.1, rng=rng)
            crystal.calc = model.calculator
            start = time.perf_counter()
            for _ in range(20):
                crystal.rattle(0.001, rng=rng)
                crystal.get_forces()
            seconds = (time.perf_counter() - start) / 20
            forces = abs(crystal.get_forces() - calculate_numerical_forces(crystal, force_consistent=False)).max()
            stress = calculate_numerical_stress(crystal, eps=1e-5, force_consistent=False)
            stress = abs(crystal.get_stress() - stress).max()
            print(
                f"{model.name:16} {model.problem.formula:8} {1000 * seconds:.2f} ms per call; differences from "
                f"numerical derivatives: {forces:.1e} eV/Å, {stress:.1e} eV/Å³"
            )


if __name__ == "__main__":
    main()
