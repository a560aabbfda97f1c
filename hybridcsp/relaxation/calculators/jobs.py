"""Calculators that know the job for which they compute: they work in a folder of it, in stages, and clean up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from hybridcsp.core.records import Job


class TimeUsedUpError(Exception):
    """A calculation that was ended at the time limit of its job."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """End of a relaxation.

    Attributes
    ----------
    max_force
        Largest force on an atom in eV/Å.
    max_stress
        Largest component of the stress plus the pressure in eV/Å³.
    pressure
        External pressure in eV/Å³.
    fixed_cell
        Whether only the positions are relaxed.
    steps
        Largest number of steps, each of which is one force call.
    """

    max_force: float
    max_stress: float
    pressure: float
    fixed_cell: bool
    steps: int


class OwnRelaxation(ABC):
    """Relaxation by the optimiser of a code itself."""

    @abstractmethod
    def relax(self, atoms: Atoms, target: Target) -> int:
        """Move atoms to a minimum, as far as the number of steps allows, and return the number of steps made.

        The energy, forces and stress of the end are computed afterwards, by a calculation of its own.
        """


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the stages of a relaxation, from coarse to tight.

    Attributes
    ----------
    calculator
        The calculator of the stage.
    max_force
        Largest force on an atom in eV/Å at which the stage ends; ``None`` for four times that of the relaxation.
    own
        The relaxation by the code itself; ``None`` if ASE's optimiser relaxes.
    """

    calculator: Calculator
    max_force: float | None = None
    own: OwnRelaxation | None = None


class JobCalculator(Calculator, ABC):  # type: ignore[misc]
    """An ASE calculator that is told when a job begins and ends.

    Its own energies, forces and stresses are those of the last stage, the only ones that are recorded.
    """

    #: Stages that a relaxation goes through before the last one.
    earlier: Sequence[Stage] = ()

    #: Relaxation of the last stage by the code itself; ``None`` if ASE's optimiser relaxes.
    own: OwnRelaxation | None = None

    @abstractmethod
    def work_in(self, folder: Path | None) -> None:
        """Set the run directory; called once, before the first job. ``None`` stands for a temporary folder."""

    @abstractmethod
    def begin(self, job: Job) -> None:
        """Prepare for a job; called before its first evaluation.

        Raises
        ------
        OSError, HybridCSPError
            If this is not possible, whereupon the job fails.
        """

    @abstractmethod
    def end(self, *, failed: bool) -> None:
        """Clean up after a job, which may have failed; called even if :meth:`begin` has raised an exception."""
