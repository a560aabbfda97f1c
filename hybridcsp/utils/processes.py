"""Start of processes of this package, and termination of processes with their children."""

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

    With ``-P`` the working directory is not searched for modules, so that files in it are not run by accident.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def python_path() -> str:
    """Return the ``PYTHONPATH`` with which another process finds the same modules as this one."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)


def death_signal() -> int:
    """Return the signal that the kernel should send to a child when this process ends; 0 for none.

    Linux sends it when the *thread* that started the child ends, and only the main thread lasts until the end.
    """
    return signal.SIGKILL if threading.current_thread() is threading.main_thread() else 0


def end_processes(processes: list[subprocess.Popen[bytes]], grace: float = 1.0) -> None:
    """Terminate processes and their groups; kill those that are left after ``grace`` seconds."""
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
    """Send a signal to a process and its children; return whether any process received it."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
        reached = False
    else:
        reached = True
    process.send_signal(number)  # it may have left the group; Popen ignores dead processes
    return reached


def ending(process: subprocess.Popen[bytes], name: str) -> str:
    """Return a description of the end of a process that has ended or is about to end.

    Parameters
    ----------
    process
        The process.
    name
        Name of the process in the description.
    """
    try:
        status = process.wait(1.0)
    except subprocess.TimeoutExpired:
        return f"{name} closed its connection"
    if status >= 0:
        return f"{name} ended with exit status {status}"
    hint = " (perhaps because memory ran out)" if status == -signal.SIGKILL else ""
    return f"{name} was killed by {signal.Signals(-status).name}{hint}"


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a killed process, so that no zombie is left."""
    with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel may be waiting for a device
        process.wait(5.0)
