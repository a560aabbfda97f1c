"""Processes that end when the one that started them does, however that ended.

``python -I orphans.py PARENT PROGRAM ARGUMENT…`` runs a program in this process's group and ends the group with its
parent. It is run as a file, imports nothing of this package, and leaves the program's environment as it is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1


def end_with(parent: int, death_signal: int = 0) -> None:
    """See to it that this process and its group end when the parent does, busy or not.

    Parameters
    ----------
    parent
        Its process id.
    death_signal
        What the kernel sends at once, on Linux, when the thread that started this process ends; 0 for none.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.killpg(0, signal.SIGKILL)

    if sys.platform == "linux":  # reaches a process that holds the interpreter's lock, too
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def main(parent: str, *argv: str) -> int:
    """Run a program to its end and return its exit status."""
    end_with(int(parent))  # without a signal: this process outlives its parent, to end the program
    return subprocess.call(argv)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.exit(status if status >= 0 else 128 - status)
