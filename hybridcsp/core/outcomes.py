"""The record types that packages exchange after a relaxation: evaluations and outcomes of candidates.

They are frozen and hold plain data. Energies are in eV, lengths in Å and pressures in eV/Å³.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.records import RELAX, Candidate, Cost


class FailureReason(StrEnum):
    """Reason for which a relaxation failed."""

    CALCULATOR = "calculator"  # the calculator raised
    WRONG_RESULTS = "wrong-results"  # its results have the wrong form, or it changed the structure
    NON_FINITE = "non-finite"  # energy, forces or stress are not finite
    FORCE_EXPLOSION = "force-explosion"
    OVERLAP = "overlap"  # two atoms nearly coincide
    ISOLATED_ATOMS = "isolated-atoms"
    VOLUME = "volume"  # the volume grew or shrank without limit
    TIME_LIMIT = "time-limit"
    MEMORY_LIMIT = "memory-limit"
    WORKER_DIED = "worker-died"
    REPORTED = "reported"  # reported by the person who relaxed it


class RejectionReason(StrEnum):
    """Reason for which a candidate is not relaxed."""

    INVALID = "invalid"  # not a periodic crystal with finite numbers
    COMPOSITION = "composition"
    CELL = "cell"
    VOLUME = "volume"
    DISTANCE = "distance"
    SPACEGROUP = "spacegroup"
    DUPLICATE = "duplicate"
    NOT_TAKEN = "not-taken"  # passed to another code, which did not relax it
    OTHER_CALCULATOR = "other-calculator"  # its energy is of a calculator that is no longer in use


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Evaluation:
    """The energy of one structure.

    Attributes
    ----------
    level
        Level of the job that ended with it.
    calculator
        Label of the calculator: name, version and parameters. Only evaluations by the same calculator are compared.
    energy, enthalpy
        Energy and enthalpy of the whole cell in eV; they differ by pressure times volume.
    max_force
        Largest force on an atom in eV/Å; ``None`` if the calculator gave no forces.
    max_stress_residual
        Largest component of ``|stress + pressure|`` in eV/Å³; ``None`` if the calculator gave no stress.
    magmoms
        Magnetic moments from the calculator in μ_B, shape ``(n_atoms,)``.
    """

    level: str
    calculator: str
    energy: float
    enthalpy: float
    max_force: float | None
    max_stress_residual: float | None
    magmoms: NDArray[Any] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Outcome:
    candidate: Candidate
    sequence: int = 0  # 0 until the archive has numbered it
    cost: Cost = field(default_factory=Cost)
    detail: str = ""
    #: Enthalpies per atom (eV) of ``candidate.starts`` at the level "lowest", ``None`` for skipped structures; at the
    #: level "follow-up" that of the one structure that it started from. Empty at other levels, and if the job ended
    #: before they were evaluated.
    start_enthalpies: tuple[float | None, ...] = ()
    #: Estimates of the enthalpies per atom (eV) that ``candidate.starts`` relax to, at the level "lowest"; ``None`` for
    #: skipped structures. Empty if there are none; earlier versions chose by ``start_enthalpies``.
    start_estimates: tuple[float | None, ...] = ()

    @property
    def starting_structures(self) -> list[Atoms]:
        """Structure that its relaxation started from, or all possible ones if it is not known which."""
        chosen, starts = self.chosen, self.candidate.starts
        return starts if chosen is None else [starts[chosen]]

    @property
    def chosen(self) -> int | None:
        """Index in ``candidate.starts`` of the structure of lowest estimate, which was relaxed; ``None`` if unknown."""
        estimates = self.start_estimates or self.start_enthalpies
        known = [(estimate, n) for n, estimate in enumerate(estimates) if estimate is not None]
        return min(known)[1] if known else None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Relaxed(_Outcome):
    """A relaxation that ended in a structure.

    Attributes
    ----------
    atoms, evaluation
        Relaxed structure and its energy.
    converged
        Whether the relaxation met its convergence criterion.
    minimum
        Id of the minimum that it ended in, which the archive assigns; ``None`` if it did not converge.
    is_new_minimum
        Whether no earlier relaxation had ended in that minimum, as the archive determines.
    niche
        Id of the first minimum of the niche of ``minimum``: minima that teach the same, because they differ in the
        spacing of their layers or in small distortions only. ``None`` if there is no minimum, or if it was recorded by
        a version that had no niches.
    suspect
        Whether the minimum is probably a hole of the potential and not a crystal.
    suspects
        Ids of all suspect minima from this relaxation on; ``None`` if it has changed nothing.
    captured_by
        Id of the known minimum in whose basin the relaxation was ended early; ``None`` if it went to its end.
    objectives
        Values of the objectives of the search by name, without those that could not be computed. Empty unless the
        relaxation converged and went to its end.
    objective_failures
        Reasons for which values are missing, by objective.
    """

    atoms: Atoms
    evaluation: Evaluation
    converged: bool
    minimum: int | None = None
    is_new_minimum: bool = False
    niche: int | None = None
    suspect: bool = False
    suspects: tuple[int, ...] | None = None
    captured_by: int | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    objective_failures: Mapping[str, str] = field(default_factory=dict)

    def suspects_after(self, before: frozenset[int]) -> frozenset[int]:
        """Return the ids of the suspect minima after this relaxation, given those before it."""
        suspects = before if self.suspects is None else frozenset(self.suspects)
        return suspects | {self.minimum} if self.suspect and self.minimum is not None else suspects

    @property
    def is_new_niche(self) -> bool:
        """Whether the relaxation was the first to reach its minimum, and this minimum is the first of its niche."""
        return self.is_new_minimum and self.niche in (None, self.minimum)

    @property
    def level(self) -> str:
        """Level of the job."""
        return self.evaluation.level

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy in eV/atom."""
        return self.evaluation.enthalpy / len(self.atoms)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Failed(_Outcome):
    """A job that failed.

    Attributes
    ----------
    reason
        Reason of the failure.
    level
        Level of the job.
    atoms
        Last known structure; ``None`` if there is none.
    """

    reason: FailureReason
    level: str = RELAX
    atoms: Atoms | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Rejected(_Outcome):
    """A candidate that is not relaxed, with the reason."""

    reason: RejectionReason


Outcome = Relaxed | Failed | Rejected


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FollowUpOutcome:
    """The end of a follow-up relaxation: of a minimum of the search, with a follow-up calculator.

    Attributes
    ----------
    of
        Id of the minimum of the search.
    number
        Number of the follow-up calculator from 1.
    spec
        Name of the follow-up calculator as it was given.
    calculator
        Label of the follow-up calculator; empty if it was not known when the relaxation failed.
    outcome
        The relaxation. Its candidate is that of the best relaxation of the minimum, its ``minimum`` the number of the
        minimum of the follow-up calculator in which it ended.
    """

    of: int
    number: int
    spec: str
    calculator: str
    outcome: Relaxed | Failed
