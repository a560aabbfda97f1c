"""Other codes' files: what a code's structures are read into, and what is written for it to pick up.

One file for each code. A structure that cannot be read is a :class:`ReadFailure` in the stream, never an exception, and
nothing that could run code (a pickle) is ever read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ase import Atoms

from hybridcsp.io.frames import ReadFailure


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Record:
    """One structure, and what is said of it.

    Attributes
    ----------
    atoms
        The structure, bare.
    energy, enthalpy
        Of the whole cell in eV; ``None`` where it was not relaxed, or the files do not say.
    pressure_gpa
        External pressure; ``None`` where the files do not say.
    id, origin, generation
        What the code calls it, how it was made ("Heredity", "Random"), and when; empty or ``None`` where that is not
        said.
    calculator
        What the energies come from, as far as the files say: ``"VASP"``.
    start
        The structure before relaxation, where that is kept.
    failure
        Why its relaxation failed, if it did; then ``atoms`` is what was to be relaxed.
    converged
        Whether its relaxation came to its end.
    file, line
        Where it stands; lines count from 1.
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
class Settings:
    """What the writer of a format may need to know beside the structures.

    Attributes
    ----------
    elements
        All elements of the search, in the other code's order; where empty, the order in its input file, or that of
        their first occurrence in a formula sorted by electronegativity.
    generation
        The generation that is to begin with the structures; ``None`` for whichever comes next.
    """

    elements: tuple[str, ...] = ()
    generation: int | None = None


class Format(Protocol):
    """The files of one code; built without arguments."""

    name: str

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this format: by names, and the first lines where names do not decide."""

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield what is there in the order in which it was found, one structure in memory at a time."""

    def write(self, records: Iterable[Record], path: Path, settings: Settings) -> str:
        """Write structures where the code picks them up, ``path`` being the folder it runs in.

        Returns
        -------
        str
            What was written, and what to set in the code's own input.

        Raises
        ------
        InputError
            If there is nothing to write or it cannot be written there.
        """


@runtime_checkable
class Generational(Format, Protocol):
    """A code that searches in generations.

    Attributes
    ----------
    takes_seeds_between
        Whether it picks structures up between generations; otherwise only when it starts.
    """

    takes_seeds_between: bool

    def finished(self, path: Path) -> int:
        """Return how many generations have ended (0 before the first has); they count from 1."""

    def elements(self, path: Path) -> tuple[str, ...]:
        """Return all elements in the order of the code's input; none where that does not say."""

    def waiting(self, path: Path) -> bool:
        """Whether it is too early to write seeds: those of before were not picked up yet, or it has no use for any."""
