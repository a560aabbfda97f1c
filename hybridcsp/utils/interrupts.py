"""Ctrl-C and SIGTERM: what must not be cut in two by them, and ending in order after either."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeAlias

from hybridcsp.errors import ExitRaisedError, message_of

#: What a person, a batch system or a supervising program ends a process with, and expects it to end in order.
_ENDING = (signal.SIGINT, signal.SIGTERM)


_Handler: TypeAlias = Callable[[int, FrameType | None], Any]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the block is done; then they have their usual effect.

    A signal that is ignored stays ignored, as ``nohup`` wants it. Outside the main thread, where Python delivers no
    signals, nothing is held back.
    """
    held: list[int] = []
    try:
        with _handled(lambda received, _frame, _usual: held.append(received)):
            yield
    finally:
        for number in dict.fromkeys(held):
            signal.raise_signal(number)


@contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Note the signals that ask this process to end while the block runs; they have their usual effect.

    A ``KeyboardInterrupt`` that code of others raises is told by this from one that a person has caused: in the first
    case the list is empty.

    Yields
    ------
    list of int
        Numbers of the signals that have arrived so far. Always empty outside the main thread, where Python delivers
        none.
    """
    noted: list[int] = []

    def note(received: int, frame: FrameType | None, usual: _Handler) -> None:
        noted.append(received)
        usual(received, frame)

    with _handled(note):
        yield noted


@contextmanager
def exits_contained(*, passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Run code of others, and raise what would end the process as an ordinary exception.

    Calculators, sources and models call ``sys.exit``, are cancelled, or raise ``KeyboardInterrupt`` by themselves; that
    is one failed job or call like any other. What a person or the system asks for by a signal has its usual effect.

    Parameters
    ----------
    passing
        What is let through nevertheless.

    Raises
    ------
    ExitRaisedError
        In place of any other exception that is not an ``Exception``, unless a signal came.
    """
    with noted_interrupts() as noted:
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if noted or isinstance(error, passing):
                raise
            raise ExitRaisedError(message_of(error)) from error


@contextmanager
def _handled(handle: Callable[[int, FrameType | None, _Handler], Any]) -> Iterator[None]:
    """Pass the ending signals, unless they are ignored, to a function together with their usual handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in _ENDING}
    changed = {number: handler for number, handler in usual.items() if handler not in (None, signal.SIG_IGN)}
    ours = {
        number: partial(_handle, handle, handler if callable(handler) else _default_action)
        for number, handler in changed.items()
    }
    for number, own in ours.items():
        signal.signal(number, own)
    try:
        yield
    finally:
        for number, handler in changed.items():
            if signal.getsignal(number) is ours[number]:  # the block may have set one of its own
                signal.signal(number, handler)


def _handle(
    handle: Callable[[int, FrameType | None, _Handler], Any], usual: _Handler, number: int, frame: FrameType | None
) -> None:
    handle(number, frame, usual)


def _default_action(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def terminate_in_order() -> None:
    """Let SIGTERM, which batch systems send, end this process as Ctrl-C does: in order."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
