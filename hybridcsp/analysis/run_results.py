"""Traces of the runs of a comparison: cost, arrival at the target, and the sources of the relaxations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import SearchState
from hybridcsp.core.records import ADDED
from hybridcsp.structure.conversion import to_pymatgen

#: A run has solved a problem when its best lies no more than this above the target (eV/atom).
TOLERANCE = 0.002

#: The operator of random crystals, which other sources propose, too, while they have nothing of their own to offer.
RANDOM = "random"

#: Ends of runs that more relaxations or another session could have taken further.
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
class Role:
    """The conditions under which one source of a strategy is expected to act.

    Attributes
    ----------
    starts
        When it begins to act, in words; empty for one that always can.
    learns
        Whether it is a generator that is retrained during the search.
    """

    starts: str = ""
    learns: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """The activity of one source in one run.

    Attributes
    ----------
    source
        Its name.
    relaxations
        Relaxations of candidates that its own method made, failures included.
    random
        Relaxations of random crystals that it proposed instead.
    proposed, rejected
        Candidates it offered, and how many of them were not relaxed.
    trainings
        New versions of its generator that were trained; ``None`` for a source that does not learn.
    error
        What it raised last, if anything.
    """

    source: str
    relaxations: int = 0
    random: int = 0
    proposed: int = 0
    rejected: int = 0
    trainings: int | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The record of one run, as far as it matters for a comparison.

    Attributes
    ----------
    problem, strategy, seed
        Which run it is.
    relaxations, failed, rejected, force_calls, seconds
        What it used in all; seconds are those of relaxing and proposing.
    best
        Lowest enthalpy per atom in eV, ``None`` if it found no minimum.
    solved_at
        Relaxations and force calls when it met the target; ``None`` if it did not.
    ended
        Why it ended before its budget was used up, where more budget would not have helped (its sources had nothing
        more to offer); empty otherwise.
    parts
        What each of its sources did.
    candidates
        A hash of the structures that were relaxed, in order, the same for runs that are the same; empty if unknown.
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
    parts: tuple[Part, ...] = field(default_factory=tuple)
    candidates: str = ""


def is_random(source: str) -> bool:
    """Whether a source is random search itself: ``random``, or ``random-2`` where it was named twice."""
    return source.partition("-")[0] == RANDOM


def trace_of(
    archive: Archive,
    *,
    problem: str,
    strategy: str,
    seed: int,
    target: float | Atoms | None,
    roles: Mapping[str, Role] | None = None,
    relaxations: int | None = None,
) -> Trace:
    """Read the trace of one run.

    Parameters
    ----------
    archive
        The run.
    problem, strategy, seed
        What to call it.
    target
        An enthalpy per atom (eV), a structure, or ``None`` if that is not known yet.
    roles
        By name, the sources that it was given; by default those that have proposed something.
    relaxations
        The budget: what a longer run did beyond it does not count. By default all counts.
    """
    state = archive.state
    if relaxations is not None and state.relaxations > relaxations:
        state = archive.state_until(relaxations)
    last = state.stops[-1] if state.stops else ""
    return Trace(
        problem=problem,
        strategy=strategy,
        seed=seed,
        relaxations=state.relaxations,
        failed=state.failed().total(),
        rejected=state.rejected().total(),
        force_calls=state.cost.force_calls,
        seconds=state.cost.seconds,
        best=state.lowest(),
        solved_at=_matched_at(archive, state, target) if isinstance(target, Atoms) else _reached_at(state, target),
        ended="" if last in _BY_BUDGET else last,
        parts=_parts(state, roles),
        candidates=_hash_of_candidates(archive, state),
    )


def _reached_at(state: SearchState, enthalpy: float | None) -> tuple[int, int] | None:
    if enthalpy is None:
        return None
    for relaxation, force_calls, lowest in state.improvements:
        if lowest <= enthalpy + TOLERANCE:
            return relaxation, force_calls
    return None


def _matched_at(archive: Archive, state: SearchState, structure: Atoms) -> tuple[int, int] | None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher, wanted = StructureMatcher(), to_pymatgen(structure)
    for minimum in sorted(archive.minima(), key=lambda minimum: minimum.first_relaxation):
        if minimum.first_relaxation > state.relaxations:
            break
        if matcher.fit(wanted, to_pymatgen(minimum.best.atoms)):
            return minimum.first_relaxation, minimum.first_force_calls
    return None


def _parts(state: SearchState, roles: Mapping[str, Role] | None) -> tuple[Part, ...]:
    if roles is None:
        roles = {source: Role() for source, _ in state.tallies if source != ADDED}
    parts = []
    for source, role in roles.items():
        own = state.tallies_of(source)
        ended = {operator: tally.relaxed + tally.failed.total() for operator, tally in own.items()}
        random = 0 if is_random(source) else ended.get(RANDOM, 0)
        trainings = [update for update in state.model_updates.get(source, ()) if "version" in update.training]
        parts.append(
            Part(
                source=source,
                relaxations=sum(ended.values()) - random,
                random=random,
                proposed=sum(tally.proposed for tally in own.values()),
                rejected=sum(tally.rejected.total() for tally in own.values()),
                trainings=len(trainings) if role.learns else None,
                error=state.last_errors.get(source, ""),
            )
        )
    return tuple(parts)


def _hash_of_candidates(archive: Archive, state: SearchState) -> str:
    found = hashlib.sha256()
    for id_, event in state.candidates.items():
        if state.status(id_) in ("relaxed", "failed") and event.source != ADDED:
            atoms = archive.candidate(id_).atoms
            found.update(atoms.numbers.astype(np.int64).tobytes())
            for array in (atoms.cell.array, atoms.positions):
                found.update((np.round(array, 6) + 0.0).astype(np.float64).tobytes())  # + 0.0: there is no -0.0
    return found.hexdigest()[:16]
