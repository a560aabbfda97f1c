"""The registry of executors, and their construction by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hybridcsp.core.registry import Entry, Registry, split_argument
from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.backends.executors.base import JobExecutor
from hybridcsp.relaxation.runner import JobRunner
from hybridcsp.utils.paths import absolute

#: Name of the executor that is used if none is named.
LOCAL = "local"

_PLACE = "hybridcsp.relaxation.backends.executors"

EXECUTORS = Registry(
    "executor",
    (
        Entry(name=LOCAL, target=f"{_PLACE}.local:LocalExecutor", summary="worker processes of this machine"),
        Entry(
            name="dask",
            target=f"{_PLACE}.dask:DaskExecutor",
            summary="a Dask cluster that runs already (dask:tcp://HOST:8786, dask:scheduler.json)",
        ),
        Entry(
            name="dask-jobqueue",
            target=f"{_PLACE}.dask_jobqueue:JobQueueExecutor",
            summary="Dask workers in jobs of SLURM, PBS or SGE, which the search submits (dask-jobqueue:FILE.toml)",
        ),
        Entry(
            name="parsl",
            target=f"{_PLACE}.parsl:ParslExecutor",
            summary="Parsl on this machine or in jobs of SLURM, PBS or SGE (parsl:FILE.toml)",
        ),
        Entry(
            name="executorlib",
            target=f"{_PLACE}.executorlib:ExecutorlibExecutor",
            summary="executorlib within an allocation of SLURM or Flux, or on this machine (executorlib:FILE.toml)",
        ),
        Entry(
            name="mpi",
            target=f"{_PLACE}.mpi:MpiExecutor",
            summary="the other processes of an MPI job (mpiexec -n N python -m mpi4py.futures -m hybridcsp search ...)",
        ),
    ),
    base=f"{_PLACE}.base:JobExecutor",
)

# Executors whose argument is always the path of a file.
_WITH_FILES = ("dask-jobqueue", "parsl", "executorlib")


def build_executor(text: str) -> JobExecutor:
    """Return the executor of a name, with its argument checked.

    Parameters
    ----------
    text
        ``NAME`` or ``NAME:ARGUMENT``, such as ``dask:tcp://head:8786``.

    Raises
    ------
    UnknownNameError, InputError
        If it is not known, its package is not installed, or it does not accept its argument.
    RegistrationError
        If another package registers an executor that cannot be used.
    """
    name, argument = split_argument(check_executor(text), "executor")
    built: JobExecutor = EXECUTORS[name].build(argument)
    return built


def check_executor(text: object) -> str:
    """Return the name of an executor with its argument, after checking that it is registered.

    Raises
    ------
    UnknownNameError, InputError
        If it is not a name, or not known.
    """
    if not isinstance(text, str):
        allowed = "the name of an executor, such as dask:ADDRESS; a backend of your own is the argument backend"
        raise InputError("executor", text, allowed)
    _ = EXECUTORS[split_argument(text, "executor")[0]]
    return text


def absolute_executor(text: str, folder: Path) -> str:
    """Return the name of an executor with an absolute path, if its argument is a file relative to ``folder``."""
    name, _, argument = text.partition(":")
    is_file = name in _WITH_FILES or (name == "dask" and argument.endswith(".json"))
    return f"{name}:{absolute(argument, folder)}" if argument and is_file else text


def open_backend(
    executor: str,
    make_runner: Callable[[], JobRunner],
    *,
    workers: int | None = None,
    log_directory: Path | None = None,
) -> Backend:
    """Return the backend of an executor by its name; parameters and errors are those of :meth:`JobExecutor.open`."""
    return build_executor(executor).open(make_runner, workers=workers, log_directory=log_directory)
