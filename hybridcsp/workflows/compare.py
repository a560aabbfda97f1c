"""Comparison of strategies: runs of every strategy with every seed on every problem, each in its own directory."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from hybridcsp import config
from hybridcsp.analysis.run_results import SourceRole
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import ALL_FAILED
from hybridcsp.core.problem import Problem
from hybridcsp.core.registry import split_argument
from hybridcsp.core.system import System
from hybridcsp.errors import ArchiveError, BackendError, InputError, NothingUsableError
from hybridcsp.relaxation.backends.executors import build_executor
from hybridcsp.relaxation.calculators.registry import check_calculator
from hybridcsp.retraining import Retraining
from hybridcsp.search.setup import (
    build_sources,
    build_sources_of_system,
    check_for_system,
    check_learners,
    refuse_system_sources,
    require_independent_source,
)
from hybridcsp.search.stopping import DEFAULT_RELAXATIONS, Target
from hybridcsp.sources.base import BaseSource
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.registry import SOURCES
from hybridcsp.utils.files import atomic_write, end_of_log, make_folder, open_log
from hybridcsp.utils.processes import death_signal, end_processes, python_command, python_path

#: Reasons to stop after which a run can be resumed without changing its budget.
UNFINISHED = ("interrupted", "error", "time used up", ALL_FAILED)

#: Time in seconds that searches have to end when the comparison is interrupted.
GRACE = 10.0

#: Time in seconds between checks of the processes, and the minimum time between readings of the archives.
_POLL_INTERVAL = 0.2
_READ_INTERVAL = 1.0


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a comparison.

    Attributes
    ----------
    problem, strategy, seed
        The name of the problem, the strategy and the random seed.
    directory
        The run directory.
    raw
        The configuration, as TOML tables.
    sources
        The expected roles of the sources, by their names in the archive.
    trust
        Whether the run executes code or programs that the user has confirmed.
    """

    problem: str
    strategy: str
    seed: int
    directory: Path
    raw: Mapping[str, Any]
    sources: Mapping[str, SourceRole] = field(default_factory=dict)
    trust: bool = False

    @property
    def relaxations(self) -> int:
        """Maximum number of relaxations."""
        return int(self.raw.get("budget", {}).get("relaxations", DEFAULT_RELAXATIONS))

    def done(self) -> int:
        """Return the number of finished relaxations; the maximum if the run stopped early for good."""
        if not (self.directory / "search.db").exists():
            return 0
        with Archive(self.directory) as archive:
            state = archive.state
        early = state.stops and state.stops[-1] not in (*UNFINISHED, "relaxations used up")
        return self.relaxations if early else min(state.relaxations, self.relaxations)

    @property
    def finished(self) -> bool:
        """Whether the run needs no more relaxations."""
        return self.done() >= self.relaxations


@dataclass(frozen=True, kw_only=True)
class ComparisonProgress:
    """The progress of a comparison.

    Attributes
    ----------
    relaxations, planned
        Numbers of finished and of planned relaxations of all runs; a run that stopped early counts in full.
    earlier_relaxations
        Number of relaxations that were finished before the start.
    ended, runs
        Numbers of ended runs and of all runs.
    running
        The runs in progress, with their numbers of relaxations.
    seconds
        Time in seconds since the start.
    """

    relaxations: int
    planned: int
    earlier_relaxations: int
    ended: int
    runs: int
    running: Sequence[tuple[PlannedRun, int]]
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """Estimated time in seconds until the end; ``None`` before the first relaxation."""
        done = self.relaxations - self.earlier_relaxations
        return None if done <= 0 else self.seconds * (self.planned - self.relaxations) / done


def split_strategy(strategy: str) -> list[str]:
    """Split a strategy into its sources, which are joined by ``+``.

    Raises
    ------
    InputError
        If a name is empty.
    """
    names = strategy.split("+")
    if not all(names):
        raise InputError("strategy", strategy, "a source, or several joined by +, such as random+evolution")
    return names


def plan(
    problems: Mapping[str, Mapping[str, Any]],
    strategies: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    *,
    trust: bool = False,
    trust_commands: bool = False,
) -> list[PlannedRun]:
    """Plan all runs, sorted by seed, so that a comparison that is stopped early is balanced.

    All configurations are checked before anything runs.

    Parameters
    ----------
    problems
        Configurations as TOML tables, by the names of the problems. The budget is a number of relaxations, 100 by
        default.
    strategies
        Strategies, as :func:`split_strategy` reads them; duplicates are dropped.
    seeds
        Random seeds of the runs.
    directory
        The folder of the run directories, ``problem/strategy/seed-N``.
    trust, trust_commands
        Whether the user has confirmed that the code named by a calculator, and the external commands among the sources,
        are run.

    Returns
    -------
    list of PlannedRun
        The runs.

    Raises
    ------
    InputError
        If there is nothing to run; a configuration or its target is invalid; a source or calculator is unknown, cannot
        be used, or runs code that was not confirmed; a strategy has only sources that need the results of others; or a
        run directory contains another search.
    """
    check_not_empty(problems, strategies, seeds)
    strategies = list(dict.fromkeys(strategies))
    for strategy in strategies:
        kinds = [SOURCES[split_argument(source, "source")[0]] for source in split_strategy(strategy)]
        require_independent_source([kind.load() for kind in kinds], strategy)
    for problem, base in problems.items():
        parsed = config.parse(base, problem)
        if parsed.budget.relaxations is None:
            raise InputError("budget.relaxations", None, "the number of relaxations of each run")
        parsed.check_trust(trust=trust, trust_commands=trust_commands)
        check_calculator(parsed.search.choice)
        _check_shared(parsed.search.executor)
        parsed.then.check()
        if parsed.search.references and not isinstance(parsed.problem, System):
            reason = "it is a formula, and known phases are those of chemical systems; give a structure as the target"
            raise InputError("references", list(parsed.search.references), reason=reason)
        Target(parsed.budget.stop_at, parsed.problem)
        if parsed.then.counts and parsed.then.calculators and isinstance(parsed.budget.stop_at, float | int):
            reason = (
                "runs are compared by the energies of the search, and with then.counts this is an enthalpy of the last "
                "follow-up calculator; give a structure file as the target, or leave counts out"
            )
            raise InputError("target", parsed.budget.stop_at, reason=reason)
    runs: list[PlannedRun] = []
    for problem, base in problems.items():
        for strategy in strategies:
            runs += _runs(problem, base, strategy, seeds, directory.resolve(), (trust, trust_commands))
    places: dict[Path, PlannedRun] = {}
    for run in runs:
        other = places.setdefault(run.directory, run)
        if other is not run:
            allowed = f"a name other than {other.strategy!r} of {other.problem}, which has the same run directory"
            raise InputError("strategy", f"{run.strategy!r} of {run.problem}", allowed)
    order = {seed: number for number, seed in enumerate(seeds)}
    return sorted(runs, key=lambda run: order[run.seed])


def _check_shared(executor: str) -> None:
    """Check that the runs of a comparison, each a process of its own, can use an executor at the same time.

    Raises
    ------
    InputError
        If they cannot, or the executor cannot be used at all.
    """
    if not build_executor(executor).shared:
        reason = "it cannot be shared by the runs of a comparison, as a Dask cluster (dask:ADDRESS) can"
        raise InputError("search.executor", executor, reason=reason)


def check_not_empty(problems: Mapping[str, object], strategies: Sequence[str], seeds: Sequence[int]) -> None:
    """Check that there is something to compare.

    Raises
    ------
    InputError
        If there is no problem, strategy or seed.
    """
    for name, given in (("problems", problems), ("strategies", strategies), ("seeds", seeds)):
        if not given:
            raise InputError(name, None, "a list of at least one")


def _runs(
    problem: str,
    base: Mapping[str, Any],
    strategy: str,
    seeds: Sequence[int],
    directory: Path,
    trust: tuple[bool, bool],
) -> list[PlannedRun]:
    """Plan the runs of one strategy on one problem, after building its sources once to check them."""
    folder = directory / folder_name(problem) / folder_name(strategy)
    sources: dict[str, SourceRole] = {}
    runs = []
    for seed in dict.fromkeys(seeds):
        where = folder / f"seed-{seed}"
        own = {"sources": split_strategy(strategy), "seed": seed, "workers": 1, "directory": str(where)}
        raw = config.with_absolute_paths({**base, "search": {**base.get("search", {}), **own}}, Path.cwd())
        parsed = config.parse(raw, f"{problem}, {strategy}")
        if not sources:
            parsed.check_trust(trust=trust[0], trust_commands=trust[1])
            built = _built_sources(parsed)
            check_learners(built, parsed.retraining)
            sources = {name: _role(source, parsed.retraining) for name, source in built.items()}
        _check_same(where, parsed)
        runs.append(
            PlannedRun(
                problem=problem,
                strategy=strategy,
                seed=seed,
                directory=where,
                raw=raw,
                sources=sources,
                trust=any(trust) and parsed.needs_trust,
            )
        )
    return runs


def _built_sources(parsed: config.Configuration) -> dict[str, BaseSource]:
    """Return the sources of a search, by name; those of a chemical system are of one composition each."""

    def build(problem: Problem, lacking: dict[str, NothingUsableError] | None = None) -> dict[str, BaseSource]:
        search = parsed.search
        return build_sources(search.sources, problem, parsed.external, search.one_shot, lacking=lacking)

    if isinstance(parsed.problem, System):
        check_for_system(parsed.settings)
        found = build_sources_of_system(build, parsed.problem)
        return {name: source for own in found.values() for name, source in own.items()}
    built = build(parsed.problem)
    refuse_system_sources(built, parsed.problem)
    return built


def _role(source: BaseSource, retraining: Retraining) -> SourceRole:
    learns = (
        isinstance(source, GenerativeSource)
        and source.learns
        and retraining.every(from_scratch=source.from_scratch) > 0
    )
    return SourceRole(waiting_for=source.waiting_for, learns=learns)


def folder_name(text: str) -> str:
    """Return a name of a problem or strategy as that of a folder."""
    return re.sub(r"[^\w+.-]", "_", text).lstrip(".") or "_"


def _check_same(directory: Path, planned: config.Configuration) -> None:
    """Check that an existing run directory has the same settings, so that its relaxations count for this run.

    Raises
    ------
    InputError
        If the target, or a setting outside the budget, differs.
    """
    if not (directory / config.FILE).exists():
        return
    before = config.of_directory(directory)
    if before.budget.stop_at != planned.budget.stop_at:
        allowed = f"the target {before.budget.stop_at!r} as in the existing run in {directory}, or another --directory"
        raise InputError("target", planned.budget.stop_at, allowed)
    for table in (name for name in config.Configuration.model_fields if name != "budget"):
        old, new = (_plain(one, table) for one in (before, planned))
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key) and (table, key) != ("search", "directory"):
                allowed = f"the value {old.get(key)!r} as in the existing run in {directory}, or another --directory"
                raise InputError(f"{table}.{key}", new.get(key), allowed)


def _plain(configuration: config.Configuration, table: str) -> dict[str, Any]:
    if table == "problem" and isinstance(configuration.problem, System):
        return configuration.problem.describe()  # a run directory lists the compositions of a grid
    content: dict[str, Any] = configuration.model_dump(mode="json", include={table})[table]
    return content


def execute(
    runs: Sequence[PlannedRun], *, parallel: int = 1, on_progress: Callable[[ComparisonProgress], None] = lambda _: None
) -> None:
    """Execute the unfinished runs in parallel, each with one worker.

    The searches are processes that end when this process ends for any reason. Their results so far are kept, and the
    next call resumes them. A run that fails does not stop the others.

    Parameters
    ----------
    runs
        The runs, as planned by :func:`plan`.
    parallel
        Maximum number of runs at the same time.
    on_progress
        Called about once a second with the progress.

    Raises
    ------
    InputError
        If ``parallel`` is less than 1.
    BackendError
        After all runs, if some of them ended with an error.
    """
    if parallel < 1:
        raise InputError("parallel", parallel, "a whole number from 1")
    counts = {run.directory: run.done() for run in runs}
    earlier, start = sum(counts.values()), time.monotonic()
    waiting = deque(run for run in runs if counts[run.directory] < run.relaxations)
    active: list[tuple[PlannedRun, subprocess.Popen[bytes]]] = []
    failed: list[PlannedRun] = []

    def progress() -> ComparisonProgress:
        return ComparisonProgress(
            relaxations=sum(counts.values()),
            planned=sum(run.relaxations for run in runs),
            earlier_relaxations=earlier,
            ended=len(runs) - len(waiting) - len(active),
            runs=len(runs),
            running=[(run, counts[run.directory]) for run, _ in active],
            seconds=time.monotonic() - start,
        )

    next_reading = 0.0
    try:
        while waiting or active:
            while waiting and len(active) < parallel:
                run = waiting.popleft()
                active.append((run, _start(run)))
            time.sleep(_POLL_INTERVAL)
            ended = [(run, process) for run, process in active if process.poll() is not None]
            for run, process in ended:
                active.remove((run, process))
                end_processes([process])  # processes that it may have left behind
                counts[run.directory] = _done(run)
                if counts[run.directory] < run.relaxations:
                    failed.append(run)
            if ended or time.monotonic() >= next_reading:
                started = time.monotonic()
                counts |= {run.directory: _done(run) for run, _ in active}
                on_progress(progress())
                now = time.monotonic()
                next_reading = now + max(_READ_INTERVAL, 10 * (now - started))  # at most a tenth of the time
    finally:
        end_processes([process for _, process in active], grace=GRACE)
    if failed:
        first = failed[0]
        others = f", and so did {len(failed) - 1} other runs" if len(failed) > 1 else ""
        raise BackendError(
            f"{first.directory} ended before its {first.relaxations} relaxations were done{others}; run the comparison "
            f"again to continue. The log ends with:\n{end_of_log(_log(first), 500)}"
        )


def _start(run: PlannedRun) -> subprocess.Popen[bytes]:
    make_folder(run.directory.parent, key="directory")
    if (run.directory / "search.db").exists():
        config.write(config.parse(run.raw, str(run.directory)), run.directory)  # with the new budget
        arguments = ["resume", str(run.directory)]
    else:
        written = run.directory.parent / f"{run.directory.name}.toml"
        with atomic_write(written, key="directory") as stream:
            stream.write(tomli_w.dumps(run.raw))
        arguments = ["search", str(written)]
    child = [str(os.getpid()), str(int(death_signal())), os.environ.get("PYTHONPATH", "")]
    with open_log(_log(run), key="directory") as log:
        return subprocess.Popen(
            python_command("hybridcsp.cli.child", *child, *arguments, *(["--trust"] if run.trust else [])),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": python_path()},
            process_group=0,  # Ctrl-C reaches this process only, which ends the searches
        )


def _log(run: PlannedRun) -> Path:
    return run.directory.parent / f"{run.directory.name}.log"


def _done(run: PlannedRun) -> int:
    try:
        return run.done()
    except ArchiveError:  # the database is being created at this moment
        return 0
