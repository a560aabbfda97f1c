"""Provide jobs of several structures, of which the most promising is relaxed, and the queue of those left."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ase import Atoms

from hybridcsp.core.outcomes import Outcome
from hybridcsp.core.records import LOWEST, RELAX, Candidate, Cost, Proposal
from hybridcsp.errors import InputError

#: Number of relaxations of structures from such jobs after which the next job of several is due: if every job had new
#: structures, their energies would cost more than they save.
RELAXATIONS_PER_JOB = 3


def check_samples_per_job(samples: int) -> None:
    """Check the number of structures of one job.

    Raises
    ------
    InputError
        If it is below 1.
    """
    if samples < 1:
        raise InputError("one_shot", samples, "a whole number from 1, of samples per job")


@dataclass(frozen=True, eq=False, slots=True)
class Alternative:
    """One of the structures of a job.

    Attributes
    ----------
    atoms
        The structure.
    tag
        The tag of the proposal of this structure alone.
    estimate
        Estimate of the enthalpy per atom in eV that it relaxes to; ``None`` if unknown.
    """

    atoms: Atoms
    tag: Mapping[str, Any]
    estimate: float | None = None


def make_proposal(
    operator: str, alternatives: Sequence[Alternative], extra: Mapping[str, Any], seconds: float
) -> Proposal:
    """Return the proposal of one structure, or of a job of several with the same contents.

    Parameters
    ----------
    operator
        Name of the operator that made the structures.
    alternatives
        The structures, at least one.
    extra
        Entries of the tag in addition to those of the first structure. The tag of a job of several also holds
        ``starts``, the list of the tags of all.
    seconds
        Wall time that making the structures took.
    """
    first, *others = alternatives
    tag = {**first.tag, **extra}
    if others:
        tag["starts"] = [dict(one.tag) for one in alternatives]
    return Proposal(
        atoms=first.atoms,
        operator=operator,
        tag=tag,
        cost=Cost(seconds=seconds),
        level=LOWEST if others else RELAX,
        alternatives=tuple(one.atoms for one in others),
    )


def alternatives_of(candidate: Candidate) -> list[Alternative]:
    """Return the structures from which :func:`make_proposal` made a candidate."""
    tag = candidate.proposal.tag
    pairs = zip(tag.get("starts", [tag]), candidate.starts, strict=True)
    return [Alternative(atoms, own) for own, atoms in pairs]


class Leftovers:
    """Structures of past jobs that were evaluated and not relaxed, sorted by what they promise.

    Structures without a known energy are dropped.

    Parameters
    ----------
    key
        Function that returns the identity of a structure from its tag.
    """

    def __init__(self, key: Callable[[Mapping[str, Any]], Hashable]) -> None:
        self._key = key
        self._waiting: dict[Hashable, Alternative] = {}
        self._submitted: dict[int, Sequence[Alternative]] = {}  # by candidate: the structures of its job
        self._relaxations = 0  # since the last job of several, which counts as the first

    def __contains__(self, tag: Mapping[str, Any]) -> bool:
        return self._key(tag) in self._waiting

    @property
    def next(self) -> Alternative | None:
        """The structure to relax next; ``None`` if another job of several structures is due."""
        ranked = self.ranked()
        return ranked[0] if ranked and self._relaxations < RELAXATIONS_PER_JOB else None

    def ranked(self) -> list[Alternative]:
        """Return the structures that are left, the most promising first."""
        return sorted(self._waiting.values(), key=_estimate)

    def proposed(self, candidate: int, alternatives: Sequence[Alternative]) -> None:
        """Remove the structures of a new candidate from those that are left."""
        for one in alternatives:
            self._waiting.pop(self._key(one.tag), None)
        self._relaxations += 1
        if len(alternatives) > 1:
            self._submitted[candidate] = alternatives
            self._relaxations = 1

    def observe(self, outcome: Outcome) -> None:
        """Add the structures that a job has evaluated and not relaxed."""
        alternatives = self._submitted.pop(outcome.candidate.id, [])
        estimates = outcome.start_estimates or outcome.start_enthalpies
        if not alternatives or not estimates:
            return
        for number, (one, estimate) in enumerate(zip(alternatives, estimates, strict=True)):
            if estimate is not None and number != outcome.chosen:
                self._waiting[self._key(one.tag)] = replace(one, estimate=estimate)


def _estimate(alternative: Alternative) -> float:
    assert alternative.estimate is not None
    return alternative.estimate
