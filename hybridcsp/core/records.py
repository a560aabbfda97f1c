"""The types that cross rooms: keyword-only, frozen, plain data.

Energies are in eV, lengths in Å, pressures in eV/Å³ (GPa only where a person types or reads one).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError

# Levels of a job. Every level that a proposal may have ends in a relaxation; refinements come after that.
RELAX = "relax"
REFINE = "refine"
EVALUATE = "evaluate"
LOWEST = "lowest"  # of several structures, the one of lowest enthalpy is relaxed

#: Who relaxes a candidate: our own workers, or the person who asked for it.
WORKERS = "workers"
USER = "user"

#: Source of structures that a person adds without having been given them; they do not count as relaxations.
ADDED = "added"


class FailureReason(StrEnum):
    """Why a relaxation that was started came to nothing."""

    CALCULATOR = "calculator"  # the calculator raised
    WRONG_RESULTS = "wrong-results"  # its results have the wrong form, or it changed the structure
    NON_FINITE = "non-finite"  # energy, forces or stress are not numbers
    FORCE_EXPLOSION = "force-explosion"
    OVERLAP = "overlap"  # atoms on top of each other
    ISOLATED_ATOMS = "isolated-atoms"
    VOLUME = "volume"  # the volume ran away
    TIME_LIMIT = "time-limit"
    MEMORY_LIMIT = "memory-limit"
    WORKER_DIED = "worker-died"
    REPORTED = "reported"  # the person who relaxed it said so


class RejectionReason(StrEnum):
    """Why a proposal was not worth a relaxation."""

    INVALID = "invalid"  # not a periodic crystal with finite numbers
    COMPOSITION = "composition"
    CELL = "cell"
    VOLUME = "volume"
    DISTANCE = "distance"
    SPACEGROUP = "spacegroup"
    DUPLICATE = "duplicate"
    NOT_TAKEN = "not-taken"  # another code was given it and did not relax it
    OTHER_CALCULATOR = "other-calculator"  # its energy is one of a calculator that is not in force any more


def is_word(text: str) -> bool:
    """Whether a text can name a source or operator: a word that no file format takes for a number or truth value."""
    return bool(re.fullmatch(r"[A-Za-z][\w.+/-]+", text)) and text.lower() not in _NOT_WORDS


_NOT_WORDS = ("true", "false", "nan", "inf", "infinity")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What something took: calls for energy and forces, and seconds of wall time."""

    force_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(force_calls=self.force_calls + other.force_calls, seconds=self.seconds + other.seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one job may use before it is ended.

    Attributes
    ----------
    force_calls
        Calls for energy and forces; a relaxation that reaches it is returned unconverged.
    seconds
        Wall time; a worker that exceeds it is stopped and the job has failed.
    memory
        Resident memory of the worker in bytes.

    Raises
    ------
    InputError
        For limits that are none.
    """

    force_calls: int = 500
    seconds: float = 600.0
    memory: int = 6 * 1024**3

    def __post_init__(self) -> None:
        for name in ("force_calls", "memory"):
            if getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "a whole number from 1")
        if not self.seconds >= 0:
            raise InputError("seconds", self.seconds, "a number of seconds that is not negative")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Proposal:
    """A structure that a source would like relaxed.

    Attributes
    ----------
    atoms
        The structure, periodic in three dimensions.
    operator
        What made it, in a word: "random", "heredity", "seed", …
    parents
        Ids of the candidates it was made from.
    tag
        Plain JSON that is handed back with the outcome: a particle, a tree path, a model version.
    cost
        What making it took.
    level
        Of the job that it becomes. What needs a calculator to be made (a Hessian, an escape by molecular dynamics) is
        part of that job, runs on a worker, and is counted there.
    given
        Whether a person brought the structure: what is expected of volumes and distances does not hold for it.
    alternatives
        Further structures of a job of the level "lowest", with the same contents as ``atoms``; the job relaxes the
        structure of lowest enthalpy among all of them. Their atoms are put in the order of ``atoms``.

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
                raise InputError("level", self.level, f"{LOWEST!r} for a proposal with alternatives")
            ordered = tuple(_in_same_order(atoms, self.atoms) for atoms in self.alternatives)
            object.__setattr__(self, "alternatives", ordered)


def _in_same_order(atoms: Atoms, first: Atoms) -> Atoms:
    """Return the bare structure with its atoms in the order of those of another structure with the same contents."""
    if sorted(atoms.numbers) != sorted(first.numbers):
        raise InputError("alternatives", str(atoms.symbols), f"structures with the contents of {first.symbols}")
    order = np.empty(len(first), dtype=int)
    order[np.argsort(first.numbers, kind="stable")] = np.argsort(atoms.numbers, kind="stable")
    return Atoms(first.numbers, cell=atoms.cell.array, positions=atoms.positions[order], pbc=True)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Candidate:
    """A proposal that the search has taken in, with the number it is known by from then on (from 1)."""

    proposal: Proposal
    id: int
    source: str

    @property
    def atoms(self) -> Atoms:
        """A copy of the proposed structure."""
        return self.proposal.atoms.copy()

    @property
    def starts(self) -> list[Atoms]:
        """The structures of which one was where its relaxation began: more than one at the level "lowest" only."""
        return [self.atoms, *(atoms.copy() for atoms in self.proposal.alternatives)]

    @property
    def operator(self) -> str:
        """What made it."""
        return self.proposal.operator


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Job:
    """Work for a backend: bring ``atoms`` to the end of ``level`` within ``limits``."""

    candidate: Candidate
    atoms: Atoms
    level: str = RELAX
    limits: Limits = Limits()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Evaluation:
    """One energy of one structure.

    Attributes
    ----------
    level
        The level of the job it ended.
    calculator
        Name and version. Only evaluations by the same calculator are compared.
    energy, enthalpy
        Of the whole cell in eV; they differ by pressure times volume.
    max_force
        Largest force on an atom in eV/Å; ``None`` where the calculator gave no forces.
    max_stress_residual
        Largest component of ``|stress + pressure|`` in eV/Å³; ``None`` where it gave no stress.
    magmoms
        Magnetic moments found by the calculator, shape ``(n_atoms,)``, in μ_B.
    """

    level: str
    calculator: str
    energy: float
    enthalpy: float
    max_force: float | None
    max_stress_residual: float | None
    magmoms: NDArray[Any] | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Outcome:
    candidate: Candidate
    sequence: int = 0  # 0 until the archive has numbered it
    cost: Cost = Cost()
    detail: str = ""
    #: Enthalpies per atom (eV) of ``candidate.starts`` at the level "lowest", ``None`` for what was passed over; empty
    #: at other levels, and where the job did not come so far.
    start_enthalpies: tuple[float | None, ...] = ()

    @property
    def starting_structures(self) -> list[Atoms]:
        """What its relaxation began with: one structure, or all that it may have been where nobody has told which."""
        chosen, starts = self.chosen, self.candidate.starts
        return starts if chosen is None else [starts[chosen]]

    @property
    def chosen(self) -> int | None:
        """Which of ``candidate.starts`` was relaxed, for its enthalpy is the lowest; ``None`` where nobody has told."""
        known = [(enthalpy, n) for n, enthalpy in enumerate(self.start_enthalpies) if enthalpy is not None]
        return min(known)[1] if known else None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Relaxed(_Outcome):
    """One relaxation that ended in a structure.

    Attributes
    ----------
    atoms, evaluation
        The structure and its energy.
    converged
        Whether it met its criterion.
    minimum
        Id of the minimum that it ended in, told by the archive; ``None`` if it did not converge.
    is_new_minimum
        Whether no relaxation had ended in that minimum before, told by the archive.
    """

    atoms: Atoms
    evaluation: Evaluation
    converged: bool
    minimum: int | None = None
    is_new_minimum: bool = False

    @property
    def level(self) -> str:
        """The level of the job."""
        return self.evaluation.level

    @property
    def enthalpy_per_atom(self) -> float:
        """In eV/atom."""
        return self.evaluation.enthalpy / len(self.atoms)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Failed(_Outcome):
    """One job that was started and came to nothing; ``atoms`` is the last structure seen, where there is one."""

    reason: FailureReason
    level: str = RELAX
    atoms: Atoms | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Rejected(_Outcome):
    """A proposal that was not relaxed."""

    reason: RejectionReason


Outcome = Relaxed | Failed | Rejected


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Minimum:
    """A basin of the energy landscape: all relaxations that ended in the same structure.

    Attributes
    ----------
    id
        From 1, in the order of discovery.
    best
        Its relaxation of lowest enthalpy per atom.
    found_by
        The candidate that reached it first.
    spacegroups
        Space group numbers of ``best`` at 0.01 Å and at 0.1 Å; ``None`` if they are only found when they are asked for.
    multiplicity
        How many relaxations ended here.
    first_relaxation
        1-based number, in completion order, of the relaxation that found it first.
    first_force_calls
        Force calls of the whole search up to and including that relaxation.
    """

    id: int
    best: Relaxed
    found_by: Candidate
    multiplicity: int
    first_relaxation: int
    first_force_calls: int
    spacegroups: tuple[int, int] | None = None

    @property
    def spacegroup(self) -> int:
        """Space group number of ``best`` at 0.01 Å."""
        return self._found_spacegroups[0]

    @property
    def spacegroup_loose(self) -> int:
        """Space group number of ``best`` at 0.1 Å."""
        return self._found_spacegroups[1]

    @cached_property
    def _found_spacegroups(self) -> tuple[int, int]:
        from hybridcsp.structure.symmetry import spacegroups

        return spacegroups(self.best.atoms) if self.spacegroups is None else self.spacegroups

    @property
    def atoms(self) -> Atoms:
        """A copy of the structure of ``best``, with its energy and, where there are any, forces and stress."""
        from hybridcsp.io.export import structure_of

        return structure_of(self)

    @property
    def enthalpy_per_atom(self) -> float:
        """In eV/atom."""
        return self.best.enthalpy_per_atom

    def write(self, path: Path | str, *, cell: str = "as-found") -> Path:
        """Write the structure to a file, in the format that its ending says: CIF, extended XYZ, POSCAR, .res, JSON.

        Parameters
        ----------
        path
            The file; see :func:`hybridcsp.io.structure_writer.structure_writer`.
        cell
            ``"as-found"``, ``"primitive"`` or ``"conventional"``.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            If the ending is unknown, or it cannot be written there.
        """
        from hybridcsp.io.export import export

        (file,) = export([self], path, cell=cell)
        return file

    def to_cif(self, path: Path | str, *, cell: str = "conventional") -> Path:
        """Write a CIF; by default of the conventional cell, with its symmetry. Otherwise as :meth:`write`."""
        from hybridcsp.io.export import export

        (file,) = export([self], path, format="cif", cell=cell)
        return file

    def __repr__(self) -> str:
        from hybridcsp.analysis.reprs import text_of_minimum

        return text_of_minimum(self)

    def _repr_html_(self) -> str:
        from hybridcsp.analysis.reprs import html_of_minimum

        return html_of_minimum(self)
