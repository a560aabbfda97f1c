"""What every test can rely on, however the run was started."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Let Ctrl-C have its effect in tests and in the processes that they start.

    A run in the background of a script, and many runners, start with SIGINT ignored, which children inherit.
    """
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)
