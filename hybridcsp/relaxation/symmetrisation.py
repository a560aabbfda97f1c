"""Symmetric structures in place of refined ones that are symmetric within a loose tolerance."""

from __future__ import annotations

from ase import Atoms

from hybridcsp.relaxation.descent import Descent
from hybridcsp.relaxation.guards import GuardedCalculator, JobEnded
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, number_of_operations

#: Largest enthalpy in eV/atom that a symmetric structure may lie above the one that it replaces.
TOLERANCE = 0.0001


def symmetrise(atoms: Atoms, guarded: GuardedCalculator, settings: RelaxationSettings, level: str) -> bool:
    """Replace a refined structure by a symmetric one of the same enthalpy, if there is one; return whether there was.

    A relaxation stops on the slope of a soft valley, where the structure has lost a part of its symmetry. If the
    structure has more symmetry at 0.1 Å than at 0.01 Å, it is symmetrised with the loose tolerance and relaxed again,
    which takes few force calls. If a limit or a guard ends that, or the symmetric structure lies higher, the structure
    stays as it was.

    Parameters
    ----------
    atoms
        Structure at the end of a refinement, which may be moved.
    guarded
        Its calculator.
    settings
        Settings of relaxations.
    level
        Level of the job, which decides how far it is relaxed.
    """
    from ase.spacegroup.symmetrize import refine_symmetry

    before = number_of_operations(atoms)
    if settings.fixed_cell or number_of_operations(atoms, SYMPREC_LOOSE) <= before:
        return False
    end = guarded.evaluated()
    try:
        refine_symmetry(atoms, symprec=SYMPREC_LOOSE)
        arrived = Descent(atoms, guarded, settings, settings.tolerances(level)).run()
    except (JobEnded, ArithmeticError, ValueError, TypeError):  # TypeError: spglib found no symmetry after all
        arrived = False
    enough = arrived and guarded.evaluated().enthalpy_per_atom <= end.enthalpy_per_atom + TOLERANCE
    if enough and number_of_operations(atoms) > before:
        return True
    guarded.return_to(end, atoms)
    return False
