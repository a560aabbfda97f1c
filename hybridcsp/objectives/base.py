"""The base class of objectives, properties of a relaxed crystal that are one number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError

#: Goals of an objective: the smallest or largest value, or any value, which is then only shown. A number is a goal too:
#: values near it are preferred.
MINIMUM, MAXIMUM, REPORTED = "min", "max", "report"


class Objective(ABC):
    """Base class of objectives.

    An objective is built once in the process that starts the search, where it checks its argument, and once in each
    worker, which computes its value for every structure whose relaxation has converged.

    Parameters
    ----------
    argument
        Text after the colon in ``NAME:ARGUMENT``; ``None`` if there is none. Subclasses may have further keyword
        parameters, the options of the objective. Paths in the argument are absolute if they were relative to an
        existing file.

    Attributes
    ----------
    unit
        Unit of the value, for tables and plots; empty for a number without one.
    digest
        SHA-256 hash of the file that determines the values, so that a resumed search notices another content; empty
        without such a file.
    natural_goal
        Goal if the user gives none: ``"min"``, ``"max"`` or a value; ``None`` if it must be given.
    runs_code
        Whether the argument names code that is executed, which a configuration file may do only with ``--trust``.
    argument_is_path
        Whether the argument is a path, which is relative to the folder of the configuration file.
    uses_forces
        Whether the value needs further evaluations of the calculator, so that it cannot be computed from a finished
        structure alone.
    of_starts
        Whether the value of a structure before its relaxation, without a calculator, is an estimate of that after it:
        samples of generators whose estimate does not meet the condition of a search are relaxed last.

    Raises
    ------
    InputError
        If the argument or an option cannot be used.

    Examples
    --------
    >>> from hybridcsp.objectives.base import Objective
    >>> class AxialRatio(Objective):
    ...     def value(self, atoms):
    ...         a, _, c = atoms.cell.lengths()
    ...         return c / a

    Another package registers it with an entry point of the group ``hybridcsp.objectives``.
    """

    unit: str = ""
    digest: str = ""
    natural_goal: str | float | None = None
    runs_code: ClassVar[bool] = False
    argument_is_path: ClassVar[bool] = False
    uses_forces: ClassVar[bool] = False
    of_starts: ClassVar[bool] = False

    def __init__(self, argument: str | None = None) -> None:
        if argument is not None:
            raise InputError("objective", argument, reason="this objective takes no argument; leave it out")

    @classmethod
    def bounds(cls, problem: Problem, volumes: tuple[float, float]) -> tuple[float, float]:
        """Return the smallest and largest value that relaxed structures can have; by default there are no bounds.

        Called before a search begins, so that a condition which no structure can meet is refused.

        Parameters
        ----------
        problem
            Problem of the search, or of one composition of a chemical system.
        volumes
            Smallest and largest volume in Å³/atom that relaxed structures may have.
        """
        return (-math.inf, math.inf)

    @abstractmethod
    def value(self, atoms: Atoms) -> float:
        """Return the value for a relaxed structure.

        Called in a worker after each relaxation that has converged. If it raises an exception, or returns anything but
        a finite number, the value is missing for this structure, the reason is recorded, and the search goes on.

        Parameters
        ----------
        atoms
            A copy of the structure. Its calculator returns the energy, forces, stress and magnetic moments of the
            relaxation without another evaluation, and evaluates copies of the structure that are strained or displaced;
            these evaluations count as force calls of the search.
        """
