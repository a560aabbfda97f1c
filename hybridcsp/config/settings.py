"""One TOML file <-> the objects a search is made of."""

from __future__ import annotations

import copy
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hybridcsp.archive.archive import Archive
from hybridcsp.config.errors import (
    OF_THE_PROBLEM,
    ConfigurationError,
    Origin,
    explain,
    sentences,
    unknown_key,
    with_plain_numbers,
)
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Limits
from hybridcsp.core.registry import split_argument
from hybridcsp.errors import ArchiveError, CalculatorError, InputError, UnknownNameError, UnreadableError
from hybridcsp.generators.external import Command
from hybridcsp.relaxation.calculators.registry import check_calculator, runs_code
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.retraining import Retraining
from hybridcsp.search.allocation import ALLOCATIONS
from hybridcsp.search.search import Search
from hybridcsp.search.settings import SearchSettings
from hybridcsp.search.stopping import StoppingCriteria, Target
from hybridcsp.sources.registry import DEFAULT_SOURCES, ONE_SHOT, SOURCES
from hybridcsp.utils.files import atomic_write
from hybridcsp.utils.reading import read_toml

#: The resolved configuration in a run directory.
FILE = "config.toml"


def _known_source(text: str) -> str:
    name, _ = split_argument(text, "source")
    _ = SOURCES[name]
    return text


def _at_least_one(sources: tuple[str, ...]) -> tuple[str, ...]:
    if not sources:
        raise InputError("sources", sources, "at least one source")
    return sources


def _known_allocation(text: str) -> str:
    if text not in ALLOCATIONS:
        raise UnknownNameError("allocation", text, ALLOCATIONS)
    return text


def _known_calculator(text: str) -> str:
    with suppress(CalculatorError):  # a model file that is missing is an error when it is to be used
        check_calculator(text)
    return text


#: Sources whose argument can be nothing but a path.
_WITH_PATHS = ("seeds", "prototypes")


class SearchSection(BaseModel):
    """Who searches: the ``[search]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calculator: Annotated[str, AfterValidator(_known_calculator)] = "chgnet"
    sources: Annotated[tuple[Annotated[str, AfterValidator(_known_source)], ...], AfterValidator(_at_least_one)] = (
        DEFAULT_SOURCES
    )
    allocation: Annotated[str, AfterValidator(_known_allocation)] = "earnings"
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=1)
    one_shot: int = Field(default=ONE_SHOT, ge=1)
    directory: str | None = None


class Configuration(BaseModel):
    """A whole search as plain data; its tables are those of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: Problem
    search: SearchSection = SearchSection()
    budget: StoppingCriteria = StoppingCriteria()
    relaxation: RelaxationSettings = RelaxationSettings()
    limits: Limits = Limits()
    retraining: Retraining = Retraining()
    external: dict[str, Command] = Field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.search.directory or self.problem.formula)

    @property
    def settings(self) -> SearchSettings:
        """The settings of the search.

        Raises
        ------
        CalculatorError
            If the calculator cannot be built.
        """
        return SearchSettings(
            calculator=self.search.calculator,
            sources=self.search.sources,
            allocation=self.search.allocation,
            seed=self.search.seed,
            workers=self.search.workers,
            relaxation=self.relaxation,
            limits=self.limits,
            retraining=self.retraining,
            external=self.external,
            one_shot=self.search.one_shot,
        )

    @property
    def needs_trust(self) -> bool:
        """Whether it runs code or programs that it names."""
        return bool(self._commands) or runs_code(self.search.calculator)

    @property
    def _commands(self) -> list[str]:
        return [name for name in self.external if f"external:{name}" in self.search.sources]

    def check_trust(self, *, trust: bool, trust_commands: bool) -> None:
        """Refuse code and programs that this configuration would run and that nobody has agreed to.

        Nothing that it names is imported to find that out. Arguments and errors are those of :meth:`build`.
        """
        if self._commands and not trust_commands:
            listed = shlex.join(self.external[self._commands[0]].command)
            raise InputError(
                f"external.{self._commands[0]}.command", listed, "runs this program; if you trust it, add --trust"
            )
        if runs_code(self.search.calculator) and not trust:
            raise InputError(
                "search.calculator",
                self.search.calculator,
                "runs code that this file names; if you trust it, add --trust, or name it with --calculator",
            )

    def build(self, *, trust: bool, trust_commands: bool = False, allow_calculator_change: bool = False) -> Search:
        """Make the search, or take it up again, and write the resolved configuration into its directory.

        Parameters
        ----------
        trust
            Whether the person has agreed to run the code that the calculator's name stands for.
        trust_commands
            Whether the person has agreed to run the external commands that are among the sources.
        allow_calculator_change
            As for :class:`~hybridcsp.search.search.Search`.

        Raises
        ------
        InputError
            If the calculator runs code, or a source a command, and that was not agreed to.
        """
        self.check_trust(trust=trust, trust_commands=trust_commands)
        Target(self.budget.stop_at, self.problem)  # one that makes no sense is an error before there is a directory
        return Search(
            self.problem,
            self.settings,
            directory=self.directory,
            on_open=partial(write, self),
            allow_calculator_change=allow_calculator_change,
        )


def parse(raw: Mapping[str, Any], where: str | Origin, also: Sequence[str] = ()) -> Configuration:
    """Validate plain data.

    Parameters
    ----------
    raw
        Tables as TOML gives them. Numbers may be text with a unit (``"50 GPa"``).
    where
        What to call its origin in errors, or where each key was written.
    also
        Mistakes that were found before, to be listed with the others.

    Raises
    ------
    ConfigurationError
        Lists every key that is wrong, its value, and what is allowed or was probably meant.
    """
    origin = where if isinstance(where, Origin) else Origin(where)
    tables, mistakes = with_plain_numbers(raw, origin)
    for mistake in mistakes:
        _drop(tables, mistake.path)
    for key in OF_THE_PROBLEM:
        if _holds(tables, ("relaxation", key)):
            mistakes.append(unknown_key(("relaxation", key), Configuration, origin))
            _drop(tables, ("relaxation", key))
    configuration, first = None, True
    while configuration is None:
        try:
            configuration = Configuration.model_validate(tables)
        except ValidationError as error:
            found = [explain(dict(details), Configuration, origin) for details in error.errors()]
            # What is wrong is left out, so that the next round shows what else is. From then on an error about a key
            # that was not given follows from what was left out.
            given = [mistake for mistake in found if _holds(tables, mistake.path)]
            mistakes += found if first else given
            for mistake in given:
                _drop(tables, mistake.path)
            if not given:
                break
            first = False
    listed = [*also, *sentences(mistakes, origin)]
    if configuration is None or listed:
        raise ConfigurationError(origin.name, listed)
    return configuration


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file; paths in it are relative to its folder and come back absolute.

    Raises
    ------
    InputError
        If it is not there or not TOML.
    """
    try:
        raw = read_toml(path)
    except UnreadableError as error:
        raise InputError("configuration", str(path), f"a TOML file that can be read: {error.reason}") from None
    return with_absolute_paths(raw, path.parent)


def with_absolute_paths(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the same tables with paths that are relative to ``folder`` made absolute."""
    result = copy.deepcopy(dict(raw))
    search, budget, retraining = (result.get(table) for table in ("search", "budget", "retraining"))
    external = result.get("external")
    commands = external if isinstance(external, dict) else {}
    for command in commands.values():
        if isinstance(command, dict) and isinstance(command.get("command"), list):
            command["command"] = [
                _absolute_if_there(part, folder) if isinstance(part, str) and part else part
                for part in command["command"]
            ]
    if isinstance(search, dict):
        if isinstance(search.get("directory"), str):
            search["directory"] = str(folder / search["directory"])
        if isinstance(search.get("calculator"), str):
            search["calculator"] = _absolute_argument(search["calculator"], folder)
        if isinstance(search.get("sources"), list):
            named = {f"external:{name}" for name in commands}
            search["sources"] = [
                _absolute_argument(source, folder) if isinstance(source, str) and source not in named else source
                for source in search["sources"]
            ]
    if isinstance(budget, dict) and isinstance(budget.get("stop_at"), str):
        with suppress(ValueError):
            budget["stop_at"] = float(budget["stop_at"])
        if isinstance(budget["stop_at"], str):
            budget["stop_at"] = _absolute(budget["stop_at"], folder)
    if isinstance(retraining, dict) and isinstance(retraining.get("replay_data"), str):
        retraining["replay_data"] = _absolute(retraining["replay_data"], folder)
    return result


def write(configuration: Configuration, directory: Path) -> None:
    """Write the resolved configuration, in full, to ``config.toml`` in a run directory."""
    raw = json.loads(configuration.model_dump_json(exclude_none=True, exclude={"relaxation": set(OF_THE_PROBLEM)}))
    raw["search"]["directory"] = str(directory.resolve())
    raw = with_absolute_paths(raw, Path.cwd())
    head = f"# hybridcsp search {FILE}   runs this search; in its own directory: hybridcsp resume .\n\n"
    with atomic_write(directory / FILE) as file:
        file.write(head + tomli_w.dumps(raw))


def of_directory(directory: Path) -> Configuration:
    """Return the configuration of a run directory: its ``config.toml``, or what its archive remembers.

    Raises
    ------
    ArchiveError
        If there is no search, or one that was made in Python from objects that cannot be written down.
    """
    with Archive(directory) as archive:
        if (directory / FILE).exists():
            raw = read(directory / FILE)
        else:
            with archive.reading():
                raw = _remembered(archive)
    raw.setdefault("search", {})["directory"] = str(directory)
    return parse(raw, str(directory / FILE))


def _remembered(archive: Archive) -> dict[str, Any]:
    """Return the configuration that an archive's last session was made with, as TOML tables."""
    directory, settings = archive.directory, archive.state.settings
    if not settings:
        raise ArchiveError(
            f"{directory} holds no search that was begun, and no {FILE} that says which one: start it with "
            f"hybridcsp search"
        )
    last = settings[-1]
    if last.get("calculator") is None:
        raise ArchiveError(
            f"{directory} holds results of {archive.state.calculator or 'another code'}; there is no calculator to go "
            f"on with. hybridcsp watch goes on beside that code; to relax its structures in a search of your own: "
            f"hybridcsp search {last['problem']['formula']} --source seeds:{directory / 'minima.extxyz'}"
        )
    objects = [last["calculator"], last["allocation"], *last["sources"]]
    if not all(isinstance(item, str) for item in objects):
        raise ArchiveError(f"{directory} was made in Python with objects of its own: take it up again there")
    relaxation = {key: value for key, value in last["relaxation"].items() if key not in OF_THE_PROBLEM}
    search = {key: last[key] for key in ("calculator", "sources", "allocation", "seed", "workers")}
    search["one_shot"] = last.get("one_shot", 1)
    raw = {"problem": last["problem"], "search": search, "relaxation": relaxation, "limits": last["limits"]}
    return raw | {name: last[name] for name in ("retraining", "external") if last.get(name)}


def _absolute(path: str, folder: Path) -> str:
    found = folder / Path(path).expanduser()
    return os.path.abspath(found)  # noqa: PTH100  # links are not followed: the Python of an environment is one


def _absolute_if_there(text: str, folder: Path) -> str:
    try:
        there = (folder / Path(text).expanduser()).exists()
    except (OSError, RuntimeError):  # too long for a name, or of a user who is not there
        there = False
    return _absolute(text, folder) if there else text


def _absolute_argument(text: str, folder: Path) -> str:
    name, colon, argument = text.partition(":")
    if not colon or not argument:
        return text
    path = name in _WITH_PATHS or "/" in argument or argument.startswith((".", "~"))
    return f"{name}:{_absolute(argument, folder) if path else _absolute_if_there(argument, folder)}"


def _holds(tables: Mapping[str, Any], path: Sequence[str]) -> bool:
    table = tables.get(path[0])
    return path[0] in tables if len(path) == 1 else isinstance(table, dict) and path[1] in table


def _drop(tables: dict[str, Any], path: Sequence[str]) -> None:
    if _holds(tables, path):
        if len(path) == 1:
            del tables[path[0]]
        else:
            del tables[path[0]][path[1]]
