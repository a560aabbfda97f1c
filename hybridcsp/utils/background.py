"""A call that goes on beside the search."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class BackgroundCall:
    """Runs a function in a thread of its own, from now on.

    Parameters
    ----------
    function
        What to call; it must not touch anything that the search uses meanwhile. It is given an event, and comes to its
        end soon after that is set.

    Attributes
    ----------
    seconds
        How long it took, once it is done.
    """

    def __init__(self, function: Callable[[threading.Event], Any]) -> None:
        self.seconds = 0.0
        self._function = function
        self._stop = threading.Event()
        self._results: list[Any] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="errand", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has come to its end, well or not."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the end; return what the function returned, or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def cancel(self) -> None:
        """Tell it to end, and wait until it has."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.perf_counter()
        try:
            self._results.append(self._function(self._stop))
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            self._error = error
        self.seconds = time.perf_counter() - begun
