"""Screening of proposals: invalid structures, wrong contents, and duplicates are not relaxed."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from hybridcsp.core.outcomes import RejectionReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import LOWEST, RELAX, Candidate
from hybridcsp.similarity import STARTS, Descriptors, StructureIndex, compute_descriptors
from hybridcsp.structure.validity import violation


@dataclass(frozen=True, eq=False)
class Verdict:
    """Result of the screening of one structure.

    Attributes
    ----------
    reason
        The reason of its rejection; ``None`` if it is accepted.
    detail
        The reason in words.
    described
        The fingerprint of an accepted structure.
    """

    reason: RejectionReason | None
    detail: str = ""
    described: Descriptors | None = None


class Screen:
    """Check proposals against a problem and against structures that are being or have been relaxed.

    Parameters
    ----------
    problem
        The problem, which determines allowed contents, cells, volumes, distances and space groups.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._volumes = problem.volume_bounds
        self._known = StructureIndex(energy_window=None, tolerances=STARTS)

    def check(self, atoms: Atoms, level: str = RELAX, *, given: bool = False) -> Verdict:
        """Check one structure, and return the first failure of checks that run from cheap to expensive.

        Parameters
        ----------
        atoms
            The structure.
        level
            Level of the job that it would become. Jobs of other levels than "relax" and "lowest" move away from the
            structure that they start with, which may therefore be known.
        given
            Whether the user supplied the structure: every volume is then allowed, and every distance that is not that
            of a broken file.
        """
        found = violation(atoms, self.problem, self._volumes, given=given)
        if found is not None:
            return Verdict(found.reason, found.detail)
        described = compute_descriptors(atoms)
        known = self._known.find(described) if level in (RELAX, LOWEST) else None
        if known is not None:
            detail = f"the start of candidate {known}" if known > 0 else f"the relaxed structure of candidate {-known}"
            return Verdict(RejectionReason.DUPLICATE, detail)
        return Verdict(None, described=described)

    def accepted(self, candidate: Candidate, described: Descriptors) -> None:
        """Remember the start of a candidate that will be relaxed; of several starts, the job chooses one later."""
        if candidate.proposal.level != LOWEST:
            self._known.add(candidate.id, described)

    def relaxed(self, outcome: Relaxed) -> None:
        """Remember the start of a relaxation, and its end if it converged to an unknown structure.

        Default volume bounds are estimates. They are widened to a minimum outside of them, so that structures derived
        from it are not rejected.
        """
        if outcome.converged and self.problem.estimates_volume:
            volume = outcome.atoms.get_volume() / len(outcome.atoms)
            self._volumes = min(self._volumes[0], volume), max(self._volumes[1], volume)
        if outcome.candidate.id not in self._known and len(starts := outcome.starting_structures) == 1:
            self._known.add(outcome.candidate.id, compute_descriptors(starts[0]))
        key = -outcome.candidate.id
        if outcome.converged and key not in self._known:
            described = compute_descriptors(outcome.atoms)
            if self._known.find(described) is None:
                self._known.add(key, described)
