"""The interface of the executors that a search can name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.utils.modules import locate


class JobExecutor(ABC):
    """Base class of the executors, each of which opens a backend on its workers.

    The constructor takes the text after the colon of the executor's name, or ``None``, and checks it before anything is
    computed, without connecting to anything; it raises :class:`~hybridcsp.errors.InputError`. For a cluster inherit
    :class:`hybridcsp.relaxation.backends.cluster.ClusterExecutor`.

    Attributes
    ----------
    name
        Name of the executor, as it is registered.
    shared
        Whether several processes can use the same workers at the same time, as the runs of a comparison do.
    """

    name: ClassVar[str]
    shared: ClassVar[bool] = False

    @abstractmethod
    def open(self, make_runner: Callable[[], JobRunner], *, workers: int | None, log_directory: Path | None) -> Backend:
        """Return a backend that runs jobs on the workers; closing it frees them.

        Parameters
        ----------
        make_runner
            Function that builds the calculator and returns the runner; it can be pickled.
        workers
            Largest number of jobs at once; ``None`` for as many as there are workers.
        log_directory
            Folder for the output of workers of this machine.

        Raises
        ------
        BackendError
            If the workers cannot be reached.
        """


def require_package(module: str, extra: str, executor: str) -> None:
    """Check that the package of an executor is installed, without importing it.

    Raises
    ------
    InputError
        If it is not.
    """
    if locate(module) is None:
        reason = f'it needs the package {module}, which is not installed: pip install "hybridcsp[{extra}]"'
        raise InputError("executor", executor, reason=reason)
