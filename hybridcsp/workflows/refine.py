"""Follow-up relaxations of a finished search or an import, without going on with the search."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import INTERRUPTED
from hybridcsp.core.records import FOLLOW_UP, Limits
from hybridcsp.errors import ArchiveError, InputError, message_of
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.backends.executors import LOCAL, build_executor
from hybridcsp.relaxation.backends.executors.registry import open_backend
from hybridcsp.relaxation.calculators.dft.chosen import check_elements
from hybridcsp.relaxation.calculators.registry import prepare_calculator, try_calculator
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.follow_up_jobs import FollowUpJobs
from hybridcsp.search.progress import Progress, Summary, progress_of
from hybridcsp.search.run import PATIENCE
from hybridcsp.search.stopping import StoppingCriteria

#: Reason for which a run ends that has followed up everything.
FOLLOWED_UP = "followed up"


def refine(
    directory: Path | str,
    follow_up: FollowUp,
    *,
    workers: int | None = None,
    executor: str = LOCAL,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Summary:
    """Relax the best minima of a run directory with follow-up calculators.

    The calculator of the search is not needed, so that this works on imports too. What earlier runs have followed up
    with the same calculators is not repeated, so that the same call continues a run that was interrupted.

    Parameters
    ----------
    directory
        Run directory of a search or an import.
    follow_up
        Follow-up calculators, and the number and window of minima.
    workers
        Number of worker processes. Default: one per core; on a cluster as many as it has.
    executor
        Where the relaxations run, as in :class:`~hybridcsp.search.settings.SearchSettings`.
    on_progress
        Called with the progress after every follow-up relaxation, and twice a second.

    Raises
    ------
    InputError, CalculatorError
        If there is no follow-up calculator, or one cannot be built.
    ArchiveError, LockedError
        If the directory cannot be used, or holds no minima.
    """
    if not follow_up.calculators:
        raise InputError("calculators", None, "at least one calculator")
    follow_up.check()
    build_executor(executor)
    path = Path(os.path.abspath(directory))  # noqa: PTH100  # links are not followed
    with Archive(path) as archive:  # an error about the directory before it is changed
        problem = archive.problem
        if not archive.number_of_minima:
            raise ArchiveError(f"{path} holds no minima that could be relaxed: continue its search first")
    magnetic = any(problem.initial_magmoms.values())
    for calculator in follow_up.calculators:
        check_elements(calculator, sorted(problem.composition), magnetic=magnetic)
        prepare_calculator(calculator)
        try_calculator(calculator)
    with Archive(path, write=True) as archive:
        last = dict(archive.state.settings[-1])
        last.pop("calculator_label", None)  # it belongs to that session
        settings = {"pressure_gpa": problem.pressure_gpa, "fixed_cell": problem.cell is not None}
        try:
            relaxation = RelaxationSettings(**{**last.get("relaxation", {}), **settings})
            limits = Limits(**last.get("limits", {}))
        except (TypeError, InputError) as error:  # of a later version, or damaged
            raise ArchiveError(f"{path} records settings that cannot be used: {message_of(error)}") from error
        archive.open_session(last | {"then": follow_up.record()})
        relaxer = Relaxer(calculator=None, settings=relaxation, follow_ups=follow_up.calculators, folder=path)
        with open_backend(executor, relaxer, workers=workers, log_directory=path / "workers") as backend:
            return _run(archive, backend, follow_up, limits, on_progress)


def _run(
    archive: Archive, backend: Backend, follow_up: FollowUp, limits: Limits, on_progress: Callable[[Progress], None]
) -> Summary:
    """Run the follow-up relaxations that are left, and record the reason of the end."""
    begun, stopped = time.monotonic(), "error"
    jobs = FollowUpJobs(archive, backend, follow_up, limits, StoppingCriteria.stop_after_failures)

    def progress() -> Progress:
        return progress_of(
            archive.state,
            jobs,
            running=jobs.running,
            run_relaxations=0,
            run_force_calls=0,
            run_seconds=time.monotonic() - begun,
            level=FOLLOW_UP,
            jobs=tuple(backend.running()),
            activity="loading the calculators" if backend.starting else "",
        )

    try:
        _submit(jobs, backend)
        while jobs.running:
            archive.record_follow_ups(jobs.ended(backend.completed(timeout=PATIENCE)))
            jobs.warn_of_failures(at_end=False)
            on_progress(progress())
            _submit(jobs, backend)
        jobs.warn_of_failures(at_end=True)
        stopped = FOLLOWED_UP
    except KeyboardInterrupt:
        stopped = INTERRUPTED
        raise
    finally:
        archive.record_stop(stopped)
    return Summary(progress=progress(), stopped=stopped)


def _submit(jobs: FollowUpJobs, backend: Backend) -> None:
    while jobs.running < backend.capacity and (job := jobs.next()) is not None:
        backend.submit(job)
