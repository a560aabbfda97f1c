"""A calculator server as seen by the process that has started it: start, messages and end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import weakref
from pathlib import Path
from typing import Any

from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators import server
from hybridcsp.relaxation.calculators.interpreters import Interpreter
from hybridcsp.relaxation.calculators.server.wire import PROTOCOL, WireError, receive, send
from hybridcsp.utils.activity import report_servers
from hybridcsp.utils.process_watch import group_is_watched, start_watcher
from hybridcsp.utils.processes import death_signal, ending, reap, send_signal

_MAIN = str(Path(server.__file__).parent / "__main__.py")

# Time in s after which an interpreter that has not answered is given up, between two checks whether a server that does
# not answer still runs, and for its orderly end.
_START_SECONDS = 60.0
_CHECK_INTERVAL = 0.5
_END_SECONDS = 0.5

# Variables that are meant for the interpreter of this process and would break another one.
_OF_THIS_INTERPRETER = ("PYTHONHOME", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")

#: Process ids of the servers that this process has started.
_running: set[int] = set()


class ServerLostError(Exception):
    """A calculator server that ended, or sent something else than an answer."""


class CalculatorServer:
    """A process of a Python interpreter in which a calculator can be built.

    It ends when it is closed or garbage-collected, and when this process ends, even by ``kill -9``. In a worker it
    belongs to the worker's process group and writes to the worker's log. Elsewhere it has a process group of its own,
    which ends with it, and its output is discarded.

    Parameters
    ----------
    interpreter
        The interpreter.

    Raises
    ------
    InputError
        If the interpreter cannot run a server.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self.name = f"the calculator server of {interpreter.path}"
        self._path = interpreter.path
        self._owner = os.getpid()
        self._start_limit: float | None = time.monotonic() + _START_SECONDS
        try:
            self._connection, self._process = _start(interpreter)
        except OSError as error:
            raise self._unsuitable(f"it cannot be started ({error.strerror})") from error
        # A worker ends its group in any case.
        watcher = None if group_is_watched() else start_watcher(os.getpid(), self._process.pid, self._process.pid)
        self._finalizer = weakref.finalize(self, _end, self._connection, self._process, watcher, self._owner)
        _running.add(self._process.pid)
        report_servers(tuple(_running))
        try:
            hello = self._exchange(None)
        except ServerLostError as error:
            raise self._unsuitable(str(error)) from error
        self._start_limit = None
        try:
            self._check_hello(hello)
        except InputError:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Return whether it can be asked: it is open, and this process, which may be a fork, has started it."""
        return self._finalizer.alive and self._owner == os.getpid()

    def ask(self, message: Any) -> Any:
        """Send a message and return the answer.

        Raises
        ------
        ServerLostError
            If the server has ended or sends something else; it is closed then.
        """
        return self._exchange(message)

    def close(self) -> None:
        """End the server; a second call has no effect."""
        self._finalizer()

    def _exchange(self, message: Any) -> Any:
        """Send a message, unless it is ``None``, and wait for one; without an answer the server is closed."""
        try:
            try:
                if message is not None:
                    send(self._connection, message, self._check)
                return receive(self._connection, self._check)
            except (EOFError, OSError) as error:
                raise ServerLostError(ending(self._process, self.name)) from error
            except WireError as error:
                raise ServerLostError(f"{self.name} sent bytes that are no answer ({error})") from error
        except BaseException:  # also Ctrl-C: an answer that arrives later must not be that to the next message
            self.close()
            raise

    def _check(self) -> None:
        """Check that the server still runs, while no bytes of it arrive.

        Raises
        ------
        ServerLostError
            If it has ended, although a program that it has started keeps the connection open, or does not start.
        """
        if self._process.poll() is not None:
            raise ServerLostError(ending(self._process, self.name))
        if self._start_limit is not None and time.monotonic() > self._start_limit:
            raise ServerLostError(f"{self.name} did not answer within {_START_SECONDS:g} s")

    def _check_hello(self, hello: Any) -> None:
        """Check the versions in the first message.

        Raises
        ------
        InputError
            If a server of this interpreter cannot be used.
        """
        match hello:
            case {"problem": "old", "python": python}:
                why = f"this is Python {python}; a calculator needs Python 3.9 or newer"
            case {"problem": "missing", "packages": [*packages]}:
                names = " ".join(map(str, packages))
                why = f"ase is not installed there; install it with: {self._path} -m pip install {names}"
            case {"problem": "broken", "error": error}:
                why = f"ase cannot be imported there ({error}); install it again"
            case {"protocol": protocol}:
                if protocol == PROTOCOL:
                    return
                why = (
                    f"its server has version {protocol} of the protocol, and this process version {PROTOCOL}; "
                    "hybridcsp was probably updated while it was running: start it again"
                )
            case _:
                raise self._unsuitable("its first message is unknown")
        raise InputError("python", self._path, reason=why)

    def _unsuitable(self, why: str) -> InputError:
        reason = f"this is not a Python interpreter (3.9 or newer) that can run a calculator: {why}"
        return InputError("python", self._path, reason=reason)


def _start(interpreter: Interpreter) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process; return the connection to it and the process."""
    in_worker = group_is_watched()
    output = None if in_worker else subprocess.DEVNULL
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            arguments = [str(number) for number in (theirs.fileno(), os.getpid(), int(death_signal()))]
            process = subprocess.Popen(
                [*interpreter.command, _MAIN, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={key: text for key, text in os.environ.items() if key not in _OF_THIS_INTERPRETER},
                pass_fds=(theirs.fileno(),),
                process_group=None if in_worker else 0,
            )
    except BaseException:
        ours.close()
        raise
    ours.settimeout(_CHECK_INTERVAL)
    return ours, process


def _end(
    connection: socket.socket,
    process: subprocess.Popen[bytes],
    watcher: subprocess.Popen[bytes] | None,
    owner: int,
) -> None:
    """End a server and the programs that it has started; a fork of the process that owns it only forgets it."""
    connection.close()
    if os.getpid() != owner:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)  # it ends by itself when the connection is closed, unless it is busy
    send_signal(process, signal.SIGKILL)
    reap(process)
    _running.discard(process.pid)
    report_servers(tuple(_running))
    if watcher is not None and watcher.stdin is not None:
        watcher.stdin.close()
        reap(watcher)
