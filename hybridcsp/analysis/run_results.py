"""Read the result of each run of a comparison: its cost, when it reached the target, and what each source did."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import SearchState
from hybridcsp.core.records import ADDED
from hybridcsp.objectives.goals import BestValue
from hybridcsp.structure.conversion import to_pymatgen

#: A run has reached a target enthalpy if its best is at most this much above it (eV/atom).
TOLERANCE = 0.002

#: The operator name of random crystals. Other sources propose these too, while they have no parents of their own.
RANDOM = "random"

#: Reasons to stop after which a larger budget or another session could have improved the result.
_BY_BUDGET = (
    "relaxations used up",
    "force calls used up",
    "time used up",
    "best unchanged",
    "target reached",
    "interrupted",
    "error",
)


@dataclass(frozen=True, kw_only=True)
class SourceRole:
    """The conditions under which one source of a strategy is expected to propose candidates.

    Attributes
    ----------
    waiting_for
        The condition for its first proposal, as a phrase ("it starts after 6 minima"); empty if it needs none.
    learns
        Whether it is a generator that is retrained during the search.
    """

    waiting_for: str = ""
    learns: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceActivity:
    """The activity of one source in one run.

    Attributes
    ----------
    source
        Name of the source.
    relaxations
        Number of relaxations of candidates made by its own method, failures included.
    random
        Number of relaxations of random crystals that it proposed instead.
    proposed, rejected
        Number of candidates it proposed, and number of these rejected before relaxation.
    trainings
        Number of new versions of its generator; ``None`` for a source that does not learn.
    error
        Message of its last error; empty if there was none.
    """

    source: str
    relaxations: int = 0
    random: int = 0
    proposed: int = 0
    rejected: int = 0
    trainings: int | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of one run, as far as a comparison needs it.

    Attributes
    ----------
    problem, strategy, seed
        Labels of the run.
    relaxations, failed, rejected, force_calls, seconds
        Totals of the run; the seconds are those of relaxing and proposing.
    best
        Lowest enthalpy in eV/atom; ``None`` if no minimum was found.
    solved_at
        Number of relaxations and of force calls at which the target was reached; ``None`` if it was not.
    ended
        The reason why the run ended before its budget was used up, if a larger budget could not have helped (its
        sources were exhausted); empty otherwise.
    parts
        Activity of each source.
    objectives
        Best value of each objective with a goal, among the minima that meet the condition of the search.
    candidates
        Hash of the relaxed structures in order, equal for identical runs; empty if unknown.
    """

    problem: str
    strategy: str
    seed: int
    relaxations: int
    failed: int
    rejected: int
    force_calls: int
    seconds: float
    best: float | None
    solved_at: tuple[int, int] | None = None
    ended: str = ""
    parts: tuple[SourceActivity, ...] = field(default_factory=tuple)
    objectives: tuple[BestValue, ...] = ()
    candidates: str = ""


class NamedRun(Protocol):
    """One run of a comparison: its names, and the roles of its sources."""

    @property
    def problem(self) -> str:
        """Label of the problem."""

    @property
    def strategy(self) -> str:
        """Label of the strategy."""

    @property
    def seed(self) -> int:
        """Random seed."""

    @property
    def sources(self) -> Mapping[str, SourceRole]:
        """Role of each source by its name."""


class ComparedRun(NamedRun, Protocol):
    """One run of a comparison, such as those of :func:`hybridcsp.workflows.compare.plan`."""

    @property
    def directory(self) -> Path:
        """Run directory."""

    @property
    def relaxations(self) -> int:
        """Budget in relaxations."""


def is_random(source: str) -> bool:
    """Return whether a source is random search itself: ``random``, or ``random-2`` if it was named twice."""
    return source.partition("-")[0] == RANDOM


def read_results(runs: Iterable[ComparedRun], target: float | Atoms | None) -> list[RunResult]:
    """Read the results of all runs of a comparison.

    Parameters
    ----------
    runs
        The runs, finished or not.
    target
        The target: an enthalpy (eV/atom), a structure, or ``None`` for the lowest enthalpy that any run of the same
        problem has found.

    Returns
    -------
    list of RunResult
        One result for each run, in the same order.
    """
    runs = list(runs)
    if target is not None:
        return [_read_run(run, target) for run in runs]
    best: dict[str, float] = {}
    for run in runs:
        with Archive(run.directory) as archive:
            lowest = counted_state(archive, run.relaxations).lowest()
        if lowest is not None:
            best[run.problem] = min(lowest, best.get(run.problem, np.inf))
    return [_read_run(run, best.get(run.problem)) for run in runs]


def _read_run(run: ComparedRun, target: float | Atoms | None) -> RunResult:
    with Archive(run.directory) as archive:
        return read_result(
            archive,
            problem=run.problem,
            strategy=run.strategy,
            seed=run.seed,
            target=target,
            roles=run.sources,
            relaxations=run.relaxations,
        )


def read_result(
    archive: Archive,
    *,
    problem: str,
    strategy: str,
    seed: int,
    target: float | Atoms | None,
    roles: Mapping[str, SourceRole] | None = None,
    relaxations: int | None = None,
) -> RunResult:
    """Read the result of one run.

    Parameters
    ----------
    archive
        Archive of the run.
    problem, strategy, seed
        Labels of the run.
    target
        Target enthalpy (eV/atom) or structure; ``None`` if there is none yet.
    roles
        The sources of the strategy by name; by default those that have proposed a candidate.
    relaxations
        Budget in relaxations: later ones are ignored. By default all of them count.
    """
    state = counted_state(archive, relaxations)
    last = state.stops[-1] if state.stops else ""
    return RunResult(
        problem=problem,
        strategy=strategy,
        seed=seed,
        relaxations=state.relaxations,
        failed=state.tallies.failed().total(),
        rejected=state.tallies.rejected().total(),
        force_calls=state.cost.force_calls,
        seconds=state.cost.seconds,
        best=state.lowest(),
        solved_at=_structure_found_at(archive, state, target)
        if isinstance(target, Atoms)
        else _enthalpy_reached_at(state, target),
        ended="" if last in _BY_BUDGET else last,
        parts=_activities(state, roles),
        objectives=state.best_values(),
        candidates=_hash_of_candidates(archive, state),
    )


def counted_state(archive: Archive, relaxations: int | None) -> SearchState:
    """Return the state at the end of a budget of relaxations, or the last one if there is no budget."""
    if relaxations is not None and archive.state.relaxations > relaxations:
        return archive.state_until(relaxations)
    return archive.state


def _enthalpy_reached_at(state: SearchState, enthalpy: float | None) -> tuple[int, int] | None:
    if enthalpy is None:
        return None
    for relaxation, force_calls, lowest, *_ in state.improvements:
        if lowest <= enthalpy + TOLERANCE:
            return relaxation, force_calls
    return None


def _structure_found_at(archive: Archive, state: SearchState, structure: Atoms) -> tuple[int, int] | None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher, wanted = StructureMatcher(), to_pymatgen(structure)
    for minimum in sorted(archive.minima(), key=lambda minimum: minimum.first_relaxation):
        if minimum.first_relaxation > state.relaxations:
            break
        if matcher.fit(wanted, to_pymatgen(minimum.best.atoms)):
            return minimum.first_relaxation, minimum.first_force_calls
    return None


def _activities(state: SearchState, roles: Mapping[str, SourceRole] | None) -> tuple[SourceActivity, ...]:
    if roles is None:
        roles = {source: SourceRole() for source, _ in state.tallies if source != ADDED}
    activities = []
    for source, role in roles.items():
        own = state.tallies.of_source(source)
        ended = {operator: tally.relaxed + tally.failed.total() for operator, tally in own.items()}
        random = 0 if is_random(source) else ended.get(RANDOM, 0)
        trainings = [update for update in state.model_updates.get(source, ()) if "version" in update.training]
        activities.append(
            SourceActivity(
                source=source,
                relaxations=sum(ended.values()) - random,
                random=random,
                proposed=sum(tally.proposed for tally in own.values()),
                rejected=sum(tally.rejected.total() for tally in own.values()),
                trainings=len(trainings) if role.learns else None,
                error=state.last_errors.get(source, ""),
            )
        )
    return tuple(activities)


def _hash_of_candidates(archive: Archive, state: SearchState) -> str:
    found = hashlib.sha256()
    for id_, event in state.candidates.items():
        if state.status(id_) in ("relaxed", "failed") and event.source != ADDED:
            atoms = archive.candidate(id_).atoms
            found.update(atoms.numbers.astype(np.int64).tobytes())
            for array in (atoms.cell.array, atoms.positions):
                found.update((np.round(array, 6) + 0.0).astype(np.float64).tobytes())  # + 0.0 turns -0.0 into 0.0
    return found.hexdigest()[:16]
