"""Pauses of Python's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the search for cyclic garbage while many objects are made that stay.

    It goes through all that was made so far again and again, which takes a quarter of the time of a large archive's
    opening. Only for blocks that make no cycles: what these hold is not freed before the block ends.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
