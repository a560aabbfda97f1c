"""TOML files that describe the workers of an executor: reading, and what jobs of batch systems have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hybridcsp.errors import InputError, UnreadableError, did_you_mean, with_hint
from hybridcsp.utils.paths import expanded
from hybridcsp.utils.reading import read_toml

_WALLTIME = "a time as hours, minutes and seconds, such as 24:00:00"
_MEMORY = "an amount of memory with its unit, such as 64GB"
_LINE = "a text of one line that is not empty"

_UNITS = {"MB": 1, "GB": 1000, "TB": 1000**2}


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(_LINE)
    return text


def _walltime(text: str) -> str:
    if not re.fullmatch(r"\d{1,4}:[0-5]\d:[0-5]\d", text):
        raise ValueError(_WALLTIME)
    return text


def _memory(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(MB|GB|TB)", text):
        raise ValueError(_MEMORY)
    return text


#: A text of one line, such as a command or the name of a queue.
Line = Annotated[str, AfterValidator(_line)]

Count = Annotated[int, Field(ge=1)]


class BatchJobs(BaseModel):
    """Jobs of a batch system, in each of which worker processes run.

    Attributes
    ----------
    scheduler
        The batch system.
    jobs
        Number of jobs.
    min_jobs
        Number of jobs that are kept when there is little to do; from there up to ``jobs``, their number follows the
        work. Default: ``jobs``.
    processes
        Number of worker processes on each node, with one relaxation at a time each.
    cores
        Number of cores on each node. Default: one for each process.
    memory
        Memory of each node.
    walltime
        Longest time of a job.
    queue, account
        Queue (partition) and account (project).
    directives
        Further lines for the batch system at the head of the script, such as ``"--constraint=milan"``.
    prologue
        Commands that each job runs first, such as ``"module load gcc"``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scheduler: Literal["slurm", "pbs", "sge"]
    jobs: Count = 1
    min_jobs: Annotated[int, Field(ge=0)] | None = None
    processes: Count
    cores: Count | None = None
    memory: Annotated[str, AfterValidator(_memory)] = "16GB"
    walltime: Annotated[str, AfterValidator(_walltime)] = "24:00:00"
    queue: Line | None = None
    account: Line | None = None
    parallel_environment: Line | None = None
    directives: tuple[Line, ...] = Field(default=(), strict=False)
    prologue: tuple[Line, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_jobs is not None and self.min_jobs > self.jobs:
            raise _wrong("min_jobs", self.min_jobs, f"a number up to that of jobs, {self.jobs}")
        if self.cores is not None and self.cores < self.processes:
            raise _wrong("cores", self.cores, f"a number from that of processes, {self.processes}")
        if self.scheduler == "sge" and self.all_cores > 1 and self.parallel_environment is None:
            raise _wrong("parallel_environment", None, "the parallel environment of SGE for jobs of several cores")
        if self.scheduler != "sge" and self.parallel_environment is not None:
            reason = f"it belongs to SGE, and the scheduler is {self.scheduler}"
            raise _WrongValue(InputError("parallel_environment", self.parallel_environment, reason=reason))
        return self

    @property
    def all_cores(self) -> int:
        """Number of cores on each node."""
        return self.cores or self.processes

    @property
    def fewest(self) -> int:
        """Number of jobs that are kept when there is little to do."""
        return self.jobs if self.min_jobs is None else self.min_jobs

    @property
    def megabytes(self) -> int:
        """Memory of each node in MB (10⁶ bytes)."""
        return int(self.memory[:-2]) * _UNITS[self.memory[-2:]]


class _WrongValue(ValueError):
    """A value that does not fit another one of the same file."""

    def __init__(self, error: InputError) -> None:
        super().__init__(str(error))
        self.error = error


def _wrong(key: str, value: object, allowed: str) -> _WrongValue:
    return _WrongValue(InputError(key, value, allowed))


_Model = TypeVar("_Model", bound=BaseModel)


def read_table(argument: str | None, model: type[_Model], executor: str) -> _Model:
    """Read the file of an executor.

    Parameters
    ----------
    argument
        Path of the TOML file.
    model
        The class of its content.
    executor
        Name of the executor.

    Raises
    ------
    InputError
        If there is no file, it cannot be read, or a key or value is wrong; the error names the first one.
    """
    if argument is None:
        allowed = f"the name with the path of a TOML file that describes the workers, {executor}:FILE"
        raise InputError("executor", executor, allowed)
    path = expanded(argument)
    try:
        raw = read_toml(path)
    except UnreadableError as error:
        raise InputError("executor", path, reason=error.reason) from None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        mistake = _mistake(dict(error.errors()[0]), model)
        raise InputError("executor", path, reason=f"it contains a mistake: {mistake}") from None


def _mistake(details: Mapping[str, Any], model: type[BaseModel]) -> InputError:
    """Return the error that one of pydantic describes."""
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, _WrongValue):
        return cause.error
    key = ".".join(str(part) for part in details["loc"])
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = list(model.model_fields)
        return InputError(key, value, reason=with_hint(f"the keys are {', '.join(known)}", did_you_mean(key, known)))
    if kind == "missing":
        return InputError(key, None, reason="it has no default; add it to the file")
    if cause is not None:
        return InputError(key, value, str(cause))
    allowed = {
        "literal_error": f"one of {str(context.get('expected', '')).replace(' or ', ', ')}".replace("'", ""),
        "greater_than_equal": f"a whole number from {context.get('ge')}",
        "int_type": "a whole number",
        "bool_type": "true or false",
        "string_type": _LINE,
        "tuple_type": f"a list, each item of it {_LINE}",
    }.get(kind, details["msg"])
    return InputError(key, value, allowed)
