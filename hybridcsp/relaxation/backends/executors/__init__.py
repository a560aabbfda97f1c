"""Executors: the workers on which jobs run, those of this machine or of a cluster, one file for each kind."""

from hybridcsp.relaxation.backends.executors.base import JobExecutor
from hybridcsp.relaxation.backends.executors.registry import EXECUTORS, LOCAL, build_executor, check_executor

__all__ = ["EXECUTORS", "LOCAL", "JobExecutor", "build_executor", "check_executor"]
