"""The events of follow-up relaxations, which other calculators do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridcsp.archive.logged import OfCandidate
from hybridcsp.core.records import FOLLOW_UP, Cost


@dataclass(frozen=True, kw_only=True, eq=False)
class _FollowUpEnded(OfCandidate):
    """The end of a follow-up relaxation.

    Its candidate is that of the best relaxation of the minimum. A follow-up relaxation is no relaxation of the search:
    it counts in no tally, and its cost is not part of the search's.

    Attributes
    ----------
    of
        Id of the minimum of the search that was relaxed.
    number
        Number of the follow-up calculator from 1.
    spec
        Name of the follow-up calculator as it was given.
    calculator
        Label of the follow-up calculator; empty if it was not known when the relaxation failed.
    cost
        Cost of the follow-up relaxation.
    detail
        Explanation of the end; may be empty.
    relaxation
        Number of relaxations of the search that had ended before.
    """

    of: int
    number: int
    spec: str
    calculator: str
    cost: Cost
    detail: str
    relaxation: int

    @property
    def level(self) -> str:
        """Level of the job."""
        return FOLLOW_UP


@dataclass(frozen=True, kw_only=True, eq=False)
class FollowUpFailed(_FollowUpEnded):
    """A follow-up relaxation that failed; its row holds the last structure that is known.

    Attributes
    ----------
    reason
        Value of a :class:`~hybridcsp.core.outcomes.FailureReason`.
    """

    kind: ClassVar[str] = "follow-up-failed"
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FollowUpRelaxed(_FollowUpEnded):
    """A follow-up relaxation that ended in a structure, which its row holds with its energy, forces and stress.

    Attributes
    ----------
    energy, enthalpy, enthalpy_per_atom, max_force, max_stress_residual, converged, spacegroup, spacegroup_loose
        As for :class:`CandidateRelaxed`.
    minimum
        Number of the minimum among those of the follow-up calculator, from 1; ``None`` if it did not converge.
    is_new_minimum
        Whether no earlier follow-up relaxation had ended in that minimum.
    same_structure
        Whether the structure is still similar to that of the minimum of the search.
    start_enthalpy
        Enthalpy in eV/atom of the structure that it started from; ``None`` if it was not evaluated first.
    """

    kind: ClassVar[str] = "followed-up"
    energy: float
    enthalpy: float
    enthalpy_per_atom: float
    max_force: float | None
    max_stress_residual: float | None
    converged: bool
    spacegroup: int | None
    spacegroup_loose: int | None
    minimum: int | None
    is_new_minimum: bool
    same_structure: bool
    start_enthalpy: float | None

    @property
    def start_enthalpies(self) -> tuple[float, ...]:
        """``start_enthalpy`` as other relaxations have it; empty if it is ``None``."""
        return () if self.start_enthalpy is None else (self.start_enthalpy,)
