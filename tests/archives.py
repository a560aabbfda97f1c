"""Calls that fill archives, summaries that compare them, and an archive without anything in it."""

from types import SimpleNamespace
from typing import cast

from crystals import relaxed

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import SourceCall
from hybridcsp.core.outcomes import Failed, FailureReason, FollowUpOutcome, Rejected
from hybridcsp.core.records import FOLLOW_UP, WORKERS, Candidate, Cost, Proposal

#: What sources see before the first minimum.
NO_MINIMA = cast(Archive, SimpleNamespace(preferred_minima=lambda n=None: []))


def record_proposals(archive, structures, source="random", owner=WORKERS, rejected=(), parents=()):
    """Record one call of a source that proposed structures, and return the candidates that they became."""
    first = archive.candidates + 1
    candidates = tuple(
        Candidate(
            proposal=Proposal(atoms=atoms, operator="made", parents=parents, tag={"n": i}, cost=Cost(seconds=0.5)),
            id=first + i,
            source=source,
        )
        for i, atoms in enumerate(structures)
    )
    called = SourceCall(
        source=source,
        call=archive.state.calls[source],
        requested=len(candidates),
        owner=owner,
        candidates=candidates,
        cost=Cost(force_calls=2, seconds=1.0),
    )
    archive.record_call(called, [Rejected(candidate=candidates[i], reason=r) for i, r in rejected])
    return candidates


def record_follow_up(archive, of, energy_per_atom, atoms=None, *, spec="better", number=1, label=None):
    """Record the follow-up relaxation of a minimum, or its failure if there is no energy.

    It ends in the structure of the minimum if no other is given.
    """
    best = archive.state.basins[of].best
    candidate = archive.candidate(best.candidate)
    cost = Cost(force_calls=5, seconds=1.0)
    label = f"{spec} 1.0 (test)" if label is None else label
    if energy_per_atom is None:
        reason = FailureReason.CALCULATOR
        ended = Failed(candidate=candidate, reason=reason, level=FOLLOW_UP, detail="no potential for Ti", cost=cost)
    else:
        atoms = archive.structure(archive.state.basins[of]) if atoms is None else atoms
        ended = relaxed(candidate, energy_per_atom, atoms, level=FOLLOW_UP, calculator=label, cost=cost)
    archive.record_follow_ups(
        [FollowUpOutcome(of=of, number=number, spec=spec, calculator=label, outcome=ended)],
    )


def summary(archive):
    """Return everything that an archive holds, in a form that can be compared."""
    state = archive.state
    return {
        "minima": [
            (m.id, m.enthalpy_per_atom, m.best.candidate.id, m.best.evaluation.level, m.found_by.id, m.multiplicity)
            for m in archive.minima()
        ],
        "first": [(m.first_relaxation, m.first_force_calls) for m in archive.minima()],
        "spacegroups": [(m.spacegroup, m.spacegroup_loose) for m in archive.minima()],
        "cells": [m.atoms.cell.array.tolist() for m in archive.minima()],
        "tallies": state.tallies,
        "cost": state.cost,
        "relaxations": state.relaxations,
        "improvements": state.improvements,
        "pending": [candidate.id for candidate in archive.pending(WORKERS)],
        "calls": state.calls,
        "to_refine": [relaxed.candidate.id for relaxed in archive.to_refine(3, 1.0)],
    }
