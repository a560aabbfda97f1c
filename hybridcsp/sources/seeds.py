"""Structures that a person brings: files and folders of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Proposal
from hybridcsp.errors import InputError
from hybridcsp.io.formats import results_of
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.structure.symmetry import primitive

#: How many of the unusable structures an error names.
_NAMED = 5


class SeedsSource(BaseSource):
    """Structures from files, each proposed once, in order: files by name, frames as they stand.

    A seed is taken as it is where its number of formula units is one of the problem's; one with more is reduced to its
    primitive cell if that helps. Initial magnetic moments and charges stay; results, constraints and whatever else
    the file brought are left behind.

    Parameters
    ----------
    problem
        What is searched.
    argument
        A structure file (all its frames), or a folder (all its structure files, not those of folders inside), as
        :func:`~hybridcsp.io.structure_files.read_structures` reads them. A folder that another search code ran in
        (:data:`~hybridcsp.io.formats.FORMATS`) gives what it found.

    Attributes
    ----------
    unusable
        Where each structure is that cannot be used, and why.

    Raises
    ------
    InputError
        If there is nothing at that path, or no structure there can be used.
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
            raise InputError("source", f"{self.kind}:{argument}", self._complaint(problem))

    def status(self) -> SourceStatus:
        """Return EXHAUSTED once every seed has been proposed."""
        return SourceStatus.READY if self._proposed < len(self._proposals) else SourceStatus.EXHAUSTED

    def __len__(self) -> int:
        """Return how many usable structures there are."""
        return len(self._proposals)

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return the next ``n`` seeds; the tag of each holds its ``file`` and ``frame``, counted from 0."""
        return self._proposals[self._proposed : self._proposed + n]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Go on to the next ones."""
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
        wanted = f"needed is a periodic structure of {cell} in a structure file"
        if not self.unusable:
            return f"the folder holds no files; {wanted}"
        named = "; ".join(f"{where}: {why}" for where, why in self.unusable[:_NAMED])
        more = len(self.unusable) - _NAMED
        return f"no usable structure ({named}{f'; and {more} more' if more > 0 else ''}); {wanted}"


def _existing_path(source: str, argument: str | None) -> Path:
    """Return the path that follows a source's name.

    Raises
    ------
    InputError
        If there is none, or nothing there.
    """
    if argument is None:
        raise InputError("source", source, f"say which file or folder: {source}:PATH")
    path = Path(argument).expanduser()
    if not path.exists():
        raise InputError("source", f"{source}:{argument}", "no such file or folder")
    return path


def _structures(path: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures at a path: what a search code found, or those of files."""
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
    """Why a structure cannot be searched from."""


def usable(found: Atoms, problem: Problem) -> Atoms:
    """Return the bare structure with its initial moments and charges.

    Raises
    ------
    UnusableError
        If it cannot be searched from.
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
