"""The events of a search as typed records, and their JSON on disk.

An event records one step of a search in plain values. Structures are kept apart, in the row of the database that the
event names. The names of kinds and fields on disk are those of every run directory written so far and never change.
When an event is read, unknown fields are ignored, and fields that have a default may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from hybridcsp.archive.follow_up_events import FollowUpFailed, FollowUpRelaxed
from hybridcsp.archive.logged import Logged, OfCandidate, OfComposition
from hybridcsp.core.records import Cost

#: Version of the format of events, which each session records.
FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionOpened(Logged):
    """The beginning of a session: a search that is started or resumed, or an import.

    Attributes
    ----------
    format
        Version of the format of the events that follow.
    settings
        Settings that the events which follow are made with, as plain JSON.
    """

    kind: ClassVar[str] = "opened"
    format: int
    settings: Mapping[str, Any]

    @classmethod
    def from_json(cls, data: Mapping[str, Any], sequence: int = 0, row: int | None = None) -> Self:
        """Return an event from its fields on disk and its place in the log, without settings of earlier versions."""
        settings = data["settings"]
        problem = settings.get("problem")
        if isinstance(problem, dict) and problem.get("dimension") == 3:
            # Earlier versions wrote the dimension of periodicity, which could only be 3.
            problem = {name: value for name, value in problem.items() if name != "dimension"}
            settings = {**settings, "problem": problem}
        return super().from_json({**data, "settings": settings}, sequence, row)


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceCalled(OfComposition):
    """One call of a source.

    Attributes
    ----------
    source
        Name of the source.
    call
        Number of the call of this source, from 0.
    requested
        Number of proposals that were requested.
    owner
        :data:`~hybridcsp.core.records.WORKERS` or :data:`~hybridcsp.core.records.USER`.
    candidates
        Ids of the candidates that the proposals became.
    cost
        Cost of the call.
    error
        Error that the source raised; empty if it raised none.
    """

    kind: ClassVar[str] = "called"
    source: str
    call: int
    requested: int
    owner: str
    candidates: tuple[int, ...]
    cost: Cost
    error: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateProposed(OfCandidate):
    """A proposal that became a candidate; its row holds the proposed structure.

    Attributes
    ----------
    parents
        Ids of the candidates that it was made from.
    tag
        Plain JSON of the source.
    cost
        Cost of making the proposal.
    level
        Level of the job that it becomes.
    owner
        :data:`~hybridcsp.core.records.WORKERS` or :data:`~hybridcsp.core.records.USER`.
    """

    kind: ClassVar[str] = "proposed"
    parents: tuple[int, ...]
    tag: Mapping[str, Any]
    cost: Cost
    level: str
    owner: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateRejected(OfCandidate):
    """A candidate that is not relaxed; its row holds the proposed structure.

    Attributes
    ----------
    reason
        Value of a :class:`~hybridcsp.core.outcomes.RejectionReason`.
    detail
        Explanation of the reason; may be empty.
    """

    kind: ClassVar[str] = "rejected"
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _JobEnded(OfCandidate):
    """The end of a job.

    Attributes
    ----------
    level
        Level of the job.
    cost
        Cost of the job.
    detail
        Explanation of the end; may be empty.
    start_enthalpies
        Enthalpies per atom (eV) of the structures among which the start was chosen; see
        :class:`~hybridcsp.core.outcomes.Relaxed`. Earlier versions did not write them.
    start_estimates
        Estimates of the enthalpies that these relax to, by which the start was chosen; earlier versions wrote none.
    relaxation
        Number of the relaxation from 1, in the order of completion; ``None`` for a job that does not count as one.
    force_calls
        Force calls of the whole search up to and including this job.
    """

    level: str
    cost: Cost
    detail: str
    start_enthalpies: tuple[float | None, ...] = ()
    start_estimates: tuple[float | None, ...] = ()
    relaxation: int | None
    force_calls: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateFailed(_JobEnded):
    """A job that failed; its row holds the last structure that is known.

    Attributes
    ----------
    reason
        Value of a :class:`~hybridcsp.core.outcomes.FailureReason`.
    """

    kind: ClassVar[str] = "failed"
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateRelaxed(_JobEnded):
    """A relaxation that ended in a structure, which its row holds with its energy, forces and stress.

    Attributes
    ----------
    calculator
        Label of the calculator.
    energy, enthalpy
        Energy and enthalpy of the cell in eV.
    enthalpy_per_atom
        Enthalpy in eV/atom.
    max_force
        Largest force on an atom in eV/Å; ``None`` if the calculator gives no forces.
    max_stress_residual
        Largest component of ``|stress + pressure|`` in eV/Å³; ``None`` if the calculator gives no stress.
    converged
        Whether the relaxation met its convergence criterion.
    spacegroup, spacegroup_loose
        Space group numbers at 0.01 Å and at 0.1 Å; ``None`` if they were not determined.
    minimum
        Id of the minimum in which the relaxation ended; ``None`` if it did not converge.
    is_new_minimum
        Whether no earlier relaxation had ended in that minimum.
    absorbed
        Id of the minimum that turned out to be the same as ``minimum`` when it was refined; ``None`` for none.
    niche, suspect, captured_by
        As for :class:`~hybridcsp.core.outcomes.Relaxed`. Earlier versions did not write them.
    suspects
        Ids of all minima of the calculator that are suspect from here on; ``None`` if these are the same as before.
    objectives, objective_failures
        As for :class:`~hybridcsp.core.outcomes.Relaxed`. Earlier versions wrote no values.
    """

    kind: ClassVar[str] = "relaxed"
    calculator: str
    energy: float
    enthalpy: float
    enthalpy_per_atom: float
    max_force: float | None
    max_stress_residual: float | None
    converged: bool
    objectives: Mapping[str, float] = field(default_factory=dict)
    spacegroup: int | None
    spacegroup_loose: int | None
    minimum: int | None
    is_new_minimum: bool
    absorbed: int | None
    niche: int | None = None
    suspect: bool = False
    captured_by: int | None = None
    suspects: tuple[int, ...] | None = None
    objective_failures: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, as they are written to disk; failures of objectives only if there are any.

        Values of objectives are always there, because the first versions cannot read events without them.
        """
        data = super().to_json()
        if not self.objective_failures:
            del data["objective_failures"]
        return data


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelUpdated(OfComposition):
    """A change of the model versions that a source samples from, or an attempt at one.

    Attributes
    ----------
    source
        Name of the source.
    versions
        Versions in use from here on; 0 is the one that the source began with.
    cost
        Cost of the training.
    detail
        Explanation of the change.
    training
        Plain JSON about the training that ended; empty if there was none.
    """

    kind: ClassVar[str] = "adopted"
    source: str
    versions: tuple[int, ...]
    cost: Cost
    detail: str
    training: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunStopped(Logged):
    """The end of a run.

    Attributes
    ----------
    reason
        Reason for which the run ended.
    """

    kind: ClassVar[str] = "stopped"
    reason: str


OutcomeEvent = CandidateRelaxed | CandidateFailed | CandidateRejected
FollowUpEvent = FollowUpRelaxed | FollowUpFailed
Event = SessionOpened | SourceCalled | CandidateProposed | OutcomeEvent | FollowUpEvent | ModelUpdated | RunStopped

_KINDS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        SessionOpened,
        SourceCalled,
        CandidateProposed,
        CandidateRelaxed,
        CandidateFailed,
        CandidateRejected,
        FollowUpRelaxed,
        FollowUpFailed,
        ModelUpdated,
        RunStopped,
    )
}


def event_from_json(kind: str, data: Mapping[str, Any], sequence: int = 0, row: int | None = None) -> Event | None:
    """Return an event from what the log holds, or ``None`` if this version of hybridcsp does not know its kind.

    Raises
    ------
    LookupError, TypeError, ValueError
        If a field is missing, or its value cannot be used.
    """
    event = _KINDS.get(kind)
    return None if event is None else event.from_json(data, sequence, row)
