"""Backends that run jobs: our own process pool, and any :class:`concurrent.futures.Executor`.

Behaviour of the two when a calculator misbehaves:

==================================== ======================================= ======================================
the calculator, in one job           :class:`WorkerPool`                     :class:`ExecutorBackend`
==================================== ======================================= ======================================
raises anything: ``sys.exit``,       a failure of reason ``CALCULATOR``      the same
``KeyboardInterrupt``, …
returns something else               a failure of reason ``CALCULATOR``      the same
returns what cannot be pickled       a failure of reason ``CALCULATOR``      ``WORKER_DIED``, between processes
is slow                              the runner's own limit, checked at      the same
                                     each force call
hangs                                killed: ``TIME_LIMIT``                  never ends; its executor loses a place
crashes, or calls ``os._exit``       ``WORKER_DIED`` and a fresh worker      threads: so does the search; processes:
                                                                             the executor breaks, and the search
                                                                             ends with a directory to resume
uses too much memory                 killed: ``MEMORY_LIMIT``                not watched
cannot be built                      the search ends: the calculator's error the same
==================================== ======================================= ======================================
"""

from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.backends.executor import ExecutorBackend
from hybridcsp.relaxation.backends.pool import WorkerPool
from hybridcsp.relaxation.worker import JobRunner

__all__ = ["Backend", "ExecutorBackend", "JobRunner", "WorkerPool"]
