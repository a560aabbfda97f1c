"""The record types that packages exchange: candidates, jobs, evaluations and outcomes.

They are frozen and hold plain data. Energies are in eV, lengths in Å and pressures in eV/Å³.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError

# Levels of a job. Every level that a proposal may have ends in a relaxation; refinements follow a relaxation.
RELAX = "relax"
REFINE = "refine"
EVALUATE = "evaluate"
LOWEST = "lowest"  # evaluates several structures and relaxes the one that promises the lowest enthalpy
FOLLOW_UP = "follow-up"  # relaxes a minimum of the search with another calculator

#: Owner of a candidate, who relaxes it: the workers of the search, or the person who called ``ask``.
WORKERS = "workers"
USER = "user"

#: Source of relaxed structures that a person adds unrequested; they do not count as relaxations of the search.
ADDED = "added"

#: Source of known phases, which a search of a chemical system relaxes first.
REFERENCE = "reference"


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


def is_word(text: str) -> bool:
    """Return whether a text can name a source or operator: a word that no file format reads as a number or boolean."""
    return bool(re.fullmatch(r"[A-Za-z][\w.+/-]+", text)) and text.lower() not in _NOT_WORDS


_NOT_WORDS = ("true", "false", "nan", "inf", "infinity")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of a step of a search: force calls (evaluations of energy and forces) and seconds of wall time."""

    force_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(force_calls=self.force_calls + other.force_calls, seconds=self.seconds + other.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one job.

    Attributes
    ----------
    force_calls
        Largest number of force calls; a relaxation that reaches it ends unconverged.
    seconds
        Wall time in seconds; a worker that exceeds it is stopped, and the job fails.
    memory
        Resident memory of the worker in bytes; a worker that exceeds it is stopped, and the job fails.

    Raises
    ------
    InputError
        If a limit is below its smallest value.
    """

    force_calls: int = 500
    seconds: float = 600.0
    memory: int = 6 * 1024**3

    def __post_init__(self) -> None:
        for name in ("force_calls", "memory"):
            if getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "a whole number from 1")
        if not self.seconds >= 0:
            raise InputError("seconds", self.seconds, "a number of seconds from 0")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Proposal:
    """A structure that a source proposes for relaxation.

    Attributes
    ----------
    atoms
        Structure, periodic in three dimensions.
    operator
        Name of the operator that made it: "random", "heredity", "seed", …
    parents
        Ids of the candidates that it was made from.
    tag
        Plain JSON that the source gets back with the outcome: a particle, a tree path, a model version.
    cost
        Cost of making it.
    level
        Level of the job that it becomes. Steps that need a calculator (a Hessian, an escape by molecular dynamics) are
        part of that job: they run on a worker and their force calls are counted.
    given
        Whether a person supplied the structure; the expected ranges of volumes and distances do not apply to it.
    alternatives
        Further structures of a job of the level "lowest", with the same contents as ``atoms``; the job relaxes the
        structure among all of them that promises the lowest enthalpy. Their atoms are put in the order of ``atoms``.

    Raises
    ------
    InputError
        If the operator is not a word, or alternatives have other contents or another level.
    """

    atoms: Atoms
    operator: str
    parents: tuple[int, ...] = ()
    tag: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()
    level: str = RELAX
    given: bool = False
    alternatives: tuple[Atoms, ...] = ()

    def __post_init__(self) -> None:
        if not is_word(self.operator):
            raise InputError("operator", self.operator, "a word that begins with a letter")
        if self.alternatives:
            if self.level != LOWEST:
                raise InputError("level", self.level, f"the level {LOWEST!r} for a proposal with alternatives")
            ordered = tuple(_in_same_order(atoms, self.atoms) for atoms in self.alternatives)
            object.__setattr__(self, "alternatives", ordered)


def _in_same_order(atoms: Atoms, first: Atoms) -> Atoms:
    """Return the bare structure with its atoms in the order of those of another structure with the same contents."""
    if sorted(atoms.numbers) != sorted(first.numbers):
        raise InputError("alternatives", str(atoms.symbols), f"a structure with the contents of {first.symbols}")
    order = np.empty(len(first), dtype=int)
    order[np.argsort(first.numbers, kind="stable")] = np.argsort(atoms.numbers, kind="stable")
    return Atoms(first.numbers, cell=atoms.cell.array, positions=atoms.positions[order], pbc=True)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Candidate:
    """A proposal with its number in the search; screening may still reject it.

    Attributes
    ----------
    proposal
        The proposal.
    id
        Number of the candidate in the search, from 1.
    source
        Name of the source.
    """

    proposal: Proposal
    id: int
    source: str

    @property
    def atoms(self) -> Atoms:
        """Copy of the proposed structure."""
        return self.proposal.atoms.copy()

    @property
    def starts(self) -> list[Atoms]:
        """Structures one of which its relaxation starts from: more than one only at the level "lowest"."""
        return [self.atoms, *(atoms.copy() for atoms in self.proposal.alternatives)]

    @property
    def operator(self) -> str:
        """Name of the operator that made it."""
        return self.proposal.operator


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class KnownMinimum:
    """A known minimum as a job has it, whose relaxation ends when it falls into the same basin.

    Attributes
    ----------
    id
        Id of the minimum.
    enthalpy_per_atom
        Enthalpy in eV/atom by the calculator of the job.
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``.
    positions
        Cartesian positions in Å, shape ``(n_atoms, 3)``.
    """

    id: int
    enthalpy_per_atom: float
    numbers: NDArray[Any]
    cell: NDArray[Any]
    positions: NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Job:
    """One piece of work for a backend.

    Attributes
    ----------
    candidate
        Candidate that the job belongs to.
    atoms
        Structure to start from.
    level
        Level of the job, which says what is done with the structure.
    limits
        Limits within which it is done.
    calculator
        Number of the calculator: 0 for that of the search, from 1 for follow-up calculators in their order.
    give_up_above
        Enthalpy in eV/atom above which the structure is not relaxed: the job then ends unconverged after one force
        call; ``None`` for no such limit. Only jobs of the level "follow-up" have it.
    known
        Minima of the search by the calculator of the job, in whose basins the relaxation need not go to its end.
    """

    candidate: Candidate
    atoms: Atoms
    level: str = RELAX
    limits: Limits = Limits()
    calculator: int = 0
    give_up_above: float | None = None
    known: tuple[KnownMinimum, ...] = ()


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
    cost: Cost = Cost()
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
