"""Supervision of processes that must end together with the process that started them, however that ends.

``python -I process_watch.py PARENT PROGRAM ARGUMENT…`` runs a program in this process's group and ends the group when
the parent ends. The file is run as a script, imports nothing from this package, and does not change the environment.
``process_watch.py --apart PARENT PROGRAM ARGUMENT…`` becomes the program, in a group of its own that ends likewise, so
that Ctrl-C in the terminal of the parent does not reach it.

A process of this package calls :func:`end_with`, which starts a watcher process. The watcher notices the end of the
process or of its parent within a second, even if the process is busy in code that blocks all its threads, and then ends
the rest of the process group: programs that a calculator has started do not outlive it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1

_WATCH, APART = "--watch", "--apart"

#: Time in s between two checks, the same after the first sign of an end, and the time for an orderly end.
_INTERVAL = 1.0
_SHORT_INTERVAL = 0.05
_GRACE = 1.0

#: Watchers of this process by the group that they end. They are kept, because each waits for the end of a pipe that
#: this process holds open.
_watchers: dict[int, subprocess.Popen[bytes]] = {}


def end_with(parent: int, death_signal: int = 0) -> None:
    """Make this process and its group end when the parent ends, and the group when this process ends.

    Parameters
    ----------
    parent
        Process id of the parent.
    death_signal
        Signal that the kernel sends at once, on Linux, when the thread that started this process ends; 0 for none.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(1)
    # A process without a group of its own must not end the group of another process.
    group = os.getpgrp() if os.getpgrp() == os.getpid() else 0
    _watchers[group] = start_watcher(parent, os.getpid(), group)


def start_watcher(parent: int, process: int, group: int) -> subprocess.Popen[bytes]:
    """Start a process that ends a process and its group when the parent ends, and the group when the process ends.

    The watcher checks at once when its standard input is closed, and otherwise every second.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, _WATCH, str(parent), str(process), str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that it outlives both, and signals to their groups do not reach it
    )


def group_is_watched() -> bool:
    """Return whether the group of this process, with all children that stay in it, ends together with this process."""
    return os.getpgrp() in _watchers


def watch(parent: int, process: int, group: int) -> None:
    """Wait for the end of a process or of its parent, and then end the process and its group.

    The standard input is a pipe that the process holds open until it ends or closes all its files.
    """
    held, pause = [0], _INTERVAL
    while _runs(parent) and _runs(process):
        if select.select(held, [], [], pause)[0]:
            held, pause = [], _SHORT_INTERVAL
    _send(process, group, signal.SIGTERM)
    end = time.monotonic() + _GRACE
    while time.monotonic() < end and _send(process, group, 0):
        time.sleep(0.02)
    _send(process, group, signal.SIGKILL)


def run(parent: int, *argv: str) -> int:
    """Run a program and return its exit status; end the program and this process when the parent ends."""
    if os.getppid() != parent:
        os._exit(1)
    try:
        program = subprocess.Popen(argv)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 127
    while True:
        try:
            return program.wait(_INTERVAL)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                os.killpg(0, signal.SIGKILL)


def run_apart(parent: int, *argv: str) -> None:
    """Become a program in a process group of its own, which ends when the parent ends."""
    if os.getppid() != parent:
        os._exit(1)
    os.setpgid(0, 0)
    watcher = start_watcher(parent, os.getpid(), os.getpid())
    assert watcher.stdin is not None
    os.set_inheritable(watcher.stdin.fileno(), True)  # the program holds it open as long as it runs
    os.execv(argv[0], argv)


def _runs(process: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    try:
        with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double this program's start
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):  # not Linux
        return True


def _send(process: int, group: int, number: int) -> bool:
    """Send a signal to a process and its group; return whether any process received it."""
    reached = False
    for send, target in ((os.kill, process), (os.killpg, group)):
        if target:
            try:
                send(target, number)
            except OSError:
                continue
            reached = reached or send is os.killpg or _runs(process)
    return reached


if __name__ == "__main__":
    if sys.argv[1] == _WATCH:
        watch(*map(int, sys.argv[2:]))
    elif sys.argv[1] == APART:
        run_apart(int(sys.argv[2]), *sys.argv[3:])
    else:
        status = run(int(sys.argv[1]), *sys.argv[2:])
        sys.exit(status if status >= 0 else 128 - status)
