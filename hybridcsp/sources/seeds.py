"""Provide the source of structures from the user's files and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import InputError, NothingUsableError
from hybridcsp.io.formats import results_of
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.structure.symmetry import primitive
from hybridcsp.utils.paths import expanded

#: Largest number of unusable structures that an error lists.
_NAMED = 5


class SeedsSource(BaseSource):
    """Propose each structure of a file or folder once, files in order of name and frames in order.

    A structure is used as it is if its number of formula units is one of the problem's; one with more is reduced to its
    primitive cell if that has an allowed number. Initial magnetic moments and charges are kept; results,
    constraints and everything else in the file are dropped.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        A structure file (all its frames), or a folder (all its structure files, not those of folders inside), as
        :func:`~hybridcsp.io.structure_files.read_structures` reads them. A folder that another search code ran in
        (:data:`~hybridcsp.io.formats.FORMATS`) provides the structures that it found.

    Attributes
    ----------
    unusable
        Pairs of a place and a reason for each structure that cannot be used.

    Raises
    ------
    InputError
        If the path does not exist.
    NothingUsableError
        If no structure there can be used.
    """

    kind = "seeds"
    operator = "seed"

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        path = _existing_path(self.kind, argument)
        self.unusable: list[tuple[str, str]] = []
        self._proposals: list[Proposal] = []
        self._proposed = 0
        for found in _structures(path):
            self._take(found, problem)
        if not self._proposals:
            raise NothingUsableError("source", f"{self.kind}:{argument}", reason=self._complaint(problem))

    def status(self) -> SourceStatus:
        """Return EXHAUSTED once every seed has been proposed."""
        return SourceStatus.READY if self._proposed < len(self._proposals) else SourceStatus.EXHAUSTED

    def __len__(self) -> int:
        """Return the number of usable structures."""
        return len(self._proposals)

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return the next ``n`` structures; the tag of each contains its ``file`` and ``frame``, counted from 0."""
        return self._proposals[self._proposed : self._proposed + n]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Continue with the next structures."""
        self._proposed += len(candidates)

    def _take(self, found: Frame | ReadFailure, problem: Problem) -> None:
        if isinstance(found, ReadFailure):
            where = f"{found.file}, line {found.line}" if found.line > 1 else str(found.file)
            self.unusable.append((where, found.reason))
            return
        try:
            atoms = usable(found.atoms, problem)
        except UnusableError as reason:
            self.unusable.append((f"{found.file}, frame {found.number}", str(reason)))
            return
        tag = {"file": str(found.file), "frame": found.number}
        self._proposals.append(Proposal(atoms=atoms, operator=self.operator, tag=tag, given=True))

    def _complaint(self, problem: Problem) -> str:
        cell = f"{problem.units_in_words} formula units of {problem.formula}"
        wanted = f"at least one structure file must hold a periodic structure of {cell}"
        if not self.unusable:
            return f"the folder holds no files; {wanted}"
        named = "; ".join(f"{where}: {why}" for where, why in self.unusable[:_NAMED])
        more = len(self.unusable) - _NAMED
        return f"there is no usable structure ({named}{f'; and {more} more' if more > 0 else ''}); {wanted}"


def _existing_path(source: str, argument: str | None) -> Path:
    """Return the path in the argument of a source.

    Raises
    ------
    InputError
        If there is no argument, or the path does not exist.
    """
    if argument is None:
        raise InputError("source", source, f"{source}:PATH, with the path of a file or folder")
    path = expanded(argument)
    if not path.exists():
        raise InputError("source", f"{source}:{argument}", reason="there is no such file or folder")
    return path


def _structures(path: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures at a path: the results of another search code, or the structures of files."""
    code = results_of(path)
    if code is None:
        yield from read_structures(path)
        return
    for number, record in enumerate(code.read(path)):
        if isinstance(record, ReadFailure):
            yield record
        elif not record.failure:
            yield Frame(atoms=record.atoms, file=record.file or path, number=number, line=record.line)


class UnusableError(Exception):
    """A structure cannot be used; the message is the reason."""


def usable(found: Atoms, problem: Problem) -> Atoms:
    """Return the bare structure with its initial moments and charges, reduced to the primitive cell if needed.

    Raises
    ------
    UnusableError
        If its atoms, cell or moments do not fit the problem.
    """
    atoms = Atoms(numbers=found.numbers, positions=found.positions, cell=found.cell, pbc=True)
    for array in ("initial_magmoms", "initial_charges"):
        if found.has(array):
            values = found.get_array(array)
            if values.shape != (len(found),) or not np.isfinite(values).all():
                raise UnusableError(f"{array}: one finite number per atom is needed (no non-collinear moments)")
            atoms.set_array(array, values, float, ())
    units = problem.units_of(atoms.numbers)
    if units is None:
        raise UnusableError(f"{atoms.symbols.get_chemical_formula()} is not a whole number of {problem.formula}")
    if units in problem.units:
        return atoms
    if problem.cell is None:
        reduced = primitive(atoms)
        if problem.units_of(reduced.numbers) in problem.units:
            return reduced
    allowed = f"allowed {problem.units_in_words}"
    raise UnusableError(f"{units} formula units ({len(atoms)} atoms), {allowed}, also as a primitive cell")
