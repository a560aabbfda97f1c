"""Third-party code that would talk to the user's terminal does not."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what third-party code prints and warns about off the terminal while the block runs."""
    handler = logging.NullHandler()
    # logging.info() in a library installs a handler for the whole process where the root logger has none
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
