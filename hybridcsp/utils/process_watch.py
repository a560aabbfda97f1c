"""Processes that end when the one that started them does, however that ended.

``python -I orphans.py PARENT PROGRAM ARGUMENT…`` runs a program in this process's group and ends the group with its
parent. It is run as a file, imports nothing of this package, and leaves the program's environment as it is.

A process of our own calls :func:`end_with`, which starts a watcher beside it. The watcher notices the end of the
process or of its parent at once or within a second, also where the process is busy in code that lets no other thread
run, and ends what is left of its group: programs that a calculator has started do not outlive it.
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

_WATCH = "--watch"

#: Seconds between two looks, the same where an end is near, and what programs have to end in order.
_LOOK = 1.0
_POLL = 0.05
_GRACE = 1.0

#: Kept for as long as this process runs: its watcher waits for the end of a pipe that goes with it.
_watchers: list[subprocess.Popen[bytes]] = []


def end_with(parent: int, death_signal: int = 0) -> None:
    """See to it that this process and its group end when the parent does, and the group when this process does.

    Parameters
    ----------
    parent
        Its process id.
    death_signal
        What the kernel sends at once, on Linux, when the thread that started this process ends; 0 for none.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(1)
    # The group of somebody else, where this process has not been given one, is not to be ended.
    group = os.getpgrp() if os.getpgrp() == os.getpid() else 0
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, _WATCH, str(parent), str(os.getpid()), str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it outlives both, and no signal to their groups reaches it
    )
    _watchers.append(watcher)


def watch(parent: int, process: int, group: int) -> None:
    """Wait for the end of a process or of its parent, and then end the process and its group.

    The standard input is a pipe that the process holds open until it ends or closes all that it has open.
    """
    held, pause = [0], _LOOK
    while _runs(parent) and _runs(process):
        if select.select(held, [], [], pause)[0]:
            held, pause = [], _POLL
    _send(process, group, signal.SIGTERM)
    end = time.monotonic() + _GRACE
    while time.monotonic() < end and _send(process, group, 0):
        time.sleep(0.02)
    _send(process, group, signal.SIGKILL)


def run(parent: int, *argv: str) -> int:
    """Run a program to its end and return its exit status; end it, and this process, when the parent ends."""
    if os.getppid() != parent:
        os._exit(1)
    try:
        program = subprocess.Popen(argv)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 127
    while True:
        try:
            return program.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                os.killpg(0, signal.SIGKILL)


def _runs(process: int) -> bool:
    """Say whether a process exists and is not a zombie that nobody has taken note of."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    try:
        with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double this program's start
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):  # no Linux
        return True


def _send(process: int, group: int, number: int) -> bool:
    """Send a signal to a process and its group; return whether anything was there to get it."""
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
    else:
        status = run(int(sys.argv[1]), *sys.argv[2:])
        sys.exit(status if status >= 0 else 128 - status)
