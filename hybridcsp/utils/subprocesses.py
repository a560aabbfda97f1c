"""Start Python processes of this package's own."""

from __future__ import annotations

import os
import signal
import sys
import threading
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
