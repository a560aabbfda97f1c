"""The bulk modulus by finite strain, with the calculator of the search."""

from __future__ import annotations

import math

from ase import Atoms, units

from hybridcsp.errors import InputError
from hybridcsp.objectives.base import Objective

#: Strain of the cell lengths, which changes the volume by 1.5 %.
STRAIN = 0.005

#: Largest force in eV/Å on the relaxed positions in a strained cell, and number of steps after which that is given up.
MAX_FORCE, STEPS = 0.02, 50


class BulkModulus(Objective):
    r"""Bulk modulus in GPa, :math:`-V\,\mathrm{d}p/\mathrm{d}V`.

    The cell is expanded and compressed by the same small strain in all directions, the positions are relaxed in both
    cells, and the modulus follows from the difference of the pressures. A crystal whose atoms all lie on fixed
    positions takes two force calls, others some ten to forty. The shape of the cell is not relaxed, so that the value
    for a crystal that is not cubic is Voigt's average, an upper bound. It holds at the pressure of the search.

    Parameters
    ----------
    argument
        Not used.
    strain
        Strain of the cell lengths.

    Raises
    ------
    InputError
        If the strain is not between 0 and 0.05.
    """

    unit = "GPa"
    uses_forces = True

    def __init__(self, argument: str | None = None, *, strain: float = STRAIN) -> None:
        super().__init__(argument)
        if not isinstance(strain, int | float) or not 0 < strain <= 0.05:
            raise InputError("objectives.options.strain", strain, "a strain above 0 and at most 0.05, such as 0.005")
        self._strain = float(strain)

    def value(self, atoms: Atoms) -> float:
        """Return the modulus of a relaxed structure."""
        pressures, volumes = [], []
        for factor in (1 - self._strain, 1 + self._strain):
            strained = atoms.copy()
            strained.calc = atoms.calc
            strained.set_cell(atoms.cell.array * factor, scale_atoms=True)
            _relax_positions(strained)
            pressures.append(-float(strained.get_stress()[:3].mean()))
            volumes.append(float(strained.get_volume()))
        modulus = (pressures[0] - pressures[1]) / math.log(volumes[1] / volumes[0])
        return float(modulus / units.GPa)


def _relax_positions(atoms: Atoms) -> None:
    """Relax the positions in a fixed cell.

    Raises
    ------
    ValueError
        If they do not converge.
    """
    from ase.optimize import BFGS

    if not BFGS(atoms, logfile=None).run(fmax=MAX_FORCE, steps=STEPS):
        raise ValueError(f"the positions in a strained cell did not converge in {STEPS} steps")
