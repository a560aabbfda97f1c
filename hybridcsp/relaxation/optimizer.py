"""ASE's BFGS and cell filter, with what relaxations of small cells from far away need.

Importing ASE's optimisers brings scipy along: this module is loaded by the first relaxation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import UnitCellFilter
from ase.optimize import BFGS
from numpy.typing import NDArray

#: Larger than any curvature between atoms, in eV/Å²: the stretching of a short bond has about 100.
ABSURD_CURVATURE = 1000.0


class CellAndPositions(UnitCellFilter):  # type: ignore[misc]
    """Cell and positions as variables of about the same curvature, and forces worked out once per step.

    With the cell multiplied by the square root of the number of atoms, the curvature along a strain is that of the
    energy per atom, whatever the size of the cell. ASE's optimisers ask for the forces three times per step.

    Parameters
    ----------
    atoms
        What is relaxed.
    pressure
        In eV/Å³.
    """

    def __init__(self, atoms: Atoms, pressure: float) -> None:
        super().__init__(atoms, cell_factor=len(atoms) ** 0.5, scalar_pressure=pressure)
        self._forces: NDArray[Any] | None = None

    def set_positions(self, new: NDArray[Any], **kwargs: Any) -> None:
        """Move the atoms and the cell."""
        self._forces = None
        super().set_positions(new, **kwargs)

    def get_forces(self, **kwargs: Any) -> NDArray[Any]:
        """Return the forces on atoms and cell, shape ``(n_atoms + 3, 3)``."""
        if self._forces is None:
            self._forces = super().get_forces(**kwargs)
        return self._forces.copy()


class ForgetfulBFGS(BFGS):  # type: ignore[misc]
    """BFGS that starts its Hessian afresh when what it has just seen cannot be a curvature.

    ASE's update divides by the change of force along the step. Where that is all but zero (a valley that bends, forces
    in single precision after a short step), the Hessian gets eigenvalues of 10⁶ eV/Å² and more, which stay: from then
    on the relaxation crawls or stands still.
    """

    def update(
        self, pos: NDArray[Any], forces: NDArray[Any], pos0: NDArray[Any] | None, forces0: NDArray[Any] | None
    ) -> None:
        """Add what the last step tells to the Hessian, or forget all."""
        if self.state is not None:
            change = forces - forces0
            if change @ change > ABSURD_CURVATURE * np.abs((pos - pos0) @ change):
                self.initialize()
        super().update(pos, forces, pos0, forces0)
