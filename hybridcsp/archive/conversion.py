"""Conversion between the records of a search and the events of its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ase import Atoms

from hybridcsp.archive.events import (
    CandidateFailed,
    CandidateProposed,
    CandidateRejected,
    CandidateRelaxed,
    ModelUpdated,
    OutcomeEvent,
    SourceCalled,
)
from hybridcsp.archive.follow_up_events import FollowUpRelaxed
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.archive.placement import Placement
from hybridcsp.archive.structure_rows import Row
from hybridcsp.core.minimum import keys_of_objectives
from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Outcome, Rejected, RejectionReason, Relaxed
from hybridcsp.core.records import LOWEST, Candidate, Proposal

#: Key under which the tag of an event of the level "lowest" holds the alternatives of a proposal: their cells and
#: Cartesian positions in Å, with the atoms in the order of the proposed structure.
_ALTERNATIVES = "rivals"


def call_event(called: SourceCall) -> SourceCalled:
    """Return the event of a call of a source."""
    return SourceCalled(
        source=called.source,
        call=called.call,
        requested=called.requested,
        owner=called.owner,
        candidates=tuple(candidate.id for candidate in called.candidates),
        cost=called.cost,
        error=called.error,
        formula=called.formula,
    )


def update_event(update: ModelUpdate) -> ModelUpdated:
    """Return the event of a change of a model."""
    return ModelUpdated(
        source=update.source,
        versions=update.versions,
        cost=update.cost,
        detail=update.detail,
        training=update.training,
        formula=update.formula,
    )


def candidate_event(candidate: Candidate, owner: str) -> CandidateProposed:
    """Return the event of a new candidate."""
    proposal = candidate.proposal
    return CandidateProposed(
        candidate=candidate.id,
        source=candidate.source,
        operator=candidate.operator,
        parents=proposal.parents,
        tag=_tag_with_alternatives(proposal),
        cost=proposal.cost,
        level=proposal.level,
        owner=owner,
    )


def _tag_with_alternatives(proposal: Proposal) -> Mapping[str, Any]:
    if not proposal.alternatives:
        return proposal.tag
    found = [
        {"cell": atoms.cell.array.tolist(), "positions": atoms.positions.tolist()} for atoms in proposal.alternatives
    ]
    return {**proposal.tag, _ALTERNATIVES: found}


def rejected_event(outcome: Rejected) -> CandidateRejected:
    """Return the event of a candidate that is not relaxed."""
    candidate = outcome.candidate
    return CandidateRejected(
        candidate=candidate.id,
        source=candidate.source,
        operator=candidate.operator,
        reason=outcome.reason.value,
        detail=outcome.detail,
    )


def failed_event(outcome: Failed, relaxation: int | None, force_calls: int) -> CandidateFailed:
    """Return the event of a job that failed.

    Parameters
    ----------
    outcome
        The failure.
    relaxation
        Its number as a relaxation, from 1 in the order of completion; ``None`` if it does not count as one.
    force_calls
        Force calls of the whole search up to and including this job.
    """
    candidate = outcome.candidate
    return CandidateFailed(
        candidate=candidate.id,
        source=candidate.source,
        operator=candidate.operator,
        level=outcome.level,
        cost=outcome.cost,
        detail=outcome.detail,
        start_enthalpies=outcome.start_enthalpies,
        start_estimates=outcome.start_estimates,
        relaxation=relaxation,
        force_calls=force_calls,
        reason=outcome.reason.value,
    )


def relaxed_event(
    outcome: Relaxed,
    relaxation: int | None,
    force_calls: int,
    spacegroups: tuple[int, int] | None,
    placement: Placement | None,
) -> CandidateRelaxed:
    """Return the event of a relaxation that ended in a structure.

    Parameters
    ----------
    outcome
        The relaxation.
    relaxation, force_calls
        As for :func:`failed_event`.
    spacegroups
        Space group numbers at 0.01 Å and at 0.1 Å; ``None`` if they were not determined.
    placement
        Minimum in which it ended; ``None`` for a relaxation that did not converge.
    """
    candidate, evaluation = outcome.candidate, outcome.evaluation
    strict, loose = spacegroups or (None, None)
    return CandidateRelaxed(
        candidate=candidate.id,
        source=candidate.source,
        operator=candidate.operator,
        level=outcome.level,
        cost=outcome.cost,
        detail=outcome.detail,
        start_enthalpies=outcome.start_enthalpies,
        start_estimates=outcome.start_estimates,
        relaxation=relaxation,
        force_calls=force_calls,
        calculator=evaluation.calculator,
        energy=evaluation.energy,
        enthalpy=evaluation.enthalpy,
        enthalpy_per_atom=outcome.enthalpy_per_atom,
        max_force=evaluation.max_force,
        max_stress_residual=evaluation.max_stress_residual,
        converged=outcome.converged,
        spacegroup=strict,
        spacegroup_loose=loose,
        minimum=placement.minimum if placement else None,
        is_new_minimum=placement.is_new if placement else False,
        absorbed=placement.absorbed if placement else None,
        niche=placement.niche if placement else None,
        captured_by=placement.minimum if placement and outcome.captured_by is not None else None,
        objectives=outcome.objectives,
        objective_failures=outcome.objective_failures,
    )


def candidate_row(candidate: Candidate) -> Row:
    """Return the database row of a proposed structure."""
    return Row(atoms=candidate.proposal.atoms, keys=origin_keys(candidate))


def relaxed_row(outcome: Relaxed, event: CandidateRelaxed) -> Row:
    """Return the database row of a relaxed structure, with the keys by which ``ase db`` selects it."""
    keys = origin_keys(outcome.candidate) | {
        "level": event.level,
        "converged": event.converged,
        "enthalpy_per_atom": event.enthalpy_per_atom,
        "force_calls": event.force_calls,
    }
    optional = {"spacegroup": event.spacegroup, "relaxation": event.relaxation, "minimum": event.minimum}
    keys |= {key: value for key, value in optional.items() if value is not None}
    # ASE allows only ASCII in keys.
    values = keys_of_objectives(event.objectives).items()
    keys |= {key: value for key, value in values if key.isascii()}
    return Row(atoms=outcome.atoms, keys=keys, calculator=database_name(event.calculator))


def database_name(label: str) -> str:
    """Return the name of a calculator as ASE's databases have it, without version and parameters."""
    return label.split(" ")[0].lower()


def failed_row(outcome: Failed) -> Row:
    """Return the database row of the last structure of a failed job."""
    keys = origin_keys(outcome.candidate) | {"level": outcome.level, "reason": outcome.reason.value}
    return Row(atoms=outcome.candidate.proposal.atoms if outcome.atoms is None else outcome.atoms, keys=keys)


def rejected_row(outcome: Rejected) -> Row:
    """Return the database row of a rejected structure."""
    keys = origin_keys(outcome.candidate) | {"reason": outcome.reason.value}
    return Row(atoms=outcome.candidate.proposal.atoms, keys=keys)


def candidate(event: CandidateProposed, atoms: Atoms) -> Candidate:
    """Return the candidate of an event; ``atoms`` is the structure of its row."""
    tag, alternatives = event.tag, ()
    if event.level == LOWEST and _ALTERNATIVES in tag:
        tag = {key: value for key, value in event.tag.items() if key != _ALTERNATIVES}
        alternatives = tuple(
            Atoms(atoms.numbers, cell=found["cell"], positions=found["positions"], pbc=True)
            for found in event.tag[_ALTERNATIVES]
        )
    proposal = Proposal(
        atoms=atoms,
        operator=event.operator,
        parents=event.parents,
        tag=tag,
        cost=event.cost,
        level=event.level,
        alternatives=alternatives,
    )
    return Candidate(proposal=proposal, id=event.candidate, source=event.source)


def relaxed(event: CandidateRelaxed | FollowUpRelaxed, candidate: Candidate, atoms: Atoms) -> Relaxed:
    """Return the relaxation of an event; ``atoms`` is the structure of its row."""
    evaluation = Evaluation(
        level=event.level,
        calculator=event.calculator,
        energy=event.energy,
        enthalpy=event.enthalpy,
        max_force=event.max_force,
        max_stress_residual=event.max_stress_residual,
        magmoms=atoms.calc.results.get("magmoms") if atoms.calc else None,
    )
    return Relaxed(
        candidate=candidate,
        sequence=event.sequence,
        cost=event.cost,
        detail=event.detail,
        start_enthalpies=event.start_enthalpies,
        atoms=atoms,
        evaluation=evaluation,
        converged=event.converged,
        minimum=event.minimum,
        is_new_minimum=event.is_new_minimum,
        **_of_search(event),
    )


def _of_search(event: CandidateRelaxed | FollowUpRelaxed) -> dict[str, Any]:
    """Return the fields of a relaxation that only those of the search have."""
    if isinstance(event, FollowUpRelaxed):
        return {}
    names = ("start_estimates", "niche", "suspect", "suspects", "captured_by", "objectives", "objective_failures")
    return {name: getattr(event, name) for name in names}


def outcome(event: OutcomeEvent, candidate: Candidate, atoms: Atoms) -> Outcome:
    """Return the outcome of an event; ``atoms`` is the structure of its row."""
    match event:
        case CandidateRelaxed():
            return relaxed(event, candidate, atoms)
        case CandidateRejected():
            reason = RejectionReason(event.reason)
            return Rejected(candidate=candidate, sequence=event.sequence, detail=event.detail, reason=reason)
        case CandidateFailed():
            return Failed(
                candidate=candidate,
                sequence=event.sequence,
                cost=event.cost,
                detail=event.detail,
                start_enthalpies=event.start_enthalpies,
                start_estimates=event.start_estimates,
                reason=FailureReason(event.reason),
                level=event.level,
                atoms=atoms,
            )


def source_call(event: SourceCalled, candidates: tuple[Candidate, ...]) -> SourceCall:
    """Return the call of a source of an event."""
    return SourceCall(
        source=event.source,
        call=event.call,
        requested=event.requested,
        owner=event.owner,
        candidates=candidates,
        cost=event.cost,
        error=event.error,
        formula=event.formula,
        sequence=event.sequence,
    )


def model_update(event: ModelUpdated) -> ModelUpdate:
    """Return the change of a model of an event."""
    return ModelUpdate(
        source=event.source,
        versions=event.versions,
        cost=event.cost,
        detail=event.detail,
        training=event.training,
        formula=event.formula,
        sequence=event.sequence,
    )


def origin_keys(candidate: Candidate) -> dict[str, Any]:
    """Return the keys of a row by which ``ase db`` selects the structures of a candidate."""
    keys: dict[str, Any] = {"candidate": candidate.id, "source": candidate.source, "operator": candidate.operator}
    if candidate.proposal.parents:
        # ASE refuses lists, and strings that look like numbers.
        keys["parents"] = "+".join(f"c{parent}" for parent in candidate.proposal.parents)
    return keys
