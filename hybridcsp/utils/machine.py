"""Ask and set limits of the operating system where it supports them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def available_cores() -> int:
    """Return how many cores this process may use, or how many there are where the system does not tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Return how many processes wanted a core in the last minute, ``None`` where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def forbid_core_dumps() -> None:
    """See to it that a crash of this process leaves no file with its memory, where that can be set."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def volunteer_for_the_end() -> None:
    """Tell the kernel to end this process rather than another where memory runs out; only Linux can be told."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
