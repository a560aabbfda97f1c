"""Show the progress of commands, on the standard error stream so that results can be read from standard output.

The progress of a search itself is shown by :mod:`hybridcsp.analysis.live_display`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from hybridcsp.cli.console import errors
from hybridcsp.utils.activity import announcements

if TYPE_CHECKING:
    from hybridcsp.datasets.relaxation import RelaxationProgress
    from hybridcsp.workflows import compare


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show an activity and its elapsed time in a terminal, or print it once to a file.

    Yields a function that replaces the description of the activity.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    bar = Progress(*columns, console=errors, transient=True)
    task = bar.add_task(what, total=None)
    if errors.is_terminal:
        bar.start()
    else:
        errors.print(f"{what} …", highlight=False)
    try:
        yield lambda text: bar.update(task, description=text)
    finally:
        if errors.is_terminal:  # stopping a bar that was not started would print an empty line
            bar.stop()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Show an activity and its announced steps in a terminal; print it once, without the steps, to a file."""
    with busy(what) as show, announcements(lambda now: show(f"{what}: {now}")):
        yield


@contextmanager
def setting_up(what: str) -> Iterator[None]:
    """Show an activity and its announced steps in a terminal; print nothing to a file."""
    if not errors.is_terminal:
        yield
        return
    with announced(what):
        yield


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar in a terminal, nothing in a file; yield a function that advances it by a number of items."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=errors, transient=True)
    task = progress.add_task(what, total=total)
    if errors.is_terminal:
        progress.start()
    try:
        yield lambda more: progress.advance(task, more)
    finally:
        if errors.is_terminal:
            progress.stop()


@contextmanager
def counter(what: str) -> Iterator[Callable[[int], None]]:
    """Show a live count in a terminal, nothing in a file; yield a function that sets it."""
    bar = Progress(TextColumn(f"{{task.completed:.0f}} {what}"), TimeElapsedColumn(), console=errors, transient=True)
    task = bar.add_task(what, total=None)
    if errors.is_terminal:
        bar.start()
    try:
        yield lambda n: bar.update(task, completed=n)
    finally:
        if errors.is_terminal:
            bar.stop()


class LineDisplay:
    """Show progress as a live line in a terminal, and as a line from time to time in a file.

    Parameters
    ----------
    console
        Console to print to.
    what
        Description until the first progress.
    interval
        Time between two lines in a file, in s.
    """

    def __init__(self, console: Console, what: str, interval: float) -> None:
        self._console = console
        self._interval = interval
        self._bar = Progress(
            BarColumn(bar_width=16), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._task: TaskID = self._bar.add_task(what, total=None)
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, text: str, completed: int, total: int, seconds: float) -> None:
        """Show new progress, ``seconds`` after the beginning."""
        if self._console.is_terminal:
            self._bar.update(self._task, description=text, completed=completed, total=total)
        elif seconds - self._printed >= self._interval:
            self._printed = seconds
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


class ComparisonDisplay(LineDisplay):
    """Show the progress of a comparison: a live line in a terminal, a line every ten seconds in a file.

    Parameters
    ----------
    console
        Console to print to.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "starting the searches", 10)

    def update(self, progress: compare.ComparisonProgress) -> None:
        """Show new progress."""
        self.show(describe_comparison(progress), progress.relaxations, progress.planned, progress.seconds)


class RelaxationDisplay(LineDisplay):
    """Show the progress of the relaxation of a data set: a live line in a terminal, a line every minute in a file.

    Parameters
    ----------
    console
        Console to print to.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "starting the workers", 60)

    def update(self, progress: RelaxationProgress) -> None:
        """Show new progress."""
        self.show(describe_relaxation(progress), progress.done, progress.total, progress.seconds)


def describe_relaxation(progress: RelaxationProgress) -> str:
    """Return the progress of the relaxation of a data set in one line."""
    from hybridcsp.analysis.live_display import clock

    parts = [f"{progress.done}/{progress.total} crystals"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    elif progress.starting:
        parts.append("loading the calculators")
    return " · ".join(parts)


def describe_comparison(progress: compare.ComparisonProgress) -> str:
    """Return the progress of a comparison in one line: relaxations, runs, remaining time and current run."""
    from hybridcsp.analysis.live_display import clock

    parts = [f"{progress.relaxations}/{progress.planned} relaxations", f"{progress.ended}/{progress.runs} runs"]
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    if progress.running:
        run, done = progress.running[0]
        more = f" and {len(progress.running) - 1} more" if len(progress.running) > 1 else ""
        parts.append(f"{run.problem} {run.strategy} seed {run.seed}: {done}/{run.relaxations}{more}")
    return " · ".join(parts)
