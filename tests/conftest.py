"""What every test can rely on, however the run was started."""

import os
import signal
from collections import Counter

import pytest

# One thread for each process of a run, set before numpy and torch are imported: with the tests of several processes on
# the same cores, threads wait for each other, and a training of a small model takes ten times as long.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

# The console takes the width that COLUMNS says when it is made, and keeps it: no test may be the first to make it.
os.environ.pop("COLUMNS", None)
import hybridcsp.cli.console  # noqa: F401


def pytest_collection_modifyitems(items):
    """Put the modules with the most slow tests first, so that several processes end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Let Ctrl-C have its effect in tests and in the processes that they start.

    A run in the background of a script, and many runners, start with SIGINT ignored, which children inherit.
    """
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)
