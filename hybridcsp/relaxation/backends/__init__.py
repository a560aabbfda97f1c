"""Backends that run jobs: a process pool, an adapter for any :class:`concurrent.futures.Executor`, and clusters.

Their behaviour when a calculator fails:

==================================== ======================================= ======================================
failure of the calculator in a job   :class:`WorkerPool`                     :class:`ExecutorBackend`
==================================== ======================================= ======================================
raises anything, also ``sys.exit``   a failure of reason ``CALCULATOR``      the same
or ``KeyboardInterrupt``
returns no outcome                   a failure of reason ``CALCULATOR``      the same
returns unpicklable objects          a failure of reason ``CALCULATOR``      ``WORKER_DIED``, between processes
is slow                              the time limit is checked at each       the same
                                     force call
hangs                                killed: ``TIME_LIMIT``                  never ends; blocks one place of its
                                                                             executor
crashes, or calls ``os._exit``       ``WORKER_DIED`` and a new worker        threads: the search crashes too;
                                                                             processes: the executor breaks, and the
                                                                             search ends and can be resumed;
                                                                             in a calculator server: as in a pool
uses too much memory                 killed: ``MEMORY_LIMIT``; the memory    not monitored
                                     of its calculator servers counts
cannot be built                      the search ends with this error         the same
==================================== ======================================= ======================================

On a cluster (:class:`~hybridcsp.relaxation.backends.cluster.ClusterBackend`), each worker runs a pool of one process,
so that failures are those of a pool. A job whose worker is lost as a whole is submitted again, and is at last a failure
of reason ``WORKER_DIED``.

In a :class:`BatchedPool`, whose workers relax several structures at the same time, a job that hangs, crashes or uses
too much memory takes its worker with it; each job of that worker is then repeated alone, so that only this one fails.
"""

from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.backends.batched import BatchedPool, GenerationBackend
from hybridcsp.relaxation.backends.executor import ExecutorBackend
from hybridcsp.relaxation.backends.pool import WorkerPool
from hybridcsp.relaxation.runner import JobRunner

__all__ = ["Backend", "BatchedPool", "ExecutorBackend", "GenerationBackend", "JobRunner", "WorkerPool"]
