"""Executor on Dask workers in jobs of a batch system (https://jobqueue.dask.org), the only module that imports it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from hybridcsp.errors import BackendError, message_of
from hybridcsp.relaxation.backends.executors.base import require_package
from hybridcsp.relaxation.backends.executors.dask import DaskWorkers
from hybridcsp.relaxation.backends.executors.tables import BatchJobs, Line, read_table


class JobQueueFile(BatchJobs):
    """Content of the file of a :class:`JobQueueExecutor`.

    Attributes
    ----------
    python
        Python interpreter of the workers. Default: that of the search.
    interface
        Network interface of the scheduler and the workers, such as ``"ib0"``.
    local_directory
        Folder on the nodes for temporary files.
    """

    python: Line | None = None
    interface: Line | None = None
    local_directory: Line | None = None


class JobQueueExecutor(DaskWorkers):
    """Run jobs on Dask workers in jobs of SLURM, PBS or SGE, which are submitted when the search starts.

    The search is the scheduler of Dask, so that it has to run where the nodes can reach it, such as on the login node
    or in a job of its own. When it ends, so do the jobs.

    Parameters
    ----------
    argument
        Path of a TOML file with the fields of :class:`JobQueueFile`.
    """

    name = "dask-jobqueue"

    def __init__(self, argument: str | None) -> None:
        super().__init__()
        self.file = read_table(argument, JobQueueFile, self.name)
        require_package("dask_jobqueue", "dask-jobqueue", f"{self.name}:{argument}")
        self._cluster: Any = None

    def cluster(self, directory: Path | None = None) -> Any:
        """Return the cluster (``dask_jobqueue.JobQueueCluster``) without any job; ``directory`` gets their output."""
        import dask_jobqueue

        file = self.file
        options: dict[str, Any] = {
            "queue": file.queue,
            "account": file.account,
            "walltime": file.walltime,
            # One thread in each process: calculators are not made for several.
            "cores": file.processes,
            "processes": file.processes,
            "memory": file.memory,
            "python": file.python,
            "interface": file.interface,
            "local_directory": file.local_directory,
            "job_script_prologue": list(file.prologue),
            "log_directory": None if directory is None else str(directory),
        }
        directives = list(file.directives)
        match file.scheduler:
            case "slurm":
                kind, options["job_cpu"] = dask_jobqueue.SLURMCluster, file.all_cores
            case "pbs":
                kind = dask_jobqueue.PBSCluster
                options["resource_spec"] = f"select=1:ncpus={file.all_cores}:mem={file.memory}"
            case "sge":
                kind = dask_jobqueue.SGECluster
                options["project"] = options.pop("account")
                options["resource_spec"] = f"mem_free={file.megabytes // file.all_cores}M"
                if file.parallel_environment is not None:
                    directives.insert(0, f"-pe {file.parallel_environment} {file.all_cores}")
        return kind(**options, job_extra_directives=directives)

    def connect(self, directory: Path | None) -> Any:
        """Submit the jobs, and return a client of their scheduler."""
        from distributed import Client

        try:
            self._cluster = self.cluster(directory)
            if self.file.fewest == self.file.jobs:
                self._cluster.scale(jobs=self.file.jobs)
            else:
                self._cluster.adapt(minimum_jobs=self.file.fewest, maximum_jobs=self.file.jobs)
            return Client(self._cluster, set_as_default=False)  # type: ignore[no-untyped-call]
        except Exception as error:
            self.stop()
            raise BackendError(f"the jobs of {self.name} cannot be submitted: {message_of(error)}") from error

    def wanted(self) -> int:
        """Return the number of workers, and if there may be more, as many again, for which Dask submits jobs."""
        workers = self.workers()
        if self.file.fewest == self.file.jobs:
            return workers
        return min(workers + max(workers, self.file.processes), self.file.jobs * self.file.processes)

    def stop(self) -> None:
        """End the jobs."""
        super().stop()
        if self._cluster is not None:
            with contextlib.suppress(Exception):  # jobs that have ended by themselves
                self._cluster.close(timeout=10)
