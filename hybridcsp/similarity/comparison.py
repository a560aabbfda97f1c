"""Tolerances for equal structures, and the exact comparison of two structures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hybridcsp.similarity.fingerprint import Crystal, compute_descriptors
from hybridcsp.structure.conversion import to_pymatgen

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerances:
    r"""Tolerances within which two structures are the same.

    Lengths are in units of the cube root of the volume per atom, 2 to 3 Å in most crystals.

    Attributes
    ----------
    volume
        Largest \|ln(V₁/V₂)\| of the volumes per atom; ``None`` ignores them.
    displacement
        Largest displacement of any atom, ``stol`` of ``StructureMatcher``.
    lattice, angle
        Largest relative difference of lattice vectors and difference of their angles in degrees, ``ltol`` and
        ``angle_tol`` of ``StructureMatcher``, after scaling to the same volume.
    component, fingerprint
        Largest difference of two fingerprints in any component, and the largest root of its mean square.
    environments
        Largest difference of the environments of the atoms, averaged over the atoms.
    certain
        Structures with no larger difference in the environments of any atom are the same without further comparison.
    neighbours
        Largest number of structures with a similar fingerprint that are compared in one query, nearest first.
    exact_comparisons
        Largest number of them that are compared by ``StructureMatcher``.
    """

    volume: float | None
    displacement: float
    lattice: float
    angle: float
    component: float
    fingerprint: float
    environments: float
    certain: float
    neighbours: int
    exact_comparisons: int


#: Energy window in eV/atom for minima that were relaxed to 0.05 eV/Å and 0.3 GPa. Measured with CHGNet on 83 crystals,
#: each relaxed from several distorted starts: with the tolerances below, 86 % of 437 pairs less than 2 meV/atom apart
#: are the same (95 % at 1.7 times the tolerances), and one of 41 pairs 2 to 10 meV/atom apart.
ENERGY_WINDOW = 0.005

#: Tolerances for minima relaxed from different starts.
MINIMA = Tolerances(
    volume=0.06,
    displacement=0.06,
    lattice=0.03,
    angle=2.0,
    component=0.12,
    fingerprint=0.03,
    environments=0.17,
    certain=0.04,
    neighbours=64,
    exact_comparisons=6,
)

#: Tolerances for unrelaxed starts: a small distortion may lead to another minimum, but another scale does not.
STARTS = Tolerances(
    volume=None,
    displacement=0.01,
    lattice=0.005,
    angle=0.5,
    component=0.025,
    fingerprint=0.006,
    environments=0.03,
    certain=0.005,
    neighbours=64,
    exact_comparisons=6,
)


def same_structure(a: Atoms, b: Atoms, tolerances: Tolerances = MINIMA) -> bool:
    """Return whether two structures are the same by pymatgen's ``StructureMatcher`` on their primitive cells.

    Parameters
    ----------
    a, b
        Crystals.
    tolerances
        Tolerances of the comparison.

    Raises
    ------
    InputError
        If either is not a three-dimensional crystal with finite numbers.
    """
    first, second = compute_descriptors(a).crystal, compute_descriptors(b).crystal
    return (
        first.composition == second.composition
        and (tolerances.volume is None or abs(math.log(first.volume / second.volume)) <= tolerances.volume)
        and matches(first, second, tolerances)
    )


def matches(a: Crystal, b: Crystal, tolerances: Tolerances) -> bool:
    """Return whether ``StructureMatcher`` matches two crystals of the same reduced composition and any volumes.

    The result may depend on their order (in 13 of 236 undecided pairs of relaxations); one match is sufficient.
    """
    first, second = (_primitive(crystal, tolerances.displacement) for crystal in (a, b))
    # Noise may prevent one cell from being reduced as far as the other.
    matcher = _matcher(tolerances, supercells=len(first) != len(second))
    return any(matcher.fit(*pair, skip_structure_reduction=True) for pair in ((first, second), (second, first)))


@lru_cache(maxsize=16)
def _matcher(tolerances: Tolerances, *, supercells: bool) -> Any:
    from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher

    return StructureMatcher(
        ltol=tolerances.lattice,
        stol=tolerances.displacement,
        angle_tol=tolerances.angle,
        primitive_cell=False,
        scale=True,
        attempt_supercell=supercells,
        comparator=ElementComparator(),
    )


@lru_cache(maxsize=32)  # one structure is compared with several others in succession
def _primitive(crystal: Crystal, displacement: float) -> Structure:
    """Return the primitive cell under translations that hold within the displacement.

    ``StructureMatcher`` would reduce cells with a fixed tolerance of 0.25 Å, which removes distortions that distinguish
    polymorphs. spglib requires the full symmetry and fails with noise.
    """
    structure = to_pymatgen(Atoms(crystal.numbers, scaled_positions=crystal.positions, cell=crystal.cell, pbc=True))
    if math.gcd(*np.unique(crystal.numbers, return_counts=True)[1].tolist()) == 1:
        return structure
    return structure.get_primitive_structure(tolerance=displacement * crystal.volume ** (1 / 3))
