"""Show a running comparison: a live line in a terminal, a line now and then where the output is a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from hybridcsp.analysis.live_display import clock

if TYPE_CHECKING:
    from hybridcsp.workflows import compare


class LiveCampaign:
    """Shows how far a comparison is: one live line in a terminal, a line now and then where the output is a file.

    Parameters
    ----------
    console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            BarColumn(bar_width=16), TextColumn("{task.description}", markup=False), console=console, transient=True
        )
        self._task: TaskID = self._bar.add_task("starting the searches", total=None)
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: compare.ComparisonProgress) -> None:
        """Show where things stand."""
        text = describe_campaign(progress)
        if self._console.is_terminal:
            self._bar.update(self._task, description=text, completed=progress.relaxations, total=progress.planned)
        elif progress.seconds - self._printed >= 10:
            self._printed = progress.seconds
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def describe_campaign(progress: compare.ComparisonProgress) -> str:
    """Say in one line how far a comparison is: relaxations, runs, the time left, and what is running."""
    parts = [f"{progress.relaxations}/{progress.planned} relaxations", f"{progress.ended}/{progress.runs} runs"]
    if progress.seconds_left is not None:
        parts.append(f"{clock(progress.seconds_left)} left")
    if progress.running:
        run, done = progress.running[0]
        more = f" and {len(progress.running) - 1} more" if len(progress.running) > 1 else ""
        parts.append(f"{run.problem} {run.strategy} seed {run.seed}: {done}/{run.relaxations}{more}")
    return " · ".join(parts)
