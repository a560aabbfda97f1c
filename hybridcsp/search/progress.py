"""The progress of a search while it runs, and the summary of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState
from hybridcsp.objectives.goals import BestValue
from hybridcsp.relaxation.backends.base import RunningJob
from hybridcsp.search.follow_up_jobs import FollowUpJobs


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a search.

    Attributes
    ----------
    relaxations, failed, rejected
        Numbers of relaxations (failures included), failed relaxations and rejected proposals in the whole search.
    running
        Number of jobs that the workers are busy with.
    minima
        Number of distinct minima.
    best, spacegroup, best_from
        Lowest enthalpy per atom in eV, the space group number of that minimum at 0.01 Å, and the source that found it.
    force_calls
        Number of force calls in the whole search.
    run_relaxations, run_force_calls, run_seconds
        Relaxations, force calls and seconds of this run.
    level
        ``"relax"``, ``"refine"`` in the final refinement, or ``"follow-up"`` in the follow-ups after it.
    jobs
        Jobs of the workers with the progress of each, if the backend reports it.
    activity
        Work that the search itself does or waits for: ``"loading chgnet in 2 workers"``, ``"drawing 48 structures from
        wyckoff"``, ``"training flow: epoch 3 of 20"``. Empty while it waits for jobs.
    training
        State of each generator that learns from the search, one sentence each.
    stable
        In a search of a chemical system the compositions on the convex hull.
    objectives
        Best value of each objective with a goal, among the minima that meet the condition of the search.
    follow_ups_done, follow_ups_left
        Numbers of follow-up relaxations that have ended in this run, and that are left with the follow-up calculator at
        work, the running ones included.
    """

    relaxations: int
    failed: int
    rejected: int
    running: int
    minima: int
    best: float | None
    force_calls: int
    run_relaxations: int
    run_force_calls: int
    run_seconds: float
    level: str
    jobs: tuple[RunningJob, ...] = ()
    activity: str = ""
    training: tuple[str, ...] = ()
    spacegroup: int | None = None
    best_from: str = ""
    stable: tuple[str, ...] = ()
    objectives: tuple[BestValue, ...] = ()
    follow_ups_done: int = 0
    follow_ups_left: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Summary:
    """Summary of a run.

    Attributes
    ----------
    progress
        Progress of the search at the end of the run.
    stopped
        The reason of the end: ``"relaxations used up"``, ``"target reached"``, ``"sources exhausted"``…
    """

    progress: Progress
    stopped: str

    def __repr__(self) -> str:
        from hybridcsp.analysis.reprs import text_of_summary

        return text_of_summary(self)

    def _repr_html_(self) -> str:
        from hybridcsp.analysis.reprs import html_of_summary

        return html_of_summary(self)


def progress_of(state: SearchState, follow_ups: FollowUpJobs, **of_run: Any) -> Progress:
    """Return the progress of a search from its state, its follow-ups and the fields that belong to the run."""
    best, is_system = state.best(), isinstance(state, SystemState)
    return Progress(
        relaxations=state.relaxations,
        failed=state.tallies.failed().total(),
        rejected=state.tallies.rejected().total(),
        minima=state.number_of_minima,
        best=None if best is None or is_system else best.enthalpy_per_atom,
        spacegroup=None if best is None or is_system else best.spacegroup,
        best_from=state.improvements[-1].source if state.improvements and not is_system else "",
        stable=state.hull.stable if isinstance(state, SystemState) and state.hull.is_complete else (),
        objectives=state.best_values(),
        force_calls=state.cost.force_calls,
        follow_ups_done=follow_ups.done,
        follow_ups_left=follow_ups.waiting + follow_ups.running,
        **of_run,
    )
