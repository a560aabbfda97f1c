"""When a search ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms

from hybridcsp.archive.state import Basin, SearchState
from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.io.frames import Broken, Frame
from hybridcsp.io.structure_files import read_structures
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.validity import is_crystal_of

#: A best enthalpy that falls by less (eV/atom) is unchanged, and a target this much below it is reached.
UNCHANGED = 0.001

#: Relaxations of a search that nothing else limits.
DEFAULT_RELAXATIONS = 100


@dataclass(frozen=True)
class StoppingCriteria:
    """What a search may use, and what it does at its end; whichever limit is reached first ends it.

    Parameters
    ----------
    relaxations
        Relaxations started in the whole search, failures included. 100 if no limit at all is given.
    force_calls
        Force calls of the whole search; the relaxations that are running when it is reached are finished.
    hours
        Wall time of this run.
    stop_after_unchanged
        End after so many relaxations that did not lower the best enthalpy by more than 1 meV/atom.
    stop_at
        A structure file: end when a minimum matches it (``StructureMatcher`` with its default tolerances). Or an
        enthalpy in eV/atom: end when a minimum lies no more than 1 meV/atom above it.
    stop_after_failures
        End after so many relaxations that failed for the same reason, one after the other, before any has succeeded;
        0: never. :meth:`~hybridcsp.search.search.Search.run` then raises
        :class:`~hybridcsp.errors.RelaxationsFailedError`.
    refine
        How many of the best minima, within 50 meV/atom, are relaxed further at the end (to 0.01 eV/Å by default).

    Raises
    ------
    InputError
        For limits that are not positive.
    """

    relaxations: int | None = None
    force_calls: int | None = None
    hours: float | None = None
    stop_after_unchanged: int | None = None
    stop_at: float | str | None = None
    stop_after_failures: int = 10
    refine: int = 10

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("relaxations", "force_calls", "stop_after_unchanged"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(name, value, "a whole number from 1")
        if self.hours is not None and not self.hours > 0:
            raise InputError("hours", self.hours, "a positive number of hours")
        for name in ("stop_after_failures", "refine"):
            if getattr(self, name) < 0:
                raise InputError(name, getattr(self, name), "a whole number from 0")
        if isinstance(self.stop_at, str):
            try:
                object.__setattr__(self, "stop_at", float(self.stop_at))
            except ValueError:
                if not Path(self.stop_at).is_file():
                    allowed = "a structure file that exists, or an enthalpy in eV/atom"
                    raise InputError("stop_at", self.stop_at, allowed) from None
        if isinstance(self.stop_at, float) and not math.isfinite(self.stop_at):
            raise InputError("stop_at", self.stop_at, "a finite enthalpy in eV/atom")
        limits = (self.relaxations, self.force_calls, self.hours, self.stop_after_unchanged, self.stop_at)
        if all(limit is None for limit in limits):
            object.__setattr__(self, "relaxations", DEFAULT_RELAXATIONS)


class Target:
    """What a search is to find, so that it can stop there.

    Parameters
    ----------
    stop_at
        As in :class:`StoppingCriteria`.
    problem
        Whose composition a structure must have.

    Raises
    ------
    InputError
        If the file cannot be read, or holds something that the search cannot find.
    """

    def __init__(self, stop_at: float | str | None, problem: Problem) -> None:
        self._enthalpy = stop_at if isinstance(stop_at, float | int) else None
        self._structure: Any = None
        self._checked: set[int] = set()
        if isinstance(stop_at, str):
            atoms = read_target("stop_at", stop_at)
            if not is_crystal_of(atoms, problem):
                raise InputError("stop_at", stop_at, f"a crystal of {problem.formula}, not {atoms.symbols}")
            self._structure = to_pymatgen(atoms)

    def reached(self, state: SearchState, structure_of: Callable[[Basin], Atoms]) -> bool:
        """Whether a minimum meets the target; ``structure_of(basin)`` returns the structure of one."""
        if self._enthalpy is not None:
            lowest = state.lowest()
            return lowest is not None and lowest <= self._enthalpy + UNCHANGED
        if self._structure is None:
            return False
        from pymatgen.analysis.structure_matcher import StructureMatcher

        matcher = StructureMatcher()
        for basin in state.comparable():
            if basin.id not in self._checked:
                self._checked.add(basin.id)
                if matcher.fit(self._structure, to_pymatgen(structure_of(basin))):
                    self._checked.discard(basin.id)
                    return True
        return False


def read_target(key: str, file: str) -> Atoms:
    """Read the one structure of a file that a person names under a key.

    Raises
    ------
    InputError
        If the file cannot be read, or holds another number of structures: which one is meant is not to be guessed.
    """
    found = list(islice(read_structures(Path(file)), 2))
    broken = next((one for one in found if isinstance(one, Broken)), None)
    if broken is not None:
        raise InputError(key, file, f"a file with one crystal ({broken.reason})")
    if len(found) != 1:
        raise InputError(key, file, "a file with one structure; this one holds several")
    (frame,) = found
    assert isinstance(frame, Frame)
    return frame.atoms


def unchanged_since(state: SearchState) -> int:
    """Return how many relaxations have ended since the best enthalpy last fell by more than 1 meV/atom.

    Those of a calculator that is no longer in force do not count.
    """
    last, reference = 0, math.inf
    for relaxation, _, enthalpy in state.improvements:
        if enthalpy < reference - UNCHANGED:
            last, reference = relaxation, enthalpy
    return state.relaxations - max(last, state.calculator_since)
