"""The record types that packages exchange before a relaxation: proposals, candidates and jobs.

They are frozen and hold plain data. Energies are in eV, lengths in Å and pressures in eV/Å³.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError

# Levels of a job. Every level that a proposal may have ends in a relaxation; refinements follow a relaxation.
RELAX = "relax"
REFINE = "refine"
EVALUATE = "evaluate"
LOWEST = "lowest"  # evaluates several structures and relaxes the one that promises the lowest enthalpy
FOLLOW_UP = "follow-up"  # relaxes a minimum of the search with another calculator

#: Owner of a candidate, who relaxes it: the workers of the search, or the person who called ``ask``.
WORKERS = "workers"
USER = "user"

#: Source of relaxed structures that a person adds unrequested; they do not count as relaxations of the search.
ADDED = "added"

#: Source of known phases, which a search of a chemical system relaxes first.
REFERENCE = "reference"


def is_word(text: str) -> bool:
    """Return whether a text can name a source or operator: a word that no file format reads as a number or boolean."""
    return bool(re.fullmatch(r"[A-Za-z][\w.+/-]+", text)) and text.lower() not in _NOT_WORDS


_NOT_WORDS = ("true", "false", "nan", "inf", "infinity")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of a step of a search: force calls (evaluations of energy and forces) and seconds of wall time."""

    force_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(force_calls=self.force_calls + other.force_calls, seconds=self.seconds + other.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of one job.

    Attributes
    ----------
    force_calls
        Largest number of force calls; a relaxation that reaches it ends unconverged.
    seconds
        Wall time in seconds; a worker that exceeds it is stopped, and the job fails.
    memory
        Resident memory of the worker in bytes; a worker that exceeds it is stopped, and the job fails.

    Raises
    ------
    InputError
        If a limit is below its smallest value.
    """

    force_calls: int = 500
    seconds: float = 600.0
    memory: int = 6 * 1024**3

    def __post_init__(self) -> None:
        for name in ("force_calls", "memory"):
            if getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "a whole number from 1")
        if not self.seconds >= 0:
            raise InputError("seconds", self.seconds, "a number of seconds from 0")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Proposal:
    """A structure that a source proposes for relaxation.

    Attributes
    ----------
    atoms
        Structure, periodic in three dimensions.
    operator
        Name of the operator that made it: "random", "heredity", "seed", …
    parents
        Ids of the candidates that it was made from.
    tag
        Plain JSON that the source gets back with the outcome: a particle, a tree path, a model version.
    cost
        Cost of making it.
    level
        Level of the job that it becomes. Steps that need a calculator (a Hessian, an escape by molecular dynamics) are
        part of that job: they run on a worker and their force calls are counted.
    given
        Whether a person supplied the structure; the expected ranges of volumes and distances do not apply to it.
    alternatives
        Further structures of a job of the level "lowest", with the same contents as ``atoms``; the job relaxes the
        structure among all of them that promises the lowest enthalpy. Their atoms are put in the order of ``atoms``.

    Raises
    ------
    InputError
        If the operator is not a word, or alternatives have other contents or another level.
    """

    atoms: Atoms
    operator: str
    parents: tuple[int, ...] = ()
    tag: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()
    level: str = RELAX
    given: bool = False
    alternatives: tuple[Atoms, ...] = ()

    def __post_init__(self) -> None:
        if not is_word(self.operator):
            raise InputError("operator", self.operator, "a word that begins with a letter")
        if self.alternatives:
            if self.level != LOWEST:
                raise InputError("level", self.level, f"the level {LOWEST!r} for a proposal with alternatives")
            ordered = tuple(_in_same_order(atoms, self.atoms) for atoms in self.alternatives)
            object.__setattr__(self, "alternatives", ordered)


def _in_same_order(atoms: Atoms, first: Atoms) -> Atoms:
    """Return the bare structure with its atoms in the order of those of another structure with the same contents."""
    if sorted(atoms.numbers) != sorted(first.numbers):
        raise InputError("alternatives", str(atoms.symbols), f"a structure with the contents of {first.symbols}")
    order = np.empty(len(first), dtype=int)
    order[np.argsort(first.numbers, kind="stable")] = np.argsort(atoms.numbers, kind="stable")
    return Atoms(first.numbers, cell=atoms.cell.array, positions=atoms.positions[order], pbc=True)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Candidate:
    """A proposal with its number in the search; screening may still reject it.

    Attributes
    ----------
    proposal
        The proposal.
    id
        Number of the candidate in the search, from 1.
    source
        Name of the source.
    """

    proposal: Proposal
    id: int
    source: str

    @property
    def atoms(self) -> Atoms:
        """Copy of the proposed structure."""
        return self.proposal.atoms.copy()

    @property
    def starts(self) -> list[Atoms]:
        """Structures one of which its relaxation starts from: more than one only at the level "lowest"."""
        return [self.atoms, *(atoms.copy() for atoms in self.proposal.alternatives)]

    @property
    def operator(self) -> str:
        """Name of the operator that made it."""
        return self.proposal.operator


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class KnownMinimum:
    """A known minimum as a job has it, whose relaxation ends when it falls into the same basin.

    Attributes
    ----------
    id
        Id of the minimum.
    enthalpy_per_atom
        Enthalpy in eV/atom by the calculator of the job.
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    cell
        Lattice vectors as rows in Å, shape ``(3, 3)``.
    positions
        Cartesian positions in Å, shape ``(n_atoms, 3)``.
    """

    id: int
    enthalpy_per_atom: float
    numbers: NDArray[Any]
    cell: NDArray[Any]
    positions: NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Job:
    """One piece of work for a backend.

    Attributes
    ----------
    candidate
        Candidate that the job belongs to.
    atoms
        Structure to start from.
    level
        Level of the job, which says what is done with the structure.
    limits
        Limits within which it is done.
    calculator
        Number of the calculator: 0 for that of the search, from 1 for follow-up calculators in their order.
    give_up_above
        Enthalpy in eV/atom above which the structure is not relaxed: the job then ends unconverged after one force
        call; ``None`` for no such limit. Only jobs of the level "follow-up" have it.
    known
        Minima of the search by the calculator of the job, in whose basins the relaxation need not go to its end.
    """

    candidate: Candidate
    atoms: Atoms
    level: str = RELAX
    limits: Limits = Limits()
    calculator: int = 0
    give_up_above: float | None = None
    known: tuple[KnownMinimum, ...] = ()
