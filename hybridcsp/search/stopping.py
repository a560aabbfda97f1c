"""Criteria that end a search, and their check against its state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.basins import Basin
from hybridcsp.archive.events import CandidateRelaxed
from hybridcsp.archive.follow_up_events import FollowUpRelaxed
from hybridcsp.archive.follow_ups import FollowUpMinimum
from hybridcsp.archive.history import Improvement
from hybridcsp.archive.state import ALL_FAILED, SearchState
from hybridcsp.core.problem import Problem
from hybridcsp.core.system import System
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.search.user_results import problem_of
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.validity import is_crystal_of
from hybridcsp.utils.checks import whole_number

#: Tolerance of the best enthalpy (eV/atom): a smaller decrease does not count as an improvement, and a target this
#: much lower is reached.
UNCHANGED = 0.001

#: Maximum number of relaxations of a search that has no other stopping criterion.
DEFAULT_RELAXATIONS = 100

#: The reason recorded for a run whose wall time has passed.
TIME_USED_UP = "time used up"


@dataclass(frozen=True)
class StoppingCriteria:
    """Limits of a search, of which the first that is reached ends it, and the refinement at its end.

    Parameters
    ----------
    relaxations
        Maximum number of relaxations started in the whole search, failures included. 100 if no limit at all is given.
    force_calls
        Maximum number of force calls in the whole search; relaxations that are running at that time are finished.
    hours
        Maximum wall time of this run.
    stop_after_unchanged
        Number of consecutive relaxations that did not lower the best enthalpy by more than 1 meV/atom. Where follow-ups
        count, it is the best by the last follow-up calculator.
    stop_at
        A structure file: the search ends when a minimum matches it (``StructureMatcher`` with its default tolerances).
        Or an enthalpy in eV/atom: the search ends when a minimum lies at most 1 meV/atom above it. Where follow-ups
        count, these are the minima and enthalpies of the last follow-up calculator.
    stop_after_failures
        Number of consecutive relaxations that failed for the same reason before any has succeeded; 0 turns this
        criterion off. :meth:`~hybridcsp.search.search.Search.run` then raises
        :class:`~hybridcsp.errors.RelaxationsFailedError`.
    refine
        Number of the best minima, within 50 meV/atom, that are relaxed further at the end (to 0.01 eV/Å by default).

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
            if (value := getattr(self, name)) is not None:
                whole_number(name, value, "a whole number from 1")
        if self.hours is not None and not (isinstance(self.hours, Real) and self.hours > 0):
            raise InputError("hours", self.hours, "a positive number of hours")
        for name in ("stop_after_failures", "refine"):
            whole_number(name, getattr(self, name), "a whole number from 0", least=0)
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


def stopping_criteria(criteria: StoppingCriteria | None, changes: Mapping[str, Any]) -> StoppingCriteria:
    """Return stopping criteria in which some fields are replaced, or new ones made of these fields.

    Raises
    ------
    UnknownNameError
        If there is no field of that name.
    """
    known = [field.name for field in fields(StoppingCriteria)]
    for name in changes:
        if name not in known:
            raise UnknownNameError("keyword", name, known)
    return replace(criteria, **changes) if criteria else StoppingCriteria(**changes)


class StoppingCheck:
    """Check the stopping criteria of a run; its wall time is counted from the construction of this object.

    Parameters
    ----------
    criteria
        The stopping criteria.
    problem
        The problem that is searched.
    archive
        The archive of the search.
    follow_ups_left
        Returns whether minima wait for a follow-up relaxation. If it is given, criteria about the best minimum count
        the minima of the last follow-up calculator, and the search goes on while the last ones are not known.

    Raises
    ------
    InputError
        If the target cannot be read, or is not a structure of the problem.
    """

    def __init__(
        self,
        criteria: StoppingCriteria,
        problem: Problem | System,
        archive: Archive,
        follow_ups_left: Callable[[], bool] | None = None,
    ) -> None:
        self._criteria = criteria
        self._archive = archive
        self._follow_ups_left = follow_ups_left
        self._target = Target(criteria.stop_at, problem)
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, in seconds."""
        return time.monotonic() - self._start

    @property
    def is_time_used_up(self) -> bool:
        """Whether the wall time of the run has passed."""
        return self._criteria.hours is not None and self.seconds >= 3600 * self._criteria.hours

    def allows_another(self, running: int) -> bool:
        """Return whether one more relaxation may start while this number of them is running."""
        limit = self._criteria.relaxations
        return limit is None or self._archive.state.relaxations + running < limit

    def criterion_met(self, *, compare_energies: bool) -> str:
        """Return a stopping criterion that is met, in words; empty if none is.

        Parameters
        ----------
        compare_energies
            Whether the energies in the archive are those of the calculator in use. Criteria about the best enthalpy
            are not checked otherwise.
        """
        criteria, state = self._criteria, self._archive.state
        if compare_energies and self._is_target_reached():
            return "target reached"
        failures = state.worker_results.failures
        if failures is not None and 0 < criteria.stop_after_failures <= failures.count:
            return ALL_FAILED
        if criteria.relaxations is not None and state.relaxations >= criteria.relaxations:
            return "relaxations used up"
        if criteria.force_calls is not None and state.cost.force_calls >= criteria.force_calls:
            return "force calls used up"
        if compare_energies and self._is_unchanged():
            return "best unchanged"
        return TIME_USED_UP if self.is_time_used_up else ""

    def _is_target_reached(self) -> bool:
        """Return whether a minimum of the calculator that counts reaches the target."""
        state, structure_of = self._archive.state, self._archive.structure_of
        if self._follow_ups_left is None:
            return self._target.reached(state.lowest(), state.newest_first(), structure_of)
        if not state.follow_ups.levels:
            return False
        level = state.follow_ups.levels[-1]
        return self._target.reached(level.lowest(), level.newest_first(), structure_of)

    def _is_unchanged(self) -> bool:
        """Return whether the best minimum of the last calculator with results has stayed the same for long enough."""
        limit, state = self._criteria.stop_after_unchanged, self._archive.state
        if limit is None:
            return False
        if self._follow_ups_left is None:
            return unchanged_since(state, state.improvements) >= limit
        known = [level.improvements for level in state.follow_ups if level.results]
        unchanged = unchanged_since(state, known[-1] if known else state.improvements)
        return unchanged >= limit and not self._follow_ups_left()


class Target:
    """A structure or an enthalpy at which a search stops.

    Parameters
    ----------
    stop_at
        A structure file or an enthalpy, as in :class:`StoppingCriteria`.
    problem
        The problem, whose composition the structure must have.

    Raises
    ------
    InputError
        If the file cannot be read, or holds a structure that the search cannot find.
    """

    def __init__(self, stop_at: float | str | None, problem: Problem | System) -> None:
        self._enthalpy = stop_at if isinstance(stop_at, float | int) else None
        self._structure: Any = None
        self._checked: dict[str, int] = {}  # by calculator, the id of the last minimum that was compared
        if self._enthalpy is not None and isinstance(problem, System):
            reason = "enthalpies of different compositions are not compared; give a structure file"
            raise InputError("stop_at", stop_at, reason=reason)
        if isinstance(stop_at, str):
            atoms = read_target("stop_at", stop_at)
            if isinstance(problem, System):
                problem = problem_of(atoms, problem)
            if not is_crystal_of(atoms, problem):
                raise InputError("stop_at", stop_at, f"a structure file of {problem.formula}, not of {atoms.symbols}")
            self._structure = to_pymatgen(atoms)

    def reached(
        self,
        lowest: float | None,
        minima: Iterable[Basin | FollowUpMinimum],
        structure_of: Callable[[CandidateRelaxed | FollowUpRelaxed], Atoms],
    ) -> bool:
        """Return whether a minimum of a calculator reaches the target.

        Parameters
        ----------
        lowest
            Lowest enthalpy in eV/atom; ``None`` if there is no minimum.
        minima
            All minima, newest first. Their ids ascend in the order of discovery.
        structure_of
            Function that reads the structure in which a relaxation ended.
        """
        if self._enthalpy is not None:
            return lowest is not None and lowest <= self._enthalpy + UNCHANGED
        if self._structure is None:
            return False
        from pymatgen.analysis.structure_matcher import StructureMatcher

        matcher = StructureMatcher()
        newest: dict[str, int] = {}
        for minimum in minima:
            calculator = minimum.best.calculator
            if minimum.id <= self._checked.get(calculator, 0):
                break
            newest.setdefault(calculator, minimum.id)
            if matcher.fit(self._structure, to_pymatgen(structure_of(minimum.best))):
                return True
        self._checked |= newest
        return False


def read_target(key: str, file: str) -> Atoms:
    """Read the one structure of a file.

    Parameters
    ----------
    key
        The option that names the file, for error messages.
    file
        The path of the file.

    Raises
    ------
    InputError
        If the file cannot be read or does not contain exactly one structure.
    """
    found = list(islice(read_structures(Path(file)), 2))
    broken = next((one for one in found if isinstance(one, ReadFailure)), None)
    if broken is not None:
        raise InputError(key, file, f"a file with exactly one crystal ({broken.reason})")
    if len(found) != 1:
        raise InputError(key, file, "a file with exactly one structure; this one holds several")
    (frame,) = found
    assert isinstance(frame, Frame)
    return frame.atoms


def unchanged_since(state: SearchState, improvements: Iterable[tuple[int, int, float] | Improvement]) -> int:
    """Return the number of relaxations since the best enthalpy last fell by more than 1 meV/atom.

    Relaxations with a calculator that is not in use any more do not count.

    Parameters
    ----------
    state
        State of the search.
    improvements
        Relaxation, force calls and enthalpy (eV/atom) of every new best minimum of the calculator that counts.
    """
    last, reference = 0, math.inf
    for relaxation, _, enthalpy, *_ in improvements:
        if enthalpy < reference - UNCHANGED:
            last, reference = relaxation, enthalpy
    return state.relaxations - max(last, state.calculator_since)
