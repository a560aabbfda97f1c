"""Abstract base classes of formats, and the records that they read and write.

Each code has a module of its own. A structure that cannot be read is a
:class:`~hybridcsp.io.frames.ReadFailure` among the records, never an exception. Formats never read pickles, which can
run code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from hybridcsp.io.frames import ReadFailure


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Record:
    """One structure of another code.

    Attributes
    ----------
    atoms
        The structure, without calculator and annotations.
    energy, enthalpy
        Energy and enthalpy of the cell in eV; ``None`` if the structure was not relaxed or the files do not state them.
    pressure_gpa
        External pressure in GPa; ``None`` if the files do not state it.
    id
        The code's identifier of the structure; empty if it has none.
    origin
        The code's name of the operation that made the structure ("Heredity", "Random"); empty if unknown.
    generation
        The generation that the structure belongs to, counted from 1; ``None`` if unknown.
    calculator
        The program that computed the energy ("VASP"); empty if unknown.
    start
        The structure before relaxation; ``None`` if it was not kept.
    failure
        The cause if the relaxation failed, empty otherwise. After a failure, ``atoms`` is the unrelaxed structure.
    converged
        Whether the relaxation converged.
    file, line
        The location of the structure; lines count from 1.
    """

    atoms: Atoms
    energy: float | None = None
    enthalpy: float | None = None
    pressure_gpa: float | None = None
    id: str = ""
    origin: str = ""
    generation: int | None = None
    calculator: str = ""
    start: Atoms | None = None
    failure: str = ""
    converged: bool = True
    file: Path | None = None
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class SeedSettings:
    """Settings of :meth:`Format.write`.

    Attributes
    ----------
    elements
        All elements of the search, in the order of the code's input; if empty, the order is read from the input file,
        or else is that of increasing electronegativity.
    generation
        The generation that the seeds are for; ``None`` for the next one.
    """

    elements: tuple[str, ...] = ()
    generation: int | None = None


class Format(ABC):
    """Abstract base class of file formats of other codes.

    Subclasses set ``name``, implement :meth:`recognises`, :meth:`read` and :meth:`write`, and are built without
    arguments. Another package registers its own with an entry point of the group ``hybridcsp.formats``. A code that
    searches in generations subclasses :class:`Generational`.

    Attributes
    ----------
    name
        The registered name.
    """

    name: str

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether a file or folder has this format.

        Called for every path that is imported without ``--format``, so it should go by the names of files, and look
        into them only if names do not decide.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield the structures in the order in which the code found them, holding one at a time in memory.

        Called again for every import of the same path; structures that were imported before are recognised by their
        :attr:`Record.id`.
        """

    @abstractmethod
    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write structures to where the code reads its seeds.

        Parameters
        ----------
        records
            The structures.
        path
            The folder that the code runs in.
        settings
            The order of elements, and the generation to seed.

        Returns
        -------
        str
            A message about what was written, and about settings that the code's own input needs.

        Raises
        ------
        InputError
            If there is no structure, or the files cannot be written.
        """


class Generational(Format):
    """Abstract base class of formats of codes that search in generations.

    :class:`~hybridcsp.workflows.watch.Watch` reads the results of each generation that has ended, and supplies seeds
    for the next.

    Attributes
    ----------
    accepts_seeds_while_running
        Whether the code reads seeds between generations; otherwise it reads them only when it starts.
    """

    accepts_seeds_while_running: bool = False

    @abstractmethod
    def finished_generations(self, path: Path) -> int:
        """Return the number of generations that have ended; called each time that the code is looked at."""

    def elements(self, path: Path) -> tuple[str, ...]:
        """Return all elements in the order of the code's input, empty if the input does not state it."""
        return ()

    def ready_for_seeds(self, path: Path) -> bool:
        """Return whether seeds can be written now.

        Called before seeds are written while the code runs. Returns ``False`` as long as the code has not read the
        previous seeds, or does not expect any yet.
        """
        return True
