"""Read the results of searches of chemical systems for a comparison: known phases found, and distances of the hull."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from hybridcsp.analysis.run_results import (
    TOLERANCE,
    ComparedRun,
    NamedRun,
    RunResult,
    SourceActivity,
    counted_state,
    read_result,
)
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.history import ModelUpdate, SourceCall
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.hull import Hull
from hybridcsp.core.outcomes import Failed, Relaxed
from hybridcsp.core.records import ADDED, REFINE
from hybridcsp.core.system import System
from hybridcsp.errors import InputError
from hybridcsp.objectives.goals import best_of_all

#: Fraction of the known phases that a run must find to count as solved.
ENOUGH = 0.8

# Height in eV/atom up to which enthalpies are the same: relaxations repeat no better.
_SAME = 1e-6


class ComparedSystemRun(NamedRun, Protocol):
    """One run of a comparison on a chemical system: a search of it, or searches of its compositions."""

    @property
    def system(self) -> System:
        """The chemical system."""

    @property
    def parts(self) -> Sequence[ComparedRun]:
        """Its searches: one of the system, or one for each composition with its formula as the problem."""


class LoweredMinimum(NamedTuple):
    """A minimum that is lower than all earlier ones of its composition.

    Attributes
    ----------
    relaxation, force_calls
        Numbers of relaxations and force calls of the whole run until it was found.
    formula
        Its composition.
    enthalpy_per_atom
        Its enthalpy in eV/atom.
    """

    relaxation: int
    force_calls: int
    formula: str
    enthalpy_per_atom: float


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownPhases:
    """The phases on the hull that runs of one system are measured by.

    Attributes
    ----------
    hull
        Hull of the phases.
    enthalpies
        Enthalpies in eV/atom of those on it that are searched, by composition; the elements are among them.
    notes
        Sentences about phases that do not count.
    """

    hull: Hull
    enthalpies: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def _elements(self) -> dict[str, float]:
        return {element: self.hull.enthalpies[element] for element in self.hull.elements}

    def distance(self, lowest: Mapping[str, float]) -> float:
        """Return by how much a hull lies above the known phases in meV/atom, summed over them.

        A phase at which it lies lower, or less than 10⁻⁶ eV/atom higher, counts as zero. The elements have their known
        enthalpies or lower ones, so that there is a hull before all of them are found, and the distance never rises.

        Parameters
        ----------
        lowest
            Lowest enthalpies of the compositions in eV/atom.
        """
        own = Hull(self.hull.elements)
        for formula, enthalpy in {**lowest, **self._elements}.items():
            own.put(formula, min(enthalpy, lowest.get(formula, enthalpy)))
        heights = [own.energy(formula) or 0.0 for formula in self.enthalpies]
        known = self.enthalpies.values()
        above = (own - known for own, known in zip(heights, known, strict=True))
        return 1000 * sum(height for height in above if height > _SAME)


@dataclass(frozen=True, kw_only=True)
class SystemRunResult(RunResult):
    """The result of one run on a chemical system; it is solved when it has found four fifths of the known phases.

    Attributes
    ----------
    phases, found
        Number of known phases on their hull, and number of those that were found: a minimum of the composition is at
        most 2 meV/atom above the phase.
    found_at
        Numbers of relaxations and force calls at which each was found, by composition.
    lower
        Heights in meV/atom of minima that lie more than 2 meV/atom below the hull of the known phases, by composition.
    distance_mev
        Height in meV/atom of the hull at the end above the known phases, summed over them.
    area_mev
        Mean of this distance over the force calls up to the end of the shortest run of the problem.
    curve
        Force calls and the distance from there on.
    """

    phases: int
    found: int
    distance_mev: float
    area_mev: float = math.nan
    found_at: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    lower: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()


def read_system_results(
    runs: Iterable[ComparedSystemRun], known: Mapping[str, Path]
) -> tuple[list[SystemRunResult], dict[str, KnownPhases]]:
    """Read the results of all runs of a comparison of chemical systems, and the known phases of each problem.

    Parameters
    ----------
    runs
        The runs, finished or not.
    known
        Run directories in which the known phases of problems were relaxed. Those of the other problems are the phases
        on the hull of all minima of their runs.

    Raises
    ------
    InputError
        If no run of a problem has a minimum of one of the elements.
    """
    runs = list(runs)
    read = [_read_run(run) for run in runs]
    phases = {}
    for run in runs:
        if run.problem not in phases:
            courses = [course for other, (_, course) in zip(runs, read, strict=True) if other.problem == run.problem]
            phases[run.problem] = known_phases(run.system, known.get(run.problem), courses)
    results = [_measured(result, course, phases[run.problem]) for run, (result, course) in zip(runs, read, strict=True)]
    return with_areas(results), phases


def known_phases(system: System, directory: Path | None, courses: Iterable[Sequence[LoweredMinimum]]) -> KnownPhases:
    """Return the known phases of a system.

    Parameters
    ----------
    system
        The system.
    directory
        Run directory in which given phases were relaxed; without it the lowest minima of all runs count.
    courses
        Minima of all runs. They also provide the elements of which no phase was given.

    Raises
    ------
    InputError
        If an element has neither a given phase nor a minimum.
    """
    lowest: dict[str, float] = {}
    for course in courses:
        for one in course:
            lowest[one.formula] = min(one.enthalpy_per_atom, lowest.get(one.formula, math.inf))
    notes: list[str] = []
    counted = dict(lowest)
    if directory is not None:
        with Archive(directory) as archive:
            state = archive.state
        assert isinstance(state, SystemState)
        given: dict[str, float] = {}
        for basin in state.ranked():
            if basin.id in state.references and not basin.suspect:
                formula = state.formula_of(basin.found_by)
                given[formula] = min(basin.enthalpy_per_atom, given.get(formula, math.inf))
        failed = state.tallies.failed().total()
        if failed:
            notes.append(
                f"{failed} of {state.relaxations} known phases of {system.formula} could not be relaxed and do not "
                "count."
            )
        counted = {element: lowest[element] for element in system.elements if element in lowest} | given
    if missing := [element for element in system.elements if element not in counted]:
        reason = (
            f"no run of {system.formula} has found a minimum of {' and '.join(missing)}, without which there is no "
            "convex hull; allow more relaxations, or give the elements with --reference FILE"
        )
        raise InputError("relaxations", None, reason=reason)
    hull = _hull_of(system, counted)
    stable = {formula: counted[formula] for formula in hull.stable}
    if left_out := [formula for formula in stable if formula not in system.compositions]:
        notes.append(
            f"{' and '.join(left_out)} {'is' if len(left_out) == 1 else 'are'} on the hull of the known phases of "
            f"{system.formula} but not searched."
        )
    enthalpies = {formula: value for formula, value in stable.items() if formula in system.compositions}
    return KnownPhases(hull=hull, enthalpies=enthalpies, notes=tuple(notes))


def with_areas(results: Sequence[SystemRunResult]) -> list[SystemRunResult]:
    """Return results with the mean distances over the force calls that all runs of a problem have made."""
    ends: dict[str, int] = {}
    for result in results:
        if result.force_calls:
            ends[result.problem] = min(result.force_calls, ends.get(result.problem, result.force_calls))
    return [replace(result, area_mev=_mean(result.curve, ends.get(result.problem, 0))) for result in results]


def _mean(curve: Sequence[tuple[int, float]], end: int) -> float:
    """Return the mean of a step function, given by the places and values of its steps, from zero to an end."""
    if end == 0:
        return curve[0][1]
    places = [min(place, end) for place, _ in curve] + [end]
    return sum((places[i + 1] - places[i]) * value for i, (_, value) in enumerate(curve)) / end


def _measured(result: RunResult, course: Sequence[LoweredMinimum], known: KnownPhases) -> SystemRunResult:
    """Return the result of a run measured by the known phases."""
    lowest: dict[str, float] = {}
    found_at: dict[str, tuple[int, int]] = {}
    curve = [(0, known.distance({}))]
    for one in course:
        lowest[one.formula] = one.enthalpy_per_atom
        goal = known.enthalpies.get(one.formula)
        if goal is not None and one.enthalpy_per_atom <= goal + TOLERANCE:
            found_at.setdefault(one.formula, (one.relaxation, one.force_calls))
        distance = known.distance(lowest)
        if distance != curve[-1][1]:
            curve.append((one.force_calls, distance))
    order = sorted(found_at.values())
    needed = math.ceil(ENOUGH * len(known.enthalpies))
    heights = {formula: known.hull.height(formula, enthalpy) or 0.0 for formula, enthalpy in lowest.items()}
    return SystemRunResult(
        **{one.name: getattr(result, one.name) for one in fields(RunResult) if one.name != "solved_at"},
        solved_at=order[needed - 1] if len(order) >= needed else None,
        phases=len(known.enthalpies),
        found=len(order),
        found_at=found_at,
        lower={formula: 1000 * height for formula, height in heights.items() if height < -TOLERANCE},
        distance_mev=curve[-1][1],
        curve=tuple(curve),
    )


def _read_run(run: ComparedSystemRun) -> tuple[RunResult, list[LoweredMinimum]]:
    """Return the totals of a run, and the minima that lowered the best of their compositions in their order."""
    results, minima, paces = [], [], []
    for part in run.parts:
        with Archive(part.directory) as archive:
            results.append(
                read_result(
                    archive,
                    problem=run.problem,
                    strategy=run.strategy,
                    seed=run.seed,
                    target=None,
                    roles=run.sources,
                    relaxations=part.relaxations,
                )
            )
            state = counted_state(archive, part.relaxations)
            minima.append(_minima(state, part.problem))
            paces.append(_pace(archive, state.relaxations) if len(run.parts) > 1 else None)
    if len(run.parts) == 1:
        return results[0], _lowering(minima[0])
    return _joined(results), _lowering(_side_by_side(minima, [pace or [0] for pace in paces]))


def _minima(state: SearchState, formula: str) -> list[LoweredMinimum]:
    """Return all minima of a search; ``formula`` is their composition in a search of one formula."""
    return [
        LoweredMinimum(
            basin.first_relaxation,
            basin.first_force_calls,
            state.formula_of(basin.found_by) if isinstance(state, SystemState) else formula,
            basin.enthalpy_per_atom,
        )
        for basin in state.ranked()
        if not basin.suspect
    ]


def _pace(archive: Archive, relaxations: int) -> list[int]:
    """Return the force calls of a search after 0, 1, 2, … relaxations."""
    calls, ends = 0, [0]
    for past in archive.history():
        if len(ends) > relaxations:
            break
        if isinstance(past, SourceCall | ModelUpdate | Relaxed | Failed):
            calls += past.cost.force_calls
        if isinstance(past, Relaxed | Failed) and past.level != REFINE and past.candidate.source != ADDED:
            ends.append(calls)
    return ends


def _side_by_side(minima: Sequence[Sequence[LoweredMinimum]], paces: Sequence[Sequence[int]]) -> list[LoweredMinimum]:
    """Return the minima of searches that take turns, one relaxation each."""
    found = []
    for number, own in enumerate(minima):
        for one in own:
            done = [min(one.relaxation - (other > number), len(pace) - 1) for other, pace in enumerate(paces)]
            calls = sum(pace[n] for pace, n in zip(paces, done, strict=True))
            found.append(one._replace(relaxation=sum(done), force_calls=calls))
    return found


def _lowering(minima: Iterable[LoweredMinimum]) -> list[LoweredMinimum]:
    """Return the minima that are lower than all earlier ones of their compositions, in the order of their discovery."""
    lowest: dict[str, float] = {}
    found = []
    for one in sorted(minima, key=lambda one: one.relaxation):
        if one.enthalpy_per_atom < lowest.get(one.formula, math.inf):
            lowest[one.formula] = one.enthalpy_per_atom
            found.append(one)
    return found


def _joined(results: Sequence[RunResult]) -> RunResult:
    """Return the result of a run that consists of several searches."""
    activities: dict[str, SourceActivity] = {}
    for part in (part for result in results for part in result.parts):
        before = activities.get(part.source, SourceActivity(source=part.source))
        trained = [one.trainings for one in (before, part) if one.trainings is not None]
        activities[part.source] = SourceActivity(
            source=part.source,
            relaxations=before.relaxations + part.relaxations,
            random=before.random + part.random,
            proposed=before.proposed + part.proposed,
            rejected=before.rejected + part.rejected,
            trainings=sum(trained) if trained else None,
            error=part.error or before.error,
        )
    return replace(
        results[0],
        relaxations=sum(result.relaxations for result in results),
        failed=sum(result.failed for result in results),
        rejected=sum(result.rejected for result in results),
        force_calls=sum(result.force_calls for result in results),
        seconds=sum(result.seconds for result in results),
        best=None,
        ended=results[0].ended if all(result.ended for result in results) else "",
        parts=tuple(activities.values()),
        objectives=tuple(best_of_all(values) for values in zip(*(one.objectives for one in results), strict=True)),
        candidates=" ".join(result.candidates for result in results),
    )


def _hull_of(system: System, lowest: Mapping[str, float]) -> Hull:
    hull = Hull(system.elements)
    for formula, enthalpy in lowest.items():
        hull.put(formula, enthalpy)
    return hull
