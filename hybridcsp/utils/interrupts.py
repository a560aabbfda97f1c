"""Handling of Ctrl-C and SIGTERM: uninterruptible blocks, and orderly termination."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeAlias

from hybridcsp.errors import ExitRaisedError, message_of

#: Signals with which users, batch systems and supervising programs request an orderly end.
_ENDING = (signal.SIGINT, signal.SIGTERM)


_Handler: TypeAlias = Callable[[int, FrameType | None], Any]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of the block; then they have their usual effect.

    A signal that is ignored stays ignored, as under ``nohup``. Outside the main thread, to which Python delivers no
    signals, the function has no effect.
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
    """Record the termination signals that arrive while the block runs; they keep their usual effect.

    This distinguishes a ``KeyboardInterrupt`` that third-party code raises from one that the user has caused: in the
    first case the list is empty.

    Yields
    ------
    list of int
        Numbers of the signals that have arrived so far. Always empty outside the main thread, to which Python delivers
        no signals.
    """
    noted: list[int] = []

    def note(received: int, frame: FrameType | None, usual: _Handler) -> None:
        noted.append(received)
        usual(received, frame)

    with _handled(note):
        yield noted


@contextmanager
def exits_contained(*, passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Convert exceptions of third-party code that would end the process into ordinary exceptions.

    Calculators, sources and models may call ``sys.exit``, be cancelled, or raise ``KeyboardInterrupt`` themselves; each
    of these is one failed job or call. Signals of the user or the system keep their usual effect.

    Parameters
    ----------
    passing
        Exceptions that are not converted.

    Raises
    ------
    ExitRaisedError
        Instead of any other exception that is not an ``Exception``, unless a signal has arrived.
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
    """Pass termination signals, unless they are ignored, to a function together with their usual handler."""
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
            if signal.getsignal(number) is ours[number]:  # the block may have set its own handler
                signal.signal(number, handler)


def _handle(
    handle: Callable[[int, FrameType | None, _Handler], Any], usual: _Handler, number: int, frame: FrameType | None
) -> None:
    handle(number, frame, usual)


def _default_action(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def terminate_in_order() -> None:
    """Make SIGTERM, which batch systems send, end this process in the same orderly way as Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
