"""Suppression of the terminal output of third-party code."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what third-party code prints, logs and warns about while the block runs."""
    handler = logging.NullHandler()
    # If the root logger has no handler, logging.info() in a library installs one for the whole process.
    logging.getLogger().addHandler(handler)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)
