"""Several structures in one job, of which energies choose; those that are not relaxed wait with their energies."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ase import Atoms

from hybridcsp.core.records import LOWEST, RELAX, RIVALS, Candidate, Cost, Outcome, Proposal, as_rival
from hybridcsp.errors import InputError

#: After so many relaxations of what was in such jobs another one is due: with new structures in every one, their
#: energies cost more than they save.
RELAXATIONS_EACH = 3


def check_one_shot(structures: int) -> None:
    """Refuse a number of structures that cannot become one job.

    Raises
    ------
    InputError
        If there would be none.
    """
    if structures < 1:
        raise InputError("one_shot", structures, "a whole number from 1")


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """A structure that a relaxation may begin with.

    Attributes
    ----------
    atoms
        The structure.
    about
        The tag that it has as a proposal of its own.
    enthalpy
        Per atom in eV, before it is relaxed; ``None`` where it is not known.
    """

    atoms: Atoms
    about: Mapping[str, Any]
    enthalpy: float | None = None


def proposal(operator: str, starts: Sequence[Start], more: Mapping[str, Any], seconds: float) -> Proposal:
    """Return the proposal of one structure, or of several with the same atoms.

    Its tag is that of the first and ``more``; if there are several, ``starts`` are the tags of each.
    """
    first, *others = starts
    tag = {**first.about, **more}
    if others:
        tag["starts"] = [dict(start.about) for start in starts]
        tag[RIVALS] = [as_rival(start.atoms, first.atoms) for start in others]
    level = LOWEST if others else RELAX
    return Proposal(atoms=first.atoms, operator=operator, tag=tag, cost=Cost(seconds=seconds), level=level)


def starts_of(candidate: Candidate) -> list[Start]:
    """Return what such a proposal was made of."""
    tag = candidate.proposal.tag
    pairs = zip(tag.get("starts", [tag]), candidate.starts, strict=True)
    return [Start(atoms, about) for about, atoms in pairs]


class Waiting:
    """Structures that were in a job and were not relaxed; what nobody knows the energy of is given up.

    Parameters
    ----------
    key
        What a structure is known by, from its tag.
    """

    def __init__(self, key: Callable[[Mapping[str, Any]], Hashable]) -> None:
        self._key = key
        self._starts: dict[Hashable, Start] = {}
        self._sent: dict[int, Sequence[Start]] = {}  # by candidate: what its job chooses from
        self._relaxations = 0  # since the last such job, that of the job included

    def __contains__(self, tag: Mapping[str, Any]) -> bool:
        return self._key(tag) in self._starts

    @property
    def next(self) -> Start | None:
        """What is to be relaxed without further energies; ``None`` where another job of several structures is due."""
        ranked = self.ranked()
        return ranked[0] if ranked and self._relaxations < RELAXATIONS_EACH else None

    def ranked(self) -> list[Start]:
        """Return them, the lowest first."""
        return sorted(self._starts.values(), key=_enthalpy)

    def proposed(self, candidate: int, starts: Sequence[Start]) -> None:
        """Take off what waits no longer, now that a candidate was made of it."""
        for start in starts:
            self._starts.pop(self._key(start.about), None)
        self._relaxations += 1
        if len(starts) > 1:
            self._sent[candidate] = starts
            self._relaxations = 1

    def observe(self, outcome: Outcome) -> None:
        """Let those wait that a job has evaluated and not relaxed."""
        starts = self._sent.pop(outcome.candidate.id, [])
        if not starts or not outcome.start_enthalpies:
            return
        for number, (start, enthalpy) in enumerate(zip(starts, outcome.start_enthalpies, strict=True)):
            if enthalpy is not None and number != outcome.chosen:
                self._starts[self._key(start.about)] = replace(start, enthalpy=enthalpy)


def _enthalpy(start: Start) -> float:
    assert start.enthalpy is not None
    return start.enthalpy
