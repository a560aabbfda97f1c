"""Conversion between follow-up relaxations and their events."""

from __future__ import annotations

from ase import Atoms

from hybridcsp.archive.conversion import database_name, failed_row, origin_keys, relaxed
from hybridcsp.archive.events import FollowUpEvent
from hybridcsp.archive.follow_up_events import FollowUpFailed, FollowUpRelaxed
from hybridcsp.archive.placement import Placement
from hybridcsp.archive.structure_rows import Row
from hybridcsp.core.outcomes import Failed, FailureReason, FollowUpOutcome, Relaxed
from hybridcsp.core.records import FOLLOW_UP, Candidate


def failed_event(one: FollowUpOutcome, failed: Failed, relaxation: int) -> FollowUpFailed:
    """Return the event of a follow-up relaxation that failed.

    Parameters
    ----------
    one
        The follow-up relaxation.
    failed
        Its outcome.
    relaxation
        Number of relaxations of the search that had ended before.
    """
    return FollowUpFailed(
        candidate=failed.candidate.id,
        source=failed.candidate.source,
        operator=failed.candidate.operator,
        of=one.of,
        number=one.number,
        spec=one.spec,
        calculator=one.calculator,
        cost=failed.cost,
        detail=failed.detail,
        relaxation=relaxation,
        reason=failed.reason.value,
    )


def relaxed_event(
    one: FollowUpOutcome,
    relaxed: Relaxed,
    relaxation: int,
    spacegroups: tuple[int, int],
    placement: Placement | None,
    *,
    same_structure: bool,
) -> FollowUpRelaxed:
    """Return the event of a follow-up relaxation that ended in a structure.

    Parameters
    ----------
    one, relaxed, relaxation
        As for :func:`failed_event`.
    spacegroups
        Space group numbers at 0.01 Å and at 0.1 Å.
    placement
        Minimum in which it ended; ``None`` for a relaxation that did not converge.
    same_structure
        Whether the structure is still similar to that of the minimum of the search.
    """
    evaluation = relaxed.evaluation
    return FollowUpRelaxed(
        candidate=relaxed.candidate.id,
        source=relaxed.candidate.source,
        operator=relaxed.candidate.operator,
        of=one.of,
        number=one.number,
        spec=one.spec,
        calculator=evaluation.calculator,
        cost=relaxed.cost,
        detail=relaxed.detail,
        relaxation=relaxation,
        energy=evaluation.energy,
        enthalpy=evaluation.enthalpy,
        enthalpy_per_atom=relaxed.enthalpy_per_atom,
        max_force=evaluation.max_force,
        max_stress_residual=evaluation.max_stress_residual,
        converged=relaxed.converged,
        spacegroup=spacegroups[0],
        spacegroup_loose=spacegroups[1],
        minimum=placement.minimum if placement else None,
        is_new_minimum=placement.is_new if placement else False,
        same_structure=same_structure,
        start_enthalpy=relaxed.start_enthalpies[0] if relaxed.start_enthalpies else None,
    )


def relaxed_row(event: FollowUpRelaxed, relaxed: Relaxed) -> Row:
    """Return the database row of the structure in which a follow-up relaxation ended."""
    keys = origin_keys(relaxed.candidate) | {
        "level": FOLLOW_UP,
        "follow_up": event.number,
        "of": event.of,
        "converged": event.converged,
        "enthalpy_per_atom": event.enthalpy_per_atom,
        "spacegroup": event.spacegroup,
    }
    return Row(atoms=relaxed.atoms, keys=keys, calculator=database_name(event.calculator))


def row_of_failure(event: FollowUpFailed, failed: Failed) -> Row:
    """Return the database row of the last structure of a follow-up relaxation that failed."""
    row = failed_row(failed)
    row.keys |= {"follow_up": event.number, "of": event.of}
    return row


def outcome(event: FollowUpEvent, candidate: Candidate, atoms: Atoms) -> FollowUpOutcome:
    """Return the follow-up relaxation of an event; ``atoms`` is the structure of its row."""
    ended: Relaxed | Failed
    if isinstance(event, FollowUpRelaxed):
        ended = relaxed(event, candidate, atoms)
    else:
        ended = Failed(
            candidate=candidate,
            sequence=event.sequence,
            cost=event.cost,
            detail=event.detail,
            reason=FailureReason(event.reason),
            level=FOLLOW_UP,
            atoms=atoms,
        )
    return FollowUpOutcome(
        of=event.of, number=event.number, spec=event.spec, calculator=event.calculator, outcome=ended
    )
