"""Suppression of the terminal output of third-party code."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator

# Output and warnings are those of the whole process: of blocks that run in several threads at once, the first turns
# them off and the last turns them on again. Restored in another order, the output would stay off.
_lock = threading.Lock()
_blocks = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what third-party code prints, logs and warns about while the block runs, in any thread."""
    global _blocks, _restore
    with _lock:
        if _blocks == 0:
            _restore = _suppressed()
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                _restore.close()


def _suppressed() -> contextlib.ExitStack:
    """Suppress output until the returned stack is closed."""
    with contextlib.ExitStack() as stack:
        handler = logging.NullHandler()
        # If the root logger has no handler, logging.info() in a library installs one for the whole process.
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        return stack.pop_all()
