"""Progress of commands other than a search: what is being done, how far it is, and for how long.

It goes to the standard error, so that results can be read from the standard output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hybridcsp.cli.console import errors
from hybridcsp.utils.activity import announcements


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, and for how long, in a terminal; give a function that says what is done next."""
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
        if errors.is_terminal:  # elsewhere it would leave an empty line
            bar.stop()


@contextmanager
def setting_up(what: str) -> Iterator[None]:
    """Show in a terminal what is being set up, and what takes long in it; nothing where the output is a file."""
    if not errors.is_terminal:
        yield
        return
    with busy(what) as show, announcements(lambda now: show(f"{what}: {now}")):
        yield


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar in a terminal; give a function that moves it on by a number."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda more: progress.advance(task, more)


@contextmanager
def counter(what: str) -> Iterator[Callable[[int], None]]:
    """Give a function that shows a live count in a terminal, and nothing where the output is a file."""
    bar = Progress(TextColumn(f"{{task.completed:.0f}} {what}"), TimeElapsedColumn(), console=errors, transient=True)
    task = bar.add_task(what, total=None)
    if errors.is_terminal:
        bar.start()
    try:
        yield lambda n: bar.update(task, completed=n)
    finally:
        if errors.is_terminal:
            bar.stop()
