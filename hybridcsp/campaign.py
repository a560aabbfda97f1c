"""Many runs of one or more problems: strategies times seeds, each in a directory of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hybridcsp import config
from hybridcsp.archive import Archive
from hybridcsp.budget import Target
from hybridcsp.engagement import check_company
from hybridcsp.errors import ArchiveError, BackendError, InputError
from hybridcsp.registry import split_argument
from hybridcsp.relaxation.calculators import check_calculator
from hybridcsp.sources import SOURCES

#: How a run ended that can be taken up again without changing its budget.
UNFINISHED = ("interrupted", "error", "time used up")


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
    """

    problem: str
    strategy: str
    seed: int
    directory: Path
    raw: Mapping[str, Any]

    @property
    def relaxations(self) -> int:
        """How many relaxations it may start."""
        return int(self.raw["budget"]["relaxations"])

    def done(self) -> int:
        """Return how many relaxations it has; all of them if it has come to its end."""
        if not (self.directory / "search.db").exists():
            return 0
        with Archive(self.directory) as archive:
            ledger = archive.ledger
        early = ledger.stops and ledger.stops[-1] not in (*UNFINISHED, "relaxations used up")
        return self.relaxations if early else min(ledger.relaxations, self.relaxations)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.done() >= self.relaxations


def sources_of(strategy: str) -> list[str]:
    """Return the sources that a strategy names: one, or several joined by ``+``."""
    names = strategy.split("+")
    if not all(names):
        raise InputError("strategy", strategy, "a source, or several joined by +: random+evolution")
    return names


def plan(
    problems: Mapping[str, Mapping[str, Any]], strategies: Sequence[str], seeds: Sequence[int], directory: Path
) -> list[Planned]:
    """Return every run, seed by seed, so that a campaign that is stopped early is still balanced.

    Parameters
    ----------
    problems
        By name, the configuration as TOML tables; ``budget.relaxations`` must be there.
    strategies
        See :func:`sources_of`; repetitions are dropped.
    seeds
        Of the runs.
    directory
        Where runs go: ``problem/strategy/seed-N``.

    Raises
    ------
    InputError
        If a configuration or its target is not valid, or a source or calculator not known, or a strategy has only
        sources that work on what others find; before anything runs.
    """
    for strategy in strategies:
        kinds = [SOURCES[split_argument(source, "source")[0]].load() for source in sources_of(strategy)]
        check_company(kinds, strategy)
    for problem, base in problems.items():
        parsed = config.parse(base, problem)
        check_calculator(parsed.search.calculator)
        Target(parsed.budget.stop_at, parsed.problem)
    runs = []
    for seed in seeds:
        for problem, base in problems.items():
            for strategy in dict.fromkeys(strategies):
                where = directory.resolve() / problem / re.sub(r"[^\w+.-]", "_", strategy) / f"seed-{seed}"
                own = {"sources": sources_of(strategy), "seed": seed, "workers": 1, "directory": str(where)}
                raw = {**base, "search": {**base.get("search", {}), **own}}
                parsed = config.parse(raw, f"{problem}, {strategy}")
                _check_target(where, parsed)
                runs.append(Planned(problem=problem, strategy=strategy, seed=seed, directory=where, raw=raw))
    return runs


def _check_target(directory: Path, planned: config.Configuration) -> None:
    """Refuse runs that were stopped at another target: what they did after it is not known."""
    if (directory / config.FILE).exists():
        before = config.of_directory(directory).budget.stop_at
        if before != planned.budget.stop_at:
            allowed = f"{before!r} as before, since {directory} ended or will end there, or another --directory"
            raise InputError("target", planned.budget.stop_at, allowed)


def execute(runs: Sequence[Planned], *, parallel: int, trust: bool, on_progress: Callable[[int, int], None]) -> None:
    """Do what is missing, several runs at a time, each with one worker.

    Parameters
    ----------
    runs
        What to do.
    parallel
        How many at a time.
    trust
        Whether calculators that run code may be used.
    on_progress
        Called with relaxations done and planned, about once a second.

    Raises
    ------
    BackendError
        If a run ends with an error; the others are ended and can be taken up again.
    """
    waiting = [run for run in runs if not run.finished]
    total = sum(run.relaxations for run in runs)
    finished = total - sum(run.relaxations for run in waiting)
    active: list[tuple[Planned, subprocess.Popen[bytes]]] = []
    try:
        while waiting or active:
            while waiting and len(active) < parallel:
                run = waiting.pop(0)
                active.append((run, _start(run, trust)))
            time.sleep(1.0)
            for run, process in list(active):
                if process.poll() is None:
                    continue
                active.remove((run, process))
                if process.returncode != 0:
                    tail = _log(run).read_text(errors="replace")[-500:]
                    raise BackendError(f"{run.directory} ended with an error; rerun to go on. Its last words:\n{tail}")
                finished += run.relaxations
            on_progress(finished + sum(_done(run) for run, _ in active), total)
    finally:
        for _, process in active:
            process.terminate()
        for _, process in active:
            process.wait()


def _start(run: Planned, trust: bool) -> subprocess.Popen[bytes]:
    run.directory.parent.mkdir(parents=True, exist_ok=True)
    if (run.directory / "search.db").exists():
        more = run.relaxations - run.done()
        arguments = ["resume", str(run.directory), "--relaxations", str(more)]
    else:
        written = run.directory.parent / f"{run.directory.name}.toml"
        written.write_text(tomli_w.dumps(run.raw), encoding="utf-8")
        arguments = ["search", str(written)]
    with _log(run).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hybridcsp", *arguments, *(["--trust"] if trust else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _log(run: Planned) -> Path:
    return run.directory.parent / f"{run.directory.name}.log"


def _done(run: Planned) -> int:
    try:
        return run.done()
    except ArchiveError:  # it is being made at this moment
        return 0
