"""Calls that fill archives, and summaries that compare them."""

from hybridcsp.archive.history import SourceCall
from hybridcsp.core.records import WORKERS, Candidate, Cost, Proposal, Rejected


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
