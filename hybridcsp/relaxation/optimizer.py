"""BFGS optimiser and cell filter, derived from those of ASE, for small cells far from a minimum.

Importing ASE's optimisers also imports scipy; therefore this module is imported by the first relaxation only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import UnitCellFilter
from ase.optimize import BFGS
from numpy.typing import NDArray

#: Largest physical curvature in eV/Å²; the stretching of a short bond has about 100.
MAX_CURVATURE = 1000.0


class CellAndPositions(UnitCellFilter):  # type: ignore[misc]
    """Cell filter whose strains and positions have similar curvatures, with forces calculated once per step.

    The cell is multiplied by the square root of the number of atoms, so that the curvature along a strain is that of
    the energy per atom, independent of the size of the cell. The forces are cached, because ASE's optimisers request
    them three times per step.

    Parameters
    ----------
    atoms
        The structure to relax.
    pressure
        External pressure in eV/Å³.
    """

    def __init__(self, atoms: Atoms, pressure: float) -> None:
        super().__init__(atoms, cell_factor=len(atoms) ** 0.5, scalar_pressure=pressure)
        self._cached_forces: NDArray[Any] | None = None

    def set_positions(self, new: NDArray[Any], **kwargs: Any) -> None:
        """Move the atoms and the cell."""
        self._cached_forces = None
        super().set_positions(new, **kwargs)

    def get_forces(self, **kwargs: Any) -> NDArray[Any]:
        """Return the forces on atoms and cell, shape ``(n_atoms + 3, 3)``."""
        if self._cached_forces is None:
            self._cached_forces = super().get_forces(**kwargs)
        return self._cached_forces.copy()


class ResettingBFGS(BFGS):  # type: ignore[misc]
    """BFGS that resets its Hessian when a step implies an unphysical curvature.

    ASE's update divides by the change of the force along the step. Where this is close to zero (in a curved valley, or
    for forces in single precision after a short step), the Hessian gets eigenvalues of 10⁶ eV/Å² and more, which stay:
    all further steps are tiny.
    """

    def update(
        self, pos: NDArray[Any], forces: NDArray[Any], pos0: NDArray[Any] | None, forces0: NDArray[Any] | None
    ) -> None:
        """Update the Hessian with the last step, or reset it."""
        if self.state is not None:
            change = forces - forces0
            if change @ change > MAX_CURVATURE * np.abs((pos - pos0) @ change):
                self.initialize()
        super().update(pos, forces, pos0, forces0)
