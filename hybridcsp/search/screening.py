"""What is not worth a relaxation: broken structures, wrong contents, and what was relaxed already."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import LOWEST, RELAX, Candidate, RejectionReason, Relaxed
from hybridcsp.similarity import STARTS, Described, StructureIndex, describe
from hybridcsp.structure.validity import violation


@dataclass(frozen=True, eq=False)
class Verdict:
    """What screening says of one structure; ``reason`` is ``None`` where it is worth a relaxation."""

    reason: RejectionReason | None
    detail: str = ""
    described: Described | None = None


class Screen:
    """Checks proposals against a problem and against what is being or has been relaxed.

    Parameters
    ----------
    problem
        Sets contents, cell, volumes, distances and space groups.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._volumes = problem.volume_bounds
        self._known = StructureIndex(energy_window=None, tolerances=STARTS)

    def check(self, atoms: Atoms, level: str = RELAX, *, given: bool = False) -> Verdict:
        """Judge one structure; the checks run from the cheapest to the dearest and the first failure is the verdict.

        Jobs of other levels than "relax" and "lowest" leave the structure that they begin with: it may be known.

        Parameters
        ----------
        atoms
            The structure.
        level
            Of the job that it would become.
        given
            Whether a person brought it: then no volume is wrong, and no distance but those of broken files.
        """
        found = violation(atoms, self.problem, self._volumes, given=given)
        if found is not None:
            return Verdict(found.reason, found.detail)
        described = describe(atoms)
        known = self._known.find(described) if level in (RELAX, LOWEST) else None
        if known is not None:
            detail = f"the start of candidate {known}" if known > 0 else f"the relaxed structure of candidate {-known}"
            return Verdict(RejectionReason.DUPLICATE, detail)
        return Verdict(None, described=described)

    def accepted(self, candidate: Candidate, described: Described) -> None:
        """Remember the start of a candidate that will be relaxed, if it has one: of several, one is chosen later."""
        if candidate.proposal.level != LOWEST:
            self._known.add(candidate.id, described)

    def relaxed(self, outcome: Relaxed) -> None:
        """Remember where a relaxation began, and where it ended if it converged to something not known yet.

        A minimum outside of the default volume bounds shows that they were estimated wrongly: they are widened to it,
        so that its relatives are not rejected.
        """
        if outcome.converged and self.problem.estimates_volume:
            volume = outcome.atoms.get_volume() / len(outcome.atoms)
            self._volumes = min(self._volumes[0], volume), max(self._volumes[1], volume)
        if outcome.candidate.id not in self._known and len(begun := outcome.starting_structures) == 1:
            self._known.add(outcome.candidate.id, describe(begun[0]))
        key = -outcome.candidate.id
        if outcome.converged and key not in self._known:
            described = describe(outcome.atoms)
            if self._known.find(described) is None:
                self._known.add(key, described)
