"""Resources of the machine, the process and the interpreter: cores, load, memory and garbage collection."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path


def available_cores() -> int:
    """Return the number of cores that this process may use.

    On systems that do not report it per process (macOS), this is the number of cores of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Return the average number of processes that wanted a core in the last minute; ``None`` if it is not known."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def forbid_core_dumps() -> None:
    """Prevent core dumps of this process, where the system supports it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def prefer_for_oom_kill() -> None:
    """Make the kernel prefer this process when it kills one because memory has run out; Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause Python's search for cyclic garbage while the block creates many long-lived objects.

    The collector would examine all of them again and again, which takes a quarter of the time that a large archive
    needs to open. Use it only for blocks that create no reference cycles: these are not freed before the block ends.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
