"""Executor on Parsl's HighThroughputExecutor (https://parsl-project.org), the only module that imports it."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import tempfile
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

from hybridcsp.errors import BackendError, message_of
from hybridcsp.relaxation.backends.cluster import ClusterExecutor
from hybridcsp.relaxation.backends.executors.base import require_package
from hybridcsp.relaxation.backends.executors.tables import BatchJobs, Count, Line, read_table
from hybridcsp.utils import process_watch

# Time in s between the signs of life of a node, and without one after which its jobs are submitted again.
_HEARTBEAT, _LOST_AFTER = 10, 40


class ParslFile(BatchJobs):
    """Content of the file of a :class:`ParslExecutor`.

    Attributes
    ----------
    scheduler
        The batch system; ``"local"`` for this machine.
    nodes
        Number of nodes of each job.
    address
        Name or address under which the nodes reach the search. Default: found by the nodes.
    """

    scheduler: Literal["local", "slurm", "pbs", "sge"]  # type: ignore[assignment]  # one more
    nodes: Count = 1
    address: Line | None = None


class ParslExecutor(ClusterExecutor):
    """Run jobs on Parsl's HighThroughputExecutor, on this machine or in jobs of SLURM, PBS or SGE.

    Parameters
    ----------
    argument
        Path of a TOML file with the fields of :class:`ParslFile`.
    """

    name = "parsl"

    def __init__(self, argument: str | None) -> None:
        self.file = read_table(argument, ParslFile, self.name)
        require_package("parsl", "parsl", f"{self.name}:{argument}")
        self._kernel: Any = None
        self._workers: Any = None

    def provider(self) -> Any:
        """Return the provider of Parsl that submits the jobs."""
        from parsl import launchers, providers

        file = self.file
        programs = Path(sys.executable).parent  # where Parsl's worker is installed
        common: dict[str, Any] = {
            "nodes_per_block": file.nodes,
            "init_blocks": file.fewest,
            "min_blocks": file.fewest,
            "max_blocks": file.jobs,
            "worker_init": "\n".join([f"export PATH={shlex.quote(str(programs))}:$PATH", *file.prologue]),
        }
        directives = list(file.directives)
        if file.scheduler == "local":
            return providers.LocalProvider(**common)
        common["walltime"] = file.walltime
        if file.scheduler == "slurm":
            return providers.SlurmProvider(
                partition=file.queue,
                account=file.account,
                cores_per_node=file.all_cores,
                mem_per_node=max(1, file.megabytes // 1000),
                scheduler_options="\n".join(f"#SBATCH {line}" for line in directives),
                exclusive=False,
                launcher=launchers.SrunLauncher(),
                **common,
            )
        if file.scheduler == "pbs":
            return providers.PBSProProvider(
                queue=file.queue,
                account=file.account,
                cpus_per_node=file.all_cores,
                select_options=f"mem={file.memory}",
                scheduler_options="\n".join(f"#PBS {line}" for line in directives),
                launcher=launchers.MpiExecLauncher() if file.nodes > 1 else launchers.SimpleLauncher(),
                **common,
            )
        directives.insert(0, f"-l mem_free={file.megabytes // file.all_cores}M")  # of each slot
        if file.parallel_environment is not None:
            directives.insert(0, f"-pe {file.parallel_environment} {file.all_cores}")
        if file.account is not None:
            directives.insert(0, f"-P {file.account}")
        return providers.GridEngineProvider(
            queue=file.queue,
            scheduler_options="\n".join(f"#$ {line}" for line in directives),
            launcher=launchers.SimpleLauncher(),
            **common,
        )

    def start(self, directory: Path | None) -> Executor:
        """Start Parsl, which submits the jobs; ``directory`` gets its log.

        Raises
        ------
        BackendError
            If it cannot be started.
        """
        import parsl
        from parsl.concurrent import ParslPoolExecutor

        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        where = tempfile.mkdtemp(prefix="hybridcsp-parsl-") if directory is None else str(directory / "parsl")
        try:
            self._workers = parsl.HighThroughputExecutor(
                provider=self.provider(),
                max_workers_per_node=self.file.processes,
                cores_per_worker=1e-6,  # so that max_workers_per_node alone decides
                address=self.file.address or ("127.0.0.1" if self.file.scheduler == "local" else None),
                interchange_launch_cmd=self._interchange(),
                heartbeat_period=_HEARTBEAT,
                heartbeat_threshold=_LOST_AFTER,
            )
            config = parsl.Config(executors=[self._workers], run_dir=where, retries=0, initialize_logging=False)
            self._kernel = parsl.DataFlowKernel(config)
        except Exception as error:
            raise BackendError(f"Parsl cannot be started: {message_of(error)}") from error
        executor: Executor = ParslPoolExecutor(dfk=self._kernel)
        return executor

    def _interchange(self) -> list[str]:
        """Return the command of the process between the search and the workers.

        It is in a process group of its own: Parsl would wait for ever for the answers of one that Ctrl-C has ended.
        """
        program = [sys.executable, str(Path(sys.executable).parent / "interchange.py")]
        return [sys.executable, "-I", "-S", process_watch.__file__, process_watch.APART, str(os.getpid()), *program]

    def workers(self) -> int:
        """Return the number of worker processes of all nodes that answer.

        Raises
        ------
        BackendError
            If Parsl has ended, or the batch system refuses its jobs.
        """
        try:
            if self._workers.bad_state_is_set:
                raise self._workers.executor_exception
            return sum(node["worker_count"] for node in self._workers.connected_managers() if node["active"])
        except Exception as error:
            raise BackendError(f"Parsl has ended ({message_of(error)}); the search can be resumed") from error

    def wanted(self) -> int:
        """Return the number of workers, and if there may be more, as many again, for which Parsl submits jobs."""
        workers = self.workers()
        if self.file.fewest == self.file.jobs:
            return workers
        in_one_job = self.file.nodes * self.file.processes
        return min(workers + max(workers, in_one_job), self.file.jobs * in_one_job)

    def stop(self) -> None:
        """End Parsl and its jobs."""
        if self._kernel is not None:
            with contextlib.suppress(Exception):  # jobs that have ended by themselves
                self._kernel.cleanup()
