"""Several structures in one job, of which energies choose; those that are not relaxed wait with their energies."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.records import LOWEST, RELAX, RIVALS, Candidate, Cost, Outcome, Proposal, as_rival

#: After so many relaxations of what was in such jobs another one is due: with new structures in every one, their
#: energies cost more than they save.
RELAXATIONS_EACH = 3

#: Operator of jobs of structures that different operators have made.
BY_ENERGY = "by-energy"


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
    operator
        What made it.
    about
        The tag that it has as a proposal of its own.
    enthalpy
        Per atom in eV, before it is relaxed; ``None`` where it is not known.
    """

    atoms: Atoms
    operator: str
    about: Mapping[str, Any]
    enthalpy: float | None = None


def proposal(starts: Sequence[Start], more: Mapping[str, Any], seconds: float) -> Proposal:
    """Return the proposal of one structure, or of several with the same atoms.

    Its tag is that of the first and ``more``; if there are several, ``starts`` are the tags of each, with the operator.
    """
    first, *others = starts
    tag = {**first.about, **more}
    if others:
        tag["starts"] = [{**start.about, "operator": start.operator} for start in starts]
        tag[RIVALS] = [as_rival(start.atoms, first.atoms) for start in others]
    operators = {start.operator for start in starts}
    return Proposal(
        atoms=first.atoms,
        operator=BY_ENERGY if len(operators) > 1 else first.operator,
        tag=tag,
        cost=Cost(seconds=seconds),
        level=LOWEST if others else RELAX,
    )


def starts_of(candidate: Candidate) -> list[Start]:
    """Return what such a proposal was made of."""
    tag = candidate.proposal.tag
    starts = []
    for about, atoms in zip(tag.get("starts", [tag]), candidate.starts, strict=True):
        operator = about.get("operator", candidate.operator)
        starts.append(Start(atoms, operator, {key: value for key, value in about.items() if key != "operator"}))
    return starts


class Waiting:
    """Structures that were in a job and were not relaxed.

    Parameters
    ----------
    key
        What a structure is known by, from its tag.
    """

    def __init__(self, key: Callable[[Mapping[str, Any]], Hashable]) -> None:
        self._key = key
        self._starts: dict[Hashable, Start] = {}
        self._sent: dict[int, list[Start]] = {}  # by candidate: what its job chooses from
        self._relaxations = 0  # since the last such job, that of the job included

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and nothing may come back from a job that has not ended."""
        return not self._starts and not self._sent

    def __contains__(self, tag: Mapping[str, Any]) -> bool:
        return self._key(tag) in self._starts

    @property
    def next(self) -> Start | None:
        """What is to be relaxed without further energies; ``None`` where another job of several structures is due."""
        ranked = self.ranked()
        return ranked[0] if ranked and self._relaxations < RELAXATIONS_EACH else None

    def ranked(self) -> list[Start]:
        """Return those whose energies are known, the lowest first."""
        return sorted((start for start in self._starts.values() if start.enthalpy is not None), key=_enthalpy)

    def unranked(self) -> list[Start]:
        """Return those whose energies are not known: their job was lost."""
        return [start for start in self._starts.values() if start.enthalpy is None]

    def proposed(self, candidate: Candidate) -> None:
        """Take off what waits no longer."""
        starts = starts_of(candidate)
        for start in starts:
            self._starts.pop(self._key(start.about), None)
        self._relaxations += 1
        if len(starts) > 1:
            self._sent[candidate.id] = starts
            self._relaxations = 1

    def observe(self, outcome: Outcome) -> None:
        """Let those wait that a job has not relaxed."""
        starts = self._sent.pop(outcome.candidate.id, [])
        enthalpies: Sequence[float | None] = outcome.start_enthalpies
        if not starts:
            return
        if not enthalpies:  # it did not come so far; the first would have been relaxed
            left = starts[1:]
        else:
            known = [
                Start(start.atoms, start.operator, start.about, enthalpy)
                for start, enthalpy in zip(starts, enthalpies, strict=True)
                if enthalpy is not None  # what cannot be evaluated is given up
            ]
            relaxed = min(known, key=_enthalpy)
            left = [start for start in known if start is not relaxed]
        self._starts.update((self._key(start.about), start) for start in left)

    def drop(self, unwanted: Callable[[Atoms], bool]) -> None:
        """Give up some of them."""
        self._starts = {key: start for key, start in self._starts.items() if not unwanted(start.atoms)}


def _enthalpy(start: Start) -> float:
    assert start.enthalpy is not None
    return start.enthalpy
