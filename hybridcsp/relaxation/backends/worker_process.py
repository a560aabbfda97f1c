"""The parent's side of one worker process: how it is started, spoken to, looked at and ended."""

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
from hybridcsp.utils.processes import death_signal, python_command, python_path

# Bytes of a log that are looked at for its last lines.
_TAIL = 1 << 14
# A message that stands still this long, in seconds, has a stopped process at its other end.
_STUCK = 30
# One thread for each of the libraries that would otherwise take all cores in every worker.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class WorkerProcess:
    """One process of a pool, and what it is doing."""

    def __init__(self, number: int, log_directory: Path | None, deaths: int = 0) -> None:
        self.number = number
        self.name = f"worker {number}"
        self.deaths = deaths  # of predecessors that did not live to be ready, in a row
        self.ready = False
        self.job: Job | None = None
        self.step: tuple[int, float] | None = None  # force calls and enthalpy per atom of the job, once it tells
        self.since = time.monotonic()  # it was started, or got its job
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
                process_group=0,  # what a calculator starts can be ended together with it
            )
            self.connection = Connection(ours.detach())

    def send(self, message: bytes) -> bool:
        """Send bytes, or say that nobody is there to take them."""
        try:
            self.connection.send_bytes(message)
        except OSError:
            return False
        return True

    def running(self) -> RunningJob | None:
        """Return what it is doing; ``None`` where it has no job."""
        if self.job is None:
            return None
        calls, enthalpy = self.step or (None, None)
        return RunningJob.of(self.job, self.elapsed(), calls, enthalpy)

    def elapsed(self) -> float:
        """Return the seconds since it was started or got its job."""
        return time.monotonic() - self.since

    def memory(self) -> int:
        """Return the resident memory in bytes, 0 of a process that has just died."""
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def abort(self) -> None:
        """Make it write where it is to its log and end, if it does so at once."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(0.2)

    def ending(self) -> str:
        """Say how the process ended."""
        try:
            status = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"{self.name} closed its connection"
        if status >= 0:
            return f"{self.name} ended with exit status {status}"
        hint = " (by the system, where memory ran out?)" if status == -signal.SIGKILL else ""
        return f"{self.name} was killed by {signal.Signals(-status).name}{hint}"

    def tail(self, lines: int = 20) -> str:
        """Return the end of what it wrote, to go at the end of a message."""
        if self.log is None:
            return " (a log directory would show its output)"
        text = end_of_log(self.log, _TAIL, self.log_start).splitlines()[-lines:]
        return "\n".join([f"; the end of {self.log}:", *text])


def _output(log: Path | None) -> IO[bytes]:
    return Path(os.devnull).open("ab") if log is None else open_log(log)


def _command(descriptor: int) -> list[str]:
    arguments = [str(int(value)) for value in (descriptor, os.getpid(), death_signal())]
    return python_command(worker.__name__, *arguments)
