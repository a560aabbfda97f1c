"""Function calls in a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class BackgroundCall:
    """A function call in a thread of its own, which starts at once.

    Parameters
    ----------
    function
        The function. It is called with an event and must return soon after the event is set. It must not use objects
        that the search uses at the same time.

    Attributes
    ----------
    seconds
        Duration of the call in s, once it is done.
    """

    def __init__(self, function: Callable[[threading.Event], Any]) -> None:
        self.seconds = 0.0
        self._function = function
        self._stop = threading.Event()
        self._results: list[Any] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="background call", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """True once the call has ended, with a result or with an error."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the end of the call; return its result, or raise its error."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def cancel(self) -> None:
        """Set the event and wait until the call has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        start = time.perf_counter()
        try:
            self._results.append(self._function(self._stop))
        except BaseException as error:  # noqa: BLE001  # result() raises it again
            self._error = error
        self.seconds = time.perf_counter() - start
