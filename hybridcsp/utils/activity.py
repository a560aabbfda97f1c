"""Reports of the present activity, from anywhere in the package to the code that displays it.

Code that may take long calls :func:`announce`, each evaluation of a structure calls :func:`report_step`, and each start
or end of a calculator server calls :func:`report_servers`. They do nothing unless a listener is set in the same thread.
No result depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_on_announcement: ContextVar[Callable[[str], None] | None] = ContextVar("on_announcement", default=None)
_on_step: ContextVar[Callable[[int, float], None] | None] = ContextVar("on_step", default=None)
_on_servers: ContextVar[Callable[[tuple[int, ...]], None] | None] = ContextVar("on_servers", default=None)


@contextmanager
def announcements(listener: Callable[[str], None]) -> Iterator[None]:
    """Call a function with each announcement made in this thread while the block runs."""
    token = _on_announcement.set(listener)
    try:
        yield
    finally:
        _on_announcement.reset(token)


def announce(activity: str) -> None:
    """Report in words which activity starts now, for example ``"loading the weights of flow"``."""
    listener = _on_announcement.get()
    if listener is not None:
        listener(activity)


@contextmanager
def steps(listener: Callable[[int, float], None]) -> Iterator[None]:
    """Call a function after each evaluation in this thread, with the force calls and the enthalpy per atom (eV)."""
    token = _on_step.set(listener)
    try:
        yield
    finally:
        _on_step.reset(token)


def report_step(force_calls: int, enthalpy_per_atom: float) -> None:
    """Report the force calls of a job so far, and the enthalpy per atom (eV) of the structure evaluated last."""
    listener = _on_step.get()
    if listener is not None:
        listener(force_calls, enthalpy_per_atom)


@contextmanager
def servers(listener: Callable[[tuple[int, ...]], None]) -> Iterator[None]:
    """Call a function with the process ids of all calculator servers of this process whenever these change."""
    token = _on_servers.set(listener)
    try:
        yield
    finally:
        _on_servers.reset(token)


def report_servers(processes: tuple[int, ...]) -> None:
    """Report the process ids of all calculator servers of this process."""
    listener = _on_servers.get()
    if listener is not None:
        listener(processes)
