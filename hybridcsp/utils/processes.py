"""Start processes of this package, and end processes with what they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this package.

    The working directory is not searched for modules (``-P``), so that files which happen to lie in it are not run.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def python_path() -> str:
    """Return the ``PYTHONPATH`` with which a process finds the modules that this one finds."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)


def death_signal() -> int:
    """Return the signal that a process started here is to get from the kernel when this one ends; 0 for none.

    Linux sends it when the *thread* that started the process ends, and only the main thread lasts.
    """
    return signal.SIGKILL if threading.current_thread() is threading.main_thread() else 0


def end_processes(processes: list[subprocess.Popen[bytes]], grace: float = 1.0) -> None:
    """Terminate processes and their groups, and after ``grace`` seconds kill what is left."""
    for process in processes:
        send_signal(process, signal.SIGTERM)
    end = time.monotonic() + grace
    try:
        while time.monotonic() < end and any(_alive(process) for process in processes):
            time.sleep(0.005)
    finally:
        for process in processes:
            send_signal(process, signal.SIGKILL)
        for process in processes:
            reap(process)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None or send_signal(process, 0)


def send_signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the process and what it started; return whether anything was there to get it."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        reached = False
    else:
        reached = True
    process.send_signal(number)  # a calculator may have left the group; the standard library minds dead processes
    return reached


def reap(process: subprocess.Popen[bytes]) -> None:
    """Take note of the death of a process that was killed, so that no zombie is left."""
    with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel itself waits for some device
        process.wait(5.0)
