"""Executor on the processes of an MPI job (https://mpi4py.readthedocs.io), the only module that imports mpi4py."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from hybridcsp.errors import BackendError, InputError
from hybridcsp.relaxation.backends.cluster import ClusterExecutor
from hybridcsp.relaxation.backends.executors.base import require_package

_COMMAND = "mpiexec -n N python -m mpi4py.futures -m hybridcsp search ... --executor mpi"


class MpiExecutor(ClusterExecutor):
    """Run jobs on the other processes of the MPI job in which the search runs.

    If one of these processes is lost, MPI ends the whole job, and the search is resumed by another one. Failures of
    calculators do not end them.
    """

    name = "mpi"
    retries = 0

    def __init__(self, argument: str | None) -> None:
        if argument is not None:
            reason = f"it has no argument; the number of processes is that of the MPI job: {_COMMAND}"
            raise InputError("executor", f"mpi:{argument}", reason=reason)
        require_package("mpi4py", "mpi", self.name)
        self._executor: Any = None

    def start(self, directory: Path | None) -> Executor:
        """Use the other processes of the MPI job.

        Raises
        ------
        BackendError
            If there are none.
        """
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor

        size = MPI.COMM_WORLD.Get_size()
        if size < 2:
            raise BackendError(f"this MPI job has no process beside that of the search; start it by {_COMMAND}")
        self._executor = MPIPoolExecutor()
        if self._executor.num_workers < 1:
            raise BackendError(f"the other processes of the MPI job do not wait for tasks; start it by {_COMMAND}")
        executor: Executor = self._executor
        return executor

    def workers(self) -> int:
        """Return the number of the other processes."""
        return int(self._executor.num_workers)

    def stop(self) -> None:
        """Let the other processes go; running jobs end first, because MPI cannot interrupt them."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
