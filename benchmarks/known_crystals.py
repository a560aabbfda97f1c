"""Known crystals that benchmarks compare with, relaxed by the calculator of the searches."""

from __future__ import annotations

from ase import Atoms

from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import REFINE, Candidate, Job, Limits, Proposal
from hybridcsp.relaxation.backends import WorkerPool


def relaxed(crystal: Atoms, pool: WorkerPool) -> Relaxed | Failed:
    """Relax a known crystal to 0.01 eV/Å."""
    candidate = Candidate(proposal=Proposal(atoms=crystal, operator="reference"), id=1, source="reference")
    pool.submit(Job(candidate=candidate, atoms=crystal, level=REFINE, limits=Limits(force_calls=1000)))
    (outcome,) = pool.completed(None)
    return outcome
