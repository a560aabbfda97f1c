"""Between records and the events that the log keeps of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ase import Atoms

from hybridcsp.archive.event_log import Event
from hybridcsp.core.records import (
    Candidate,
    Cost,
    Evaluation,
    Failed,
    FailureReason,
    Outcome,
    Proposal,
    Rejected,
    RejectionReason,
    Relaxed,
)


def candidate_event(candidate: Candidate, owner: str) -> Event:
    """Return the event of a new candidate."""
    proposal = candidate.proposal
    data = _origin(candidate) | {
        "parents": list(proposal.parents),
        "tag": dict(proposal.tag),
        "cost": asdict(proposal.cost),
        "level": proposal.level,
        "owner": owner,
    }
    return Event(kind="proposed", data=data, atoms=proposal.atoms, keys=_keys(candidate))


def rejected_event(outcome: Rejected) -> Event:
    """Return the event of a proposal that is not relaxed."""
    data = _origin(outcome.candidate) | {"reason": outcome.reason.value, "detail": outcome.detail}
    keys = _keys(outcome.candidate) | {"reason": outcome.reason.value}
    return Event(kind="rejected", data=data, atoms=outcome.candidate.proposal.atoms, keys=keys)


def failed_event(outcome: Failed, number: int | None, force_calls: int) -> Event:
    """Return the event of a failure; ``number`` and ``force_calls`` as for :func:`relaxed_event`."""
    data = _job(outcome, number, force_calls) | {"reason": outcome.reason.value}
    atoms = outcome.candidate.proposal.atoms if outcome.atoms is None else outcome.atoms
    keys = _keys(outcome.candidate) | {"level": outcome.level, "reason": outcome.reason.value}
    return Event(kind="failed", data=data, atoms=atoms, keys=keys)


def relaxed_event(outcome: Relaxed, number: int | None, force_calls: int, spacegroups: tuple[int, int] | None) -> Event:
    """Return the event of a relaxation, not yet placed in a basin.

    Parameters
    ----------
    outcome
        The relaxation.
    number
        Its 1-based number, in completion order; ``None`` where it does not count as one.
    force_calls
        Of the whole search, this relaxation included.
    spacegroups
        Space group numbers at 0.01 Å and at 0.1 Å; ``None`` where they were not looked for.
    """
    evaluation = outcome.evaluation
    data = _job(outcome, number, force_calls) | {
        "calculator": evaluation.calculator,
        "energy": evaluation.energy,
        "enthalpy": evaluation.enthalpy,
        "enthalpy_per_atom": outcome.enthalpy_per_atom,
        "max_force": evaluation.max_force,
        "max_stress_residual": evaluation.max_stress_residual,
        "converged": outcome.converged,
        "objectives": dict(outcome.objectives),
        "spacegroup": spacegroups[0] if spacegroups else None,
        "spacegroup_loose": spacegroups[1] if spacegroups else None,
        "minimum": None,
        "opened": False,
        "absorbed": None,
    }
    keys = _keys(outcome.candidate) | {
        "level": outcome.level,
        "converged": outcome.converged,
        "enthalpy_per_atom": outcome.enthalpy_per_atom,
        "force_calls": force_calls,
    }
    if spacegroups is not None:
        keys["spacegroup"] = spacegroups[0]
    if number is not None:
        keys["relaxation"] = number
    name = evaluation.calculator.split(" ")[0].lower()  # as ASE's databases have it, without version and parameters
    return Event(kind="relaxed", data=data, atoms=outcome.atoms, keys=keys, calculator=name)


def candidate(event: Event, atoms: Atoms) -> Candidate:
    """Return the candidate of an event; ``atoms`` is the structure of its row."""
    data = event.data
    proposal = Proposal(
        atoms=atoms,
        operator=data["operator"],
        parents=tuple(data["parents"]),
        tag=data["tag"],
        cost=Cost(**data["cost"]),
        level=data["level"],
    )
    return Candidate(proposal=proposal, id=data["candidate"], source=data["source"])


def relaxed(event: Event, candidate: Candidate, atoms: Atoms) -> Relaxed:
    """Return the relaxation of an event; ``atoms`` is the structure of its row."""
    data = event.data
    evaluation = Evaluation(
        level=data["level"],
        calculator=data["calculator"],
        energy=data["energy"],
        enthalpy=data["enthalpy"],
        max_force=data["max_force"],
        max_stress_residual=data["max_stress_residual"],
        magmoms=atoms.calc.results.get("magmoms") if atoms.calc else None,
    )
    return Relaxed(
        candidate=candidate,
        sequence=event.sequence,
        cost=Cost(**data["cost"]),
        detail=data["detail"],
        start_enthalpies=_start_enthalpies(data),
        atoms=atoms,
        evaluation=evaluation,
        converged=data["converged"],
        objectives=data["objectives"],
        minimum=data["minimum"],
        is_new_minimum=data["opened"],
    )


def outcome(event: Event, candidate: Candidate, atoms: Atoms) -> Outcome:
    """Return the outcome of an event of kind "relaxed", "failed" or "rejected"."""
    data = event.data
    if event.kind == "relaxed":
        return relaxed(event, candidate, atoms)
    if event.kind == "rejected":
        reason = RejectionReason(data["reason"])
        return Rejected(candidate=candidate, sequence=event.sequence, detail=data["detail"], reason=reason)
    return Failed(
        candidate=candidate,
        sequence=event.sequence,
        cost=Cost(**data["cost"]),
        detail=data["detail"],
        start_enthalpies=_start_enthalpies(data),
        reason=FailureReason(data["reason"]),
        level=data["level"],
        atoms=atoms,
    )


def _origin(candidate: Candidate) -> dict[str, Any]:
    return {"candidate": candidate.id, "source": candidate.source, "operator": candidate.operator}


def _job(outcome: Relaxed | Failed, number: int | None, force_calls: int) -> dict[str, Any]:
    return _origin(outcome.candidate) | {
        "level": outcome.level,
        "cost": asdict(outcome.cost),
        "detail": outcome.detail,
        "start_enthalpies": list(outcome.start_enthalpies),
        "relaxation": number,
        "force_calls": force_calls,
    }


def _start_enthalpies(data: dict[str, Any]) -> tuple[float | None, ...]:
    return tuple(data.get("start_enthalpies", ()))  # older run directories lack them


def _keys(candidate: Candidate) -> dict[str, Any]:
    keys = _origin(candidate)
    if candidate.proposal.parents:
        # ASE refuses lists, and strings that look like numbers.
        keys["parents"] = "+".join(f"c{parent}" for parent in candidate.proposal.parents)
    return keys
