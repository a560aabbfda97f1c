"""Provide consoles that print control characters as escape sequences, so that no file can control the terminal."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hybridcsp.utils.text import printable


class SafeConsole(Console):
    """A console that prints control characters in texts as escape sequences; its own colours are not affected."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of an object to print."""
        for segment in super().render(renderable, options):
            if segment.control or (shown := printable(segment.text)) == segment.text:
                yield segment
            else:
                yield Segment(shown, segment.style)


#: Consoles for results and for messages. Markup is off because names of files and folders may contain brackets, and
#: emoji because ``module:factory:`` is a calculator in a sentence and not a picture.
console = SafeConsole(markup=False, emoji=False)
errors = SafeConsole(markup=False, emoji=False, stderr=True)


def guard_the_terminal() -> None:
    """Escape control characters in tracebacks, warnings and log messages, which may quote the contents of files."""
    sys.excepthook = _print_traceback
    warnings.showwarning = _print_warning
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter("%(message)s"))


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    (file or sys.stderr).write(printable(warnings.formatwarning(message, category, filename, lineno, line)))
