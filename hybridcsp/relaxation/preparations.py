"""What a job of some levels does before it relaxes, by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ase import Atoms

from hybridcsp.core.records import LOWEST
from hybridcsp.relaxation.displacements import escape, follow_soft_mode
from hybridcsp.relaxation.preselection import begin_with_lowest

#: Each gets the atoms, with their calculator, and the tag of the proposal, and moves the atoms. One that chooses where
#: to begin returns the enthalpies per atom of what it chose from.
PREPARATIONS: Mapping[str, Callable[[Atoms, Mapping[str, Any]], Sequence[float | None] | None]] = {
    "escape": escape,
    "soft": follow_soft_mode,
    LOWEST: begin_with_lowest,
}
