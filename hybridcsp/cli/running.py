"""Run a search for the commands ``search`` and ``resume``, and print its progress and results."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from hybridcsp.cli.console import console
from hybridcsp.cli.output import as_argument, print_search
from hybridcsp.errors import RelaxationsFailedError
from hybridcsp.utils.interrupts import terminate_in_order

if TYPE_CHECKING:
    from hybridcsp.archive.state import SearchState
    from hybridcsp.config.settings import Configuration
    from hybridcsp.core.problem import Problem
    from hybridcsp.core.system import System
    from hybridcsp.search.search import Search


def run_search(
    configuration: Configuration,
    setup: ExitStack,
    *,
    trust: bool,
    trust_commands: bool,
    named: Collection[str],
    allow_calculator_change: bool = False,
) -> None:
    """Build a search, close the display of the set-up, run the search and print its results."""
    from hybridcsp.analysis.follow_ups import disagreement
    from hybridcsp.analysis.live_display import display
    from hybridcsp.analysis.report import duration
    from hybridcsp.archive.state import ALL_FAILED
    from hybridcsp.io.export import export as write
    from hybridcsp.search.failures import all_failed
    from hybridcsp.search.run import EXHAUSTED, NO_PROPOSALS, ONLY_DUPLICATES

    terminate_in_order()
    with configuration.build(
        trust=trust,
        trust_commands=trust_commands,
        named=named,
        allow_calculator_change=allow_calculator_change,
    ) as search:
        setup.close()
        _print_header(search)
        stopped, failed, begun = "interrupted", None, time.monotonic()
        with display(configuration.budget, console) as live, suppress(KeyboardInterrupt):
            try:
                stopped = search.run(configuration.budget, on_progress=live.update).stopped
            except RelaxationsFailedError as error:
                stopped, failed = ALL_FAILED, error
        archive = search.archive
        print_search(archive, 10)
        where = as_argument(search.directory)
        next_steps = f"Show again: hybridcsp show {where}"
        if archive.number_of_minima:
            file = search.directory / "minima.extxyz"
            write(archive.stream_final_minima(), file, follow=False, disagreement=disagreement(archive))
            next_steps = f"All minima: {as_argument(file)}. {next_steps}"
        if stopped == "interrupted":
            _print(f"Interrupted. Continue: hybridcsp resume {where}{' --trust' if configuration.needs_trust else ''}")
            raise typer.Exit(130)
        state = archive.state
        if state.worker_results.attempts and not state.worker_results.successes:
            raise failed or all_failed(state, search.directory)
        without_proposals = stopped in (NO_PROPOSALS, ONLY_DUPLICATES, EXHAUSTED)
        why = _why_nothing_was_relaxed(state, search.problem) if without_proposals else ""
        _print(f"Ended after {duration(time.monotonic() - begun)}: {stopped}{why}. {next_steps}")
        if why:
            raise typer.Exit(1)


def _print(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _why_nothing_was_relaxed(state: SearchState, problem: Problem | System) -> str:
    """Return the reasons why a search relaxed no candidate; an empty text if it relaxed any."""
    from hybridcsp.core.problem import Problem

    if state.relaxations:
        return ""
    rejected = state.tallies.rejected()
    limits = f"the limits: {problem.limits_in_words()}" if isinstance(problem, Problem) else "at every composition"
    if not rejected:
        return f" (no source proposed a structure; {limits})"
    return f" (rejected: {', '.join(f'{count} {reason}' for reason, count in rejected.most_common())}; {limits})"


def _workers_of(search: Search) -> str:
    executor, workers = search.settings.executor, search.workers
    if workers is None:
        return f"workers of {executor}"
    return f"{workers} worker{'s' * (workers > 1)}" + ("" if executor == "local" else f" of {executor}")


def _print_header(search: Search) -> None:
    """Print the problem, calculator, number of workers and directory, and structures that sources cannot use."""
    from hybridcsp.core.system import System

    problem = search.problem
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    size = (
        f"{len(problem.compositions)} compositions of {problem.min_atoms} to {problem.max_atoms} atoms"
        if isinstance(problem, System)
        else f"{problem.units_in_words} formula units"
    )
    console.print(
        f"[bold]{escape(problem.formula)}[/]{pressure}: {size}, calculator "
        f"{escape(str(search.settings.choice))}, {escape(_workers_of(search))}, directory "
        f"{escape(as_argument(search.directory))}",
        markup=True,
        highlight=False,
        soft_wrap=True,
    )
    for name, source in search.sources.items():
        if isinstance(problem, System):
            break  # what cannot be used at one composition may be for another
        if unusable := source.unusable:
            shown = "".join(f"\n  {where}: {reason}" for where, reason in unusable[:5])
            more = f"\n  and {len(unusable) - 5} more" if len(unusable) > 5 else ""
            _print(f"{name}: {len(unusable)} structure{'s' * (len(unusable) > 1)} cannot be used{shown}{more}")
