"""Deviation of one crystal from another that should be the same: displacements of the atoms, and strain of the cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridcsp.structure.conversion import to_pymatgen

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, kw_only=True)
class MatchLimits:
    """Limits within which pymatgen's ``StructureMatcher`` finds two crystals the same.

    Attributes
    ----------
    stol
        Largest root mean square displacement, in units of the cube root of the volume per atom.
    ltol, angle_tol
        Largest relative difference of the lengths of lattice vectors, and difference of their angles in degrees.
    """

    stol: float
    ltol: float
    angle_tol: float


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Represent how far a crystal is from the one that it should be.

    Attributes
    ----------
    rms, largest
        Root mean square and largest displacement of the atoms in Å.
    strain
        Largest principal strain of the cell, positive.
    """

    rms: float
    largest: float
    strain: float


def deviation(atoms: Atoms, other: Atoms, limits: MatchLimits) -> Deviation | None:
    """Return how far a crystal is from another, or ``None`` if they are different crystals.

    The volumes are not scaled, and the cells are compared as they are: neither is reduced to a smaller one.

    Parameters
    ----------
    atoms
        A crystal.
    other
        The crystal that should be the same, in any axes, with the same number of atoms.
    limits
        Limits of the comparison.
    """
    if len(atoms) != len(other) or sorted(atoms.numbers) != sorted(other.numbers):
        return None
    first, second = (to_pymatgen(one).get_reduced_structure(reduction_algo="niggli") for one in (atoms, other))
    matcher = _matcher(limits)
    distances = matcher.get_rms_dist(first, second)
    mapping = None if distances is None else matcher.get_transformation(first, second)
    if distances is None or mapping is None:
        return None
    length = (atoms.get_volume() / len(atoms)) ** (1 / 3)
    change = np.linalg.solve(first.lattice.matrix, mapping[0] @ second.lattice.matrix)
    strains = np.linalg.svd(change, compute_uv=False) - 1
    return Deviation(
        rms=float(distances[0]) * length, largest=float(distances[1]) * length, strain=float(np.abs(strains).max())
    )


@lru_cache(maxsize=8)
def _matcher(limits: MatchLimits) -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(
        ltol=limits.ltol, stol=limits.stol, angle_tol=limits.angle_tol, primitive_cell=False, scale=False
    )
