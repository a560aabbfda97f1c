"""Report present activity from deep inside the package to the code that displays it; nothing depends on it.

Code that may take long calls :func:`announce`, and every evaluation of a structure :func:`report_step`. Both do nothing
unless somebody listens, in the same thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_on_announcement: ContextVar[Callable[[str], None] | None] = ContextVar("on_announcement", default=None)
_on_step: ContextVar[Callable[[int, float], None] | None] = ContextVar("on_step", default=None)


@contextmanager
def announcements(listener: Callable[[str], None]) -> Iterator[None]:
    """Call a function with each announcement that is made in this thread while the block runs."""
    token = _on_announcement.set(listener)
    try:
        yield
    finally:
        _on_announcement.reset(token)


def announce(what: str) -> None:
    """Tell what begins now, in words: ``"loading the weights of flow"``."""
    listener = _on_announcement.get()
    if listener is not None:
        listener(what)


@contextmanager
def steps(listener: Callable[[int, float], None]) -> Iterator[None]:
    """Call a function with force calls and enthalpy per atom (eV) after each evaluation in this thread."""
    token = _on_step.set(listener)
    try:
        yield
    finally:
        _on_step.reset(token)


def report_step(force_calls: int, enthalpy_per_atom: float) -> None:
    """Tell how many force calls a job has made, and the enthalpy per atom (eV) of the structure evaluated last."""
    listener = _on_step.get()
    if listener is not None:
        listener(force_calls, enthalpy_per_atom)
