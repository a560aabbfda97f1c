"""Executor on the workers of executorlib (https://executorlib.readthedocs.io), the only module that imports it."""

from __future__ import annotations

import contextlib
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hybridcsp.errors import BackendError, message_of
from hybridcsp.relaxation.backends.cluster import ClusterExecutor
from hybridcsp.relaxation.backends.executors.base import require_package
from hybridcsp.relaxation.backends.executors.tables import Count, read_table

# Number of times that each worker is started again in its place.
_RESTARTS = 100


class ExecutorlibFile(BaseModel):
    """Content of the file of an :class:`ExecutorlibExecutor`.

    Attributes
    ----------
    scheduler
        ``"slurm"`` or ``"flux"`` for the allocation in which the search runs, ``"local"`` for this machine.
    workers
        Number of workers.
    cores, gpus
        Numbers of threads and GPUs of each worker.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scheduler: Literal["local", "slurm", "flux"]
    workers: Count
    cores: Count = 1
    gpus: int = 0


class ExecutorlibExecutor(ClusterExecutor):
    """Run jobs on the workers of executorlib within an allocation of SLURM or Flux, or on this machine.

    executorlib starts a lost worker again itself and repeats its job.

    Parameters
    ----------
    argument
        Path of a TOML file with the fields of :class:`ExecutorlibFile`.
    """

    name = "executorlib"
    retries = 0

    def __init__(self, argument: str | None) -> None:
        self.file = read_table(argument, ExecutorlibFile, self.name)
        require_package("executorlib", "executorlib", f"{self.name}:{argument}")
        self._executor: Any = None

    def start(self, directory: Path | None) -> Executor:
        """Start the workers.

        Raises
        ------
        BackendError
            If they cannot be started.
        """
        import executorlib

        kind = {
            "local": executorlib.SingleNodeExecutor,
            "slurm": executorlib.SlurmJobExecutor,
            "flux": executorlib.FluxJobExecutor,
        }[self.file.scheduler]
        resources = {"cores": 1, "threads_per_core": self.file.cores, "gpus_per_core": self.file.gpus}
        try:
            self._executor = kind(
                max_workers=self.file.workers,
                resource_dict=resources,
                block_allocation=True,  # workers last from job to job, and with them their calculators
                restart_limit=_RESTARTS,
                hostname_localhost=self.file.scheduler == "local",
            )
        except Exception as error:
            raise BackendError(f"executorlib cannot be started: {message_of(error)}") from error
        executor: Executor = self._executor
        return executor

    def workers(self) -> int:
        """Return the number of workers."""
        return self.file.workers

    def stop(self) -> None:
        """End the workers."""
        if self._executor is not None:
            with contextlib.suppress(Exception):  # workers that have ended by themselves
                self._executor.shutdown(wait=False, cancel_futures=True)
