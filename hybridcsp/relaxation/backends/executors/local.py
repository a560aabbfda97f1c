"""The executor of this machine: a pool of worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends.executors.base import JobExecutor
from hybridcsp.relaxation.backends.pool import WorkerPool
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.utils.resources import available_cores


class LocalExecutor(JobExecutor):
    """Run jobs in worker processes of this machine."""

    name = "local"
    shared = True

    def __init__(self, argument: str | None) -> None:
        if argument is not None:
            reason = "it has no argument; the number of worker processes is the setting workers"
            raise InputError("executor", f"local:{argument}", reason=reason)

    def open(
        self, make_runner: Callable[[], JobRunner], *, workers: int | None, log_directory: Path | None
    ) -> WorkerPool:
        """Return a pool of worker processes, by default one per core."""
        return WorkerPool(make_runner, workers=workers or available_cores(), log_directory=log_directory)
