"""Show the progress of a search: live in a terminal or notebook, as occasional lines in a log file."""

from __future__ import annotations

import html
import io
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hybridcsp.core.records import FOLLOW_UP, REFINE, RELAX
from hybridcsp.relaxation.backends.base import RunningJob
from hybridcsp.search.progress import Progress
from hybridcsp.search.stopping import StoppingCriteria
from hybridcsp.structure.symmetry import spacegroup_symbol
from hybridcsp.utils.text import printable_line

#: Seconds between two lines in a log file: without and with a new best minimum.
QUIET, NEWS = 10.0, 1.0

#: Fewest lines of a terminal for more than one line of progress.
SMALLEST = 12

#: Seconds between two updates of a notebook cell.
NOTEBOOK = 0.5


class Display(Protocol):
    """A context manager that shows the progress of a search."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, progress: Progress) -> None:
        """Show new progress."""


def display(budget: StoppingCriteria, console: Console | None = None) -> Display:
    """Return the display that suits the output: a terminal, a notebook or a file.

    Parameters
    ----------
    budget
        The stopping criteria, for the progress bar and the remaining time.
    console
        Console to print to; by default the standard error stream.
    """
    if console is None:
        console = Console(stderr=True, emoji=False)
    if console.is_jupyter:
        return NotebookDisplay(budget)
    return TerminalDisplay(budget, console) if console.is_terminal else LineDisplay(budget, console)


class TerminalDisplay:
    """A live display of a few lines: the whole search, running relaxations, generators in training.

    Parameters
    ----------
    budget, console
        As for :func:`display`.
    """

    def __init__(self, budget: StoppingCriteria, console: Console) -> None:
        self._view = View(budget)
        self._live = Live(self._view, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show new progress at the next refresh."""
        self._view.progress = progress


class LineDisplay:
    """Plain lines of text: the first at once, then one for each new best minimum or stage, and one every ten seconds.

    Parameters
    ----------
    budget, console
        As for :func:`display`.
    """

    def __init__(self, budget: StoppingCriteria, console: Console) -> None:
        self._budget = budget
        self._console = console
        self._shown = ""
        self._best: tuple[object, ...] = (None,)
        self._level = RELAX
        self._last = -QUIET

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: Progress) -> None:
        """Print a line if there is news, or if the last line is ten seconds old."""
        since = progress.run_seconds - self._last
        best = (progress.best, *progress.objectives)
        is_news = best != self._best or progress.level != self._level
        if since < (NEWS if is_news else QUIET):
            return
        self._last, self._best, self._level = progress.run_seconds, best, progress.level
        text = describe(progress, self._budget)
        if text != self._shown:
            self._shown = text
            self._console.print(printable_line(text), highlight=False, markup=False, soft_wrap=True)


class NotebookDisplay:
    """An output of a notebook cell that is updated in place.

    Parameters
    ----------
    budget
        As for :func:`display`.
    clock
        Function that returns the time in seconds.
    """

    def __init__(self, budget: StoppingCriteria, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = View(budget)
        self._clock = clock
        self._last = -NOTEBOOK
        self._handle: Any = None

    def __enter__(self) -> Self:
        from IPython.display import display as show

        self._handle = show(self._content(), display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._view.progress is None:
            self._handle.update(_pre("nothing left to do"))
        else:
            self._handle.update(self._content())

    def update(self, progress: Progress) -> None:
        """Show new progress, unless the last update is less than half a second old."""
        self._view.progress = progress
        if self._clock() - self._last >= NOTEBOOK:
            self._last = self._clock()
            self._handle.update(self._content())

    def _content(self) -> Any:
        console = Console(
            width=100,
            height=40,
            record=True,
            file=io.StringIO(),
            force_jupyter=False,
            color_system=None,
            emoji=False,
        )
        console.print(self._view)
        return _pre(console.export_text().rstrip())


def _pre(text: str) -> Any:
    """Return text as preformatted HTML."""
    from IPython.display import HTML

    return HTML(f"<pre>{html.escape(text)}</pre>")


class View:
    """The lines of a live display, cut at the width of the terminal; one line in a low terminal.

    Parameters
    ----------
    budget
        As for :func:`display`.

    Attributes
    ----------
    progress
        Progress to show; ``None`` before the first update.
    """

    def __init__(self, budget: StoppingCriteria) -> None:
        self._budget = budget
        self.progress: Progress | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress = self.progress
        if progress is None:
            yield _line("starting")
            return
        lines = [_line(describe(progress, self._budget))]
        if (options.height is None and console.height >= SMALLEST) or (options.height or 0) >= SMALLEST:
            lines = [*self._head(progress, options.max_width), *_jobs(progress.jobs), *map(_line, progress.training)]
        most = max(1, console.height - 4)
        yield Group(*lines[:most])

    def _head(self, progress: Progress, width: int) -> list[Any]:
        done = fraction_done(progress, self._budget)
        numbers = Text(" · ".join(_numbers(progress, self._budget)), no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=1.0, completed=done or 0.0, width=max(8, width // 5), pulse=done is None)
        head = Table.grid(padding=(0, 1))
        head.add_column(width=max(8, width // 5))
        head.add_column(no_wrap=True, overflow="ellipsis")
        head.add_row(bar, numbers)
        now = " · ".join([*_best(progress), *_now(progress, self._budget), *_origin(progress)])
        return [head, *([_line(now)] if now else [])]


def fraction_done(progress: Progress, budget: StoppingCriteria) -> float | None:
    """Return the fraction of the budget that is used, by the nearest limit; ``None`` without a limit.

    In the follow-ups after the search it is the fraction of the follow-up relaxations that have ended.
    """
    if progress.level == FOLLOW_UP:
        total = progress.follow_ups_done + progress.follow_ups_left
        return progress.follow_ups_done / total if total else None
    shares = []
    if budget.relaxations:
        shares.append(progress.relaxations / budget.relaxations)
    if budget.force_calls:
        shares.append(progress.force_calls / budget.force_calls)
    if budget.hours:
        shares.append(progress.run_seconds / 3600 / budget.hours)
    return min(max(shares), 1.0) if shares else None


def seconds_left(progress: Progress, budget: StoppingCriteria) -> float | None:
    """Estimate the remaining seconds from the speed of this run; ``None`` if there is no estimate yet."""
    estimates = []
    if budget.relaxations and progress.run_relaxations:
        rate = progress.run_relaxations / progress.run_seconds
        estimates.append((budget.relaxations - progress.relaxations) / rate)
    if budget.force_calls and progress.run_force_calls:
        rate = progress.run_force_calls / progress.run_seconds
        estimates.append((budget.force_calls - progress.force_calls) / rate)
    if budget.hours:
        estimates.append(3600 * budget.hours - progress.run_seconds)
    return max(0.0, min(estimates)) if estimates else None


def describe(progress: Progress, budget: StoppingCriteria) -> str:
    """Return the progress of a search in one line."""
    return " · ".join([*_numbers(progress, budget), *_best(progress), *_now(progress, budget), *_origin(progress)])


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds, ``"1:02:03"``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _numbers(progress: Progress, budget: StoppingCriteria) -> list[str]:
    total = f"/{budget.relaxations}" if budget.relaxations else ""
    return [f"{progress.relaxations}{total} relaxations", f"{progress.failed} failed", f"{progress.minima} minima"]


def _best(progress: Progress) -> list[str]:
    objectives = [f"best {one}" for one in progress.objectives if one.value is not None]
    if progress.stable:
        return [f"hull: {' '.join(progress.stable)}", *objectives]
    if progress.best is None:
        return objectives
    group = f" {spacegroup_symbol(progress.spacegroup)}" if progress.spacegroup else ""
    return [f"best {progress.best:.4f} eV/atom{group}", *objectives]


def _origin(progress: Progress) -> list[str]:
    return [f"best from {progress.best_from}"] if progress.best_from else []


def _now(progress: Progress, budget: StoppingCriteria) -> list[str]:
    """Return current activity, stage, speed and estimated remaining time."""
    parts = [progress.activity] if progress.activity else []
    if progress.level == REFINE:
        parts.append("refining the best minima")
    if progress.level == FOLLOW_UP or progress.follow_ups_left:
        total = progress.follow_ups_done + progress.follow_ups_left
        parts.append(f"{progress.follow_ups_done} of {total} follow-ups done")
    if progress.level == FOLLOW_UP:  # force calls of follow-ups are no force calls of the search
        return parts
    if progress.run_force_calls and progress.run_seconds > 0:
        parts.append(f"{progress.run_force_calls / progress.run_seconds:.1f} force calls/s")
    left = seconds_left(progress, budget)
    if progress.level != REFINE and left is not None:
        parts.append(f"{clock(left)} left")
    return parts


_STAGES = {REFINE: " (refined)", FOLLOW_UP: " (followed up)"}


def _jobs(jobs: tuple[RunningJob, ...]) -> list[Any]:
    if not jobs:
        return []
    table = Table.grid(padding=(0, 2))
    for justify in ("right", "left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
    for job in jobs:
        name = printable_line(job.source if job.operator in ("", job.source) else f"{job.source}/{job.operator}")
        table.add_row(
            f"#{job.candidate}",
            name + _STAGES.get(job.level, ""),
            "" if job.force_calls is None else f"{job.force_calls} force calls",
            "" if job.enthalpy_per_atom is None else f"{job.enthalpy_per_atom:.4f} eV/atom",
            f"{job.seconds:.0f} s",
        )
    return [table]


def _line(text: str) -> Text:
    return Text(printable_line(text), no_wrap=True, overflow="ellipsis")
