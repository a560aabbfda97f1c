"""Many runs of one or more problems: strategies times seeds, each in a directory of its own."""

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
from hybridcsp.analysis.run_results import Role
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import ALL_FAILED
from hybridcsp.core.registry import split_argument
from hybridcsp.errors import ArchiveError, BackendError, InputError
from hybridcsp.relaxation.calculators.registry import check_calculator
from hybridcsp.retraining import Retraining
from hybridcsp.search.setup import build_sources, check_learners, require_independent_source
from hybridcsp.search.stopping import DEFAULT_RELAXATIONS, Target
from hybridcsp.sources.base import BaseSource
from hybridcsp.sources.generative import GenerativeSource
from hybridcsp.sources.registry import SOURCES
from hybridcsp.utils.files import atomic_write, end_of_log, make_folder, open_log
from hybridcsp.utils.processes import death_signal, end_processes, python_command, python_path

#: How a run ended that can be taken up again without changing its budget.
UNFINISHED = ("interrupted", "error", "time used up", ALL_FAILED)

#: Seconds that searches have to put things in order when a campaign is interrupted.
GRACE = 10.0

#: Seconds between two looks at the processes. The archives are read less often where reading them takes long.
_POLL = 0.2
_LOOK = 1.0


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a campaign.

    Attributes
    ----------
    problem, strategy, seed
        Which one.
    directory
        Its run directory.
    raw
        Its configuration, as TOML tables.
    sources
        What is expected of its sources, by the names that its archive knows them by.
    trust
        Whether it runs code or programs that a person has agreed to.
    """

    problem: str
    strategy: str
    seed: int
    directory: Path
    raw: Mapping[str, Any]
    sources: Mapping[str, Role] = field(default_factory=dict)
    trust: bool = False

    @property
    def relaxations(self) -> int:
        """How many relaxations it may start."""
        return int(self.raw.get("budget", {}).get("relaxations", DEFAULT_RELAXATIONS))

    def done(self) -> int:
        """Return how many relaxations it has; all of them if it has come to its end."""
        if not (self.directory / "search.db").exists():
            return 0
        with Archive(self.directory) as archive:
            state = archive.state
        early = state.stops and state.stops[-1] not in (*UNFINISHED, "relaxations used up")
        return self.relaxations if early else min(state.relaxations, self.relaxations)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.done() >= self.relaxations


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a campaign.

    Attributes
    ----------
    relaxations, planned
        Relaxations done, and of all runs together; a run that has ended early counts in full.
    begun_with
        Relaxations that were done before.
    ended, runs
        How many runs have ended, and how many there are.
    running
        The runs that are at work, with their relaxations.
    seconds
        Since the beginning.
    """

    relaxations: int
    planned: int
    starting_structures: int
    ended: int
    runs: int
    running: Sequence[tuple[Planned, int]]
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes at the pace until now; ``None`` while nothing tells the pace."""
        done = self.relaxations - self.starting_structures
        return None if done <= 0 else self.seconds * (self.planned - self.relaxations) / done


def sources_of(strategy: str) -> list[str]:
    """Return the sources that a strategy names: one, or several joined by ``+``."""
    names = strategy.split("+")
    if not all(names):
        raise InputError("strategy", strategy, "a source, or several joined by +: random+evolution")
    return names


def plan(
    problems: Mapping[str, Mapping[str, Any]],
    strategies: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    *,
    trust: bool = False,
    trust_commands: bool = False,
) -> list[Planned]:
    """Return every run, seed by seed, so that a campaign that is stopped early is still balanced.

    Parameters
    ----------
    problems
        By name, the configuration as TOML tables. The budget is one of relaxations (by default 100).
    strategies
        See :func:`sources_of`; repetitions are dropped.
    seeds
        Of the runs.
    directory
        Where runs go: ``problem/strategy/seed-N``.
    trust, trust_commands
        Whether the person has agreed to run the code that a calculator's name stands for, and the external commands
        among the sources.

    Raises
    ------
    InputError
        If there is nothing to run, or a configuration or its target is not valid, or a source or calculator is not
        known or cannot be used, or runs code that nobody has agreed to, or a strategy has only sources that work on
        what others find, or a run directory holds another search; before anything runs.
    """
    for what, given in (("problems", problems), ("strategies", strategies), ("seeds", seeds)):
        if not given:
            raise InputError(what, "none", "at least one")
    strategies = list(dict.fromkeys(strategies))
    for strategy in strategies:
        kinds = [SOURCES[split_argument(source, "source")[0]] for source in sources_of(strategy)]
        require_independent_source([kind.load() for kind in kinds], strategy)
    for problem, base in problems.items():
        parsed = config.parse(base, problem)
        if parsed.budget.relaxations is None:
            raise InputError("budget.relaxations", None, "the number of relaxations of each run")
        parsed.check_trust(trust=trust, trust_commands=trust_commands)
        check_calculator(parsed.search.calculator)
        Target(parsed.budget.stop_at, parsed.problem)
    runs: list[Planned] = []
    for problem, base in problems.items():
        for strategy in strategies:
            runs += _runs(problem, base, strategy, seeds, directory.resolve(), (trust, trust_commands))
    places: dict[Path, Planned] = {}
    for run in runs:
        other = places.setdefault(run.directory, run)
        if other is not run:
            allowed = f"another name than {other.strategy!r} of {other.problem}, which has the same run directory"
            raise InputError("strategy", f"{run.strategy!r} of {run.problem}", allowed)
    order = {seed: number for number, seed in enumerate(seeds)}
    return sorted(runs, key=lambda run: order[run.seed])


def _runs(
    problem: str,
    base: Mapping[str, Any],
    strategy: str,
    seeds: Sequence[int],
    directory: Path,
    trust: tuple[bool, bool],
) -> list[Planned]:
    """Plan one strategy on one problem, once its sources have been built on trial."""
    folder = directory / _folder_name(problem) / _folder_name(strategy)
    sources: dict[str, Role] = {}
    runs = []
    for seed in dict.fromkeys(seeds):
        where = folder / f"seed-{seed}"
        own = {"sources": sources_of(strategy), "seed": seed, "workers": 1, "directory": str(where)}
        raw = config.with_absolute_paths({**base, "search": {**base.get("search", {}), **own}}, Path.cwd())
        parsed = config.parse(raw, f"{problem}, {strategy}")
        if not sources:
            parsed.check_trust(trust=trust[0], trust_commands=trust[1])
            built = build_sources(parsed.search.sources, parsed.problem, parsed.external, parsed.search.one_shot)
            check_learners(built, parsed.retraining)
            sources = {name: _role(source, parsed.retraining) for name, source in built.items()}
        _check_same(where, parsed)
        runs.append(
            Planned(
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


def _role(source: BaseSource, retraining: Retraining) -> Role:
    learns = retraining.new_minima > 0 and isinstance(source, GenerativeSource) and source.learns
    return Role(starts=source.waiting_for, learns=learns)


def _folder_name(text: str) -> str:
    return re.sub(r"[^\w+.-]", "_", text).lstrip(".") or "_"


def _check_same(directory: Path, planned: config.Configuration) -> None:
    """Refuse to go on with a run that was begun otherwise: its part of the budget was spent on something else."""
    if not (directory / config.FILE).exists():
        return
    before = config.of_directory(directory)
    if before.budget.stop_at != planned.budget.stop_at:
        allowed = (
            f"{before.budget.stop_at!r} as before, since {directory} ended or will end there, or another --directory"
        )
        raise InputError("target", planned.budget.stop_at, allowed)
    for table in ("problem", "search", "relaxation", "limits", "retraining", "external"):
        old, new = (_plain(one, table) for one in (before, planned))
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key) and (table, key) != ("search", "directory"):
                allowed = f"{old.get(key)!r} as in {directory}, which holds such a run already, or another --directory"
                raise InputError(f"{table}.{key}", new.get(key), allowed)


def _plain(configuration: config.Configuration, table: str) -> dict[str, Any]:
    content: dict[str, Any] = configuration.model_dump(mode="json", include={table})[table]
    return content


def execute(
    runs: Sequence[Planned], *, parallel: int = 1, on_progress: Callable[[Progress], None] = lambda _: None
) -> None:
    """Do what is missing, several runs at a time, each with one worker.

    The searches are processes that end with this one, however it ends; what they have found by then is kept, and the
    next call goes on from there. A run that breaks does not stop the others.

    Parameters
    ----------
    runs
        What to do.
    parallel
        How many at a time.
    on_progress
        Called about once a second.

    Raises
    ------
    BackendError
        If runs have ended with an error, after all others are done.
    """
    if parallel < 1:
        raise InputError("parallel", parallel, "a whole number from 1")
    counts = {run.directory: run.done() for run in runs}
    starting_structures, start = sum(counts.values()), time.monotonic()
    waiting = deque(run for run in runs if counts[run.directory] < run.relaxations)
    active: list[tuple[Planned, subprocess.Popen[bytes]]] = []
    broken: list[Planned] = []

    def progress() -> Progress:
        return Progress(
            relaxations=sum(counts.values()),
            planned=sum(run.relaxations for run in runs),
            starting_structures=starting_structures,
            ended=len(runs) - len(waiting) - len(active),
            runs=len(runs),
            running=[(run, counts[run.directory]) for run, _ in active],
            seconds=time.monotonic() - start,
        )

    next_look = 0.0
    try:
        while waiting or active:
            while waiting and len(active) < parallel:
                run = waiting.popleft()
                active.append((run, _start(run)))
            time.sleep(_POLL)
            ended = [(run, process) for run, process in active if process.poll() is not None]
            for run, process in ended:
                active.remove((run, process))
                end_processes([process])  # what it may have left behind
                counts[run.directory] = _done(run)
                if counts[run.directory] < run.relaxations:
                    broken.append(run)
            if ended or time.monotonic() >= next_look:
                looked = time.monotonic()
                counts |= {run.directory: _done(run) for run, _ in active}
                on_progress(progress())
                next_look = time.monotonic() + max(_LOOK, 10 * (time.monotonic() - looked))
    finally:
        end_processes([process for _, process in active], grace=GRACE)
    if broken:
        first = broken[0]
        others = f", and so did {len(broken) - 1} more" if len(broken) > 1 else ""
        raise BackendError(
            f"{first.directory} ended before its {first.relaxations} relaxations were done{others}; run it again to go "
            f"on. Its last words:\n{_last_words(first)}"
        )


def _start(run: Planned) -> subprocess.Popen[bytes]:
    make_folder(run.directory.parent, key="directory")
    if (run.directory / "search.db").exists():
        config.write(config.parse(run.raw, str(run.directory)), run.directory)  # with the budget of today
        arguments = ["resume", str(run.directory)]
    else:
        written = run.directory.parent / f"{run.directory.name}.toml"
        with atomic_write(written, key="directory") as stream:
            stream.write(tomli_w.dumps(run.raw))
        arguments = ["search", str(written)]
    ties = [str(os.getpid()), str(int(death_signal())), os.environ.get("PYTHONPATH", "")]
    with open_log(_log(run), key="directory") as log:
        return subprocess.Popen(
            python_command("hybridcsp.cli.child", *ties, *arguments, *(["--trust"] if run.trust else [])),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": python_path()},
            process_group=0,  # Ctrl-C is for the campaign, which then ends its searches
        )


def _log(run: Planned) -> Path:
    return run.directory.parent / f"{run.directory.name}.log"


def _last_words(run: Planned) -> str:
    return end_of_log(_log(run), 500)


def _done(run: Planned) -> int:
    try:
        return run.done()
    except ArchiveError:  # it is being made at this moment
        return 0
