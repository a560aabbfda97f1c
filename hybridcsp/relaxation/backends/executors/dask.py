"""Executors on the workers of Dask (https://distributed.dask.org), the only module that imports it."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from abc import abstractmethod
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from hybridcsp.errors import BackendError, InputError, message_of
from hybridcsp.relaxation.backends.cluster import ClusterExecutor
from hybridcsp.relaxation.backends.executors.base import require_package

#: Longest time in s to wait for the answer of the scheduler.
CONNECT_SECONDS = 30.0

# Time in s between two attempts to reach it.
_RETRY_SECONDS = 0.2


class DaskWorkers(ClusterExecutor):
    """Base class of the executors on Dask workers: a subclass connects a client.

    The scheduler itself submits a job again whose worker is lost, up to ``distributed.scheduler.allowed-failures`` (3)
    times.
    """

    retries = 0

    def __init__(self) -> None:
        self._client: Any = None

    @abstractmethod
    def connect(self, directory: Path | None) -> Any:
        """Return a new client (``distributed.Client``); ``directory`` gets files of the cluster."""

    def start(self, directory: Path | None) -> Executor:
        """Connect to the scheduler.

        Raises
        ------
        BackendError
            If there is no scheduler, or it does not answer.
        """
        for name in ("distributed.client", "distributed.core", "distributed.comm", "distributed.nanny"):
            logging.getLogger(name).setLevel(logging.ERROR)  # what they report is told by errors of the search
        self._client = self.connect(directory)
        # Not pure: Dask would return what it remembers where a job is submitted again.
        executor: Executor = self._client.get_executor(pure=False)
        return executor

    def workers(self) -> int:
        """Return the number of threads of all workers.

        Raises
        ------
        BackendError
            If the scheduler does not answer.
        """
        try:
            return sum(self._client.nthreads().values())
        except Exception as error:
            raise BackendError(
                f"the Dask scheduler does not answer ({message_of(error)}); the search can be resumed"
            ) from error

    def stop(self) -> None:
        """Disconnect from the scheduler, which goes on."""
        if self._client is not None:
            with contextlib.suppress(Exception):  # a scheduler that has ended
                self._client.close(timeout=5)


class DaskExecutor(DaskWorkers):
    """Run jobs on the workers of a Dask cluster that runs already, and which several searches may share.

    Parameters
    ----------
    argument
        Address of the scheduler, or the path of its file (``dask scheduler --scheduler-file FILE.json``).
    """

    name = "dask"
    shared = True

    def __init__(self, argument: str | None) -> None:
        super().__init__()
        allowed = "the name with the address of the scheduler or its file: dask:tcp://head:8786, dask:scheduler.json"
        if argument is None or any(character.isspace() for character in argument):
            raise InputError("executor", "dask" if argument is None else f"dask:{argument}", allowed)
        require_package("distributed", "dask", f"dask:{argument}")
        self._address = argument

    def connect(self, directory: Path | None) -> Any:
        """Return a client of the scheduler."""
        from distributed import Client

        where = {"scheduler_file" if self._address.endswith(".json") else "address": self._address}
        try:
            if "address" in where:
                _wait_for_scheduler(self._address)
            return Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:  # a timeout is an OSError
            raise BackendError(f"no Dask scheduler answers at {self._address} ({message_of(error)})") from error


def _wait_for_scheduler(address: str) -> None:
    """Wait until the scheduler accepts connections, if it has an address of TCP; the client reads all other addresses.

    A client that is interrupted while it connects waits for a minute when it is deleted; this function ends at once.

    Raises
    ------
    OSError
        If nothing accepts connections within :data:`CONNECT_SECONDS`.
    """
    from distributed.comm.addressing import get_address_host_port, parse_address

    try:
        if parse_address(address)[0] not in ("tcp", "tls"):
            return
        where = get_address_host_port(address)
    except ValueError:
        return
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection(where, timeout=max(0.1, end - time.monotonic())).close()
        except OSError:
            if time.monotonic() + _RETRY_SECONDS > end:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
