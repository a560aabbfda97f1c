"""How a running search looks in a terminal, and in a log file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from hybridcsp.budget import Budget
from hybridcsp.loop import Progress
from hybridcsp.records import REFINE

if TYPE_CHECKING:
    from hybridcsp import campaign


class LiveProgress:
    """One live line in a terminal; a line now and then where the output is a file.

    Parameters
    ----------
    budget
        Gives the length of the bar and the time left.
    console
        Where to.
    """

    def __init__(self, budget: Budget, console: Console) -> None:
        self._budget = budget
        self._console = console
        self._bar = Bar(BarColumn(bar_width=24), TextColumn("{task.description}"), console=console, transient=True)
        self._task: TaskID = self._bar.add_task("starting the workers", total=None)
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show where things stand."""
        text = describe(progress, self._budget)
        if self._console.is_terminal:
            done = fraction_done(progress, self._budget)
            self._bar.update(self._task, description=text, completed=done or 0.0, total=None if done is None else 1.0)
        elif progress.run_seconds - self._printed >= 10:
            self._printed = progress.run_seconds
            self._console.print(text, highlight=False, soft_wrap=True)


def fraction_done(progress: Progress, budget: Budget) -> float | None:
    """Return the share of the budget that is used, by the limit that comes first; ``None`` without such a limit."""
    shares = []
    if budget.relaxations:
        shares.append(progress.relaxations / budget.relaxations)
    if budget.force_calls:
        shares.append(progress.force_calls / budget.force_calls)
    if budget.hours:
        shares.append(progress.run_seconds / 3600 / budget.hours)
    return min(max(shares), 1.0) if shares else None


def seconds_left(progress: Progress, budget: Budget) -> float | None:
    """Estimate the seconds left from the speed of this run; ``None`` while there is nothing to go by."""
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


def describe(progress: Progress, budget: Budget) -> str:
    """Say in one line how far a search is."""
    total = f"/{budget.relaxations}" if budget.relaxations else ""
    parts = [f"{progress.relaxations}{total} relaxations", f"{progress.failed} failed", f"{progress.minima} minima"]
    if progress.best is not None:
        parts.append(f"best {progress.best:.4f} eV/atom")
    if progress.run_seconds > 0:
        parts.append(f"{progress.run_force_calls / progress.run_seconds:.1f} force calls/s")
    left = seconds_left(progress, budget)
    if progress.level == REFINE:
        parts.append("refining the best")
    elif left is not None:
        parts.append(f"{clock(left)} left")
    if progress.activity:
        parts.append(progress.activity)
    return " · ".join(parts)


class LiveCampaign:
    """Shows how far a comparison is: one live line in a terminal, a line now and then where the output is a file.

    Parameters
    ----------
    console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(BarColumn(bar_width=16), TextColumn("{task.description}"), console=console, transient=True)
        self._task: TaskID = self._bar.add_task("starting the searches", total=None)
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: campaign.Progress) -> None:
        """Show where things stand."""
        text = describe_campaign(progress)
        if self._console.is_terminal:
            self._bar.update(self._task, description=text, completed=progress.relaxations, total=progress.planned)
        elif progress.seconds - self._printed >= 10:
            self._printed = progress.seconds
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def describe_campaign(progress: campaign.Progress) -> str:
    """Say in one line how far a comparison is: relaxations, runs, the time left, and what is running."""
    parts = [f"{progress.relaxations}/{progress.planned} relaxations", f"{progress.ended}/{progress.runs} runs"]
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    if progress.running:
        run, done = progress.running[0]
        more = f" and {len(progress.running) - 1} more" if len(progress.running) > 1 else ""
        parts.append(f"{run.problem} {run.strategy} seed {run.seed}: {done}/{run.relaxations}{more}")
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
