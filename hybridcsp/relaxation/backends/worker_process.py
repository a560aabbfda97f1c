"""One worker process as seen by its parent: start, messages, monitoring and end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import psutil

from hybridcsp.core.records import Job
from hybridcsp.relaxation import worker
from hybridcsp.relaxation.backends.base import RunningJob
from hybridcsp.utils.files import end_of_log, open_log
from hybridcsp.utils.processes import death_signal, ending, python_command, python_path

# Bytes at the end of a log that are searched for its last lines.
_TAIL = 1 << 14
# Time in s after which an incomplete message means that the process at the other end has stopped.
_STUCK = 30
# Numerical libraries would otherwise use all cores in every worker.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class WorkerProcess:
    """A process of a pool and its current job."""

    def __init__(self, number: int, log_directory: Path | None, deaths: int = 0) -> None:
        self.number = number
        self.name = f"worker {number}"
        self.deaths = deaths  # consecutive predecessors that died before they were ready
        self.ready = False
        self.job: Job | None = None
        self.step: tuple[int, float] | None = None  # last reported force calls and enthalpy per atom of the job
        self._servers: list[psutil.Process] = []
        self.since = time.monotonic()  # start of the process or of its job
        self.log = None if log_directory is None else log_directory / f"worker-{number}.log"
        ours, theirs = socket.socketpair()
        with theirs, ours, _output(self.log) as output:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STUCK, 0))
            self.log_start = output.tell()
            self.process = subprocess.Popen(
                _command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    **_ONE_THREAD,
                    "PYTHONPATH": python_path(),
                },
                pass_fds=(theirs.fileno(),),
                process_group=0,  # so that children of a calculator can be ended too
            )
            self.connection = Connection(ours.detach())

    def send(self, message: bytes) -> bool:
        """Send a message; return whether the process could receive it."""
        try:
            self.connection.send_bytes(message)
        except OSError:
            return False
        return True

    def running(self) -> RunningJob | None:
        """Return the progress of the current job, or ``None`` if there is none."""
        if self.job is None:
            return None
        calls, enthalpy = self.step or (None, None)
        return RunningJob.of(self.job, self.elapsed(), calls, enthalpy)

    def elapsed(self) -> float:
        """Return the time in s since the start of the process or of its job."""
        return time.monotonic() - self.since

    def memory(self) -> int:
        """Return the resident memory of the process and its calculator servers in bytes; 0 if they have died."""
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            total = int(psutil.Process(self.process.pid).memory_info().rss)
        for process in self._servers:
            with contextlib.suppress(psutil.Error):
                if process.is_running():  # its number has not been given to another process
                    total += int(process.memory_info().rss)
        return total

    def set_servers(self, processes: tuple[int, ...]) -> None:
        """Note the process ids of the worker's calculator servers."""
        self._servers = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                self._servers.append(psutil.Process(process))

    def abort(self) -> None:
        """Make the process and its calculator servers write their stacks to the log and end, within 0.2 s."""
        for process in self._servers:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(0.2)

    def ending(self) -> str:
        """Return a description of the end of the process."""
        return ending(self.process, self.name)

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log, as the end of an error message."""
        if self.log is None:
            return " (its output is shown if the pool has a log directory)"
        text = end_of_log(self.log, _TAIL, self.log_start).splitlines()[-lines:]
        return "\n".join([f"; the end of {self.log}:", *text])


def _output(log: Path | None) -> IO[bytes]:
    return Path(os.devnull).open("ab") if log is None else open_log(log)


def _command(descriptor: int) -> list[str]:
    arguments = [str(int(value)) for value in (descriptor, os.getpid(), death_signal())]
    return python_command(worker.__name__, *arguments)
