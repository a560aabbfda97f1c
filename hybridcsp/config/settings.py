"""Read the configuration of a search from TOML, build the search, and write the configuration back."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.directory_lock import check_directory
from hybridcsp.config.errors import (
    SET_BY_PROBLEM,
    ConfigurationError,
    Origin,
    explain,
    messages,
    read_quantities,
    unknown_key,
)
from hybridcsp.config.paths import FILE, with_absolute_paths
from hybridcsp.config.recorded import recorded_tables
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Limits
from hybridcsp.core.registry import split_argument
from hybridcsp.core.system import System
from hybridcsp.errors import CalculatorError, InputError, UnreadableError
from hybridcsp.generators.external import Command
from hybridcsp.objectives import MeasuredPattern, ObjectiveChoice
from hybridcsp.objectives.choice import choices_of
from hybridcsp.relaxation.backends.executors import LOCAL, check_executor
from hybridcsp.relaxation.batch_size import read_batch
from hybridcsp.relaxation.calculators.choice import SUFFIX, CalculatorChoice
from hybridcsp.relaxation.calculators.registry import check_name, runs_code
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.retraining import Retraining
from hybridcsp.search.allocations import DEFAULT_ALLOCATION, find_allocation
from hybridcsp.search.follow_up import FollowUp
from hybridcsp.search.search import Search
from hybridcsp.search.settings import DEFAULT_CALCULATOR, SearchSettings
from hybridcsp.search.stopping import StoppingCriteria, Target
from hybridcsp.sources.registry import DEFAULT_SOURCES, ONE_SHOT, SOURCES, SYSTEM_SOURCES
from hybridcsp.utils.files import atomic_write
from hybridcsp.utils.reading import read_toml


def _known_source(text: str) -> str:
    name, _ = split_argument(text, "source")
    _ = SOURCES[name]
    return text


def _at_least_one(sources: tuple[str, ...]) -> tuple[str, ...]:
    if not sources:
        raise InputError("sources", sources, "a list of at least one source")
    return sources


_Sources = Annotated[tuple[Annotated[str, AfterValidator(_known_source)], ...], AfterValidator(_at_least_one)]

#: Options of keys that are not called like them.
_OPTIONS = {"then.calculators": "--then", "search.objectives": "--objective"}


class SearchSection(BaseModel):
    """The ``[search]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calculator: str = DEFAULT_CALCULATOR
    python: str | None = None
    device: str | None = None
    precision: str | None = None
    sources: _Sources = DEFAULT_SOURCES
    allocation: Annotated[str, AfterValidator(find_allocation)] = DEFAULT_ALLOCATION
    seed: int = Field(default=SearchSettings.seed, ge=0)
    workers: int | None = Field(default=None, ge=1)
    executor: Annotated[str, AfterValidator(check_executor)] = LOCAL
    batch: Annotated[int | str, BeforeValidator(read_batch)] | None = None
    one_shot: int = Field(default=ONE_SHOT, ge=1)
    references: tuple[str, ...] = ()
    objectives: tuple[Annotated[ObjectiveChoice, BeforeValidator(ObjectiveChoice.of)], ...] = ()
    where: str = ""
    keep_evaluations: bool = False
    directory: str | None = None

    @model_validator(mode="after")
    def _check_calculator(self) -> Self:
        """Check the calculator without reading, starting or importing anything that the configuration names."""
        choice = self.choice
        if not self.calculator.endswith(SUFFIX):
            with suppress(CalculatorError):  # a missing model file is an error only when the search is built
                check_name(choice)
        return self

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        """Check names and the condition without building any objective."""
        choices_of(self.objectives, self.where)
        return self

    @property
    def choice(self) -> CalculatorChoice:
        """The calculator with its interpreter, device and precision."""
        return CalculatorChoice(
            calculator=self.calculator, python=self.python, device=self.device, precision=self.precision
        )


class SystemSearchSection(SearchSection):
    """The ``[search]`` table of a search of a chemical system."""

    sources: _Sources = SYSTEM_SOURCES


class Configuration(BaseModel):
    """The configuration of a search as plain data, with the tables of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: Problem
    search: SearchSection = SearchSection()
    budget: StoppingCriteria = StoppingCriteria()
    relaxation: RelaxationSettings = RelaxationSettings()
    limits: Limits = Limits()
    retraining: Retraining = Retraining()
    then: FollowUp = FollowUp()
    xrd: MeasuredPattern = MeasuredPattern()
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
            python=self.search.python,
            device=self.search.device,
            precision=self.search.precision,
            sources=self.search.sources,
            allocation=self.search.allocation,
            seed=self.search.seed,
            workers=self.search.workers,
            executor=self.search.executor,
            batch=self.search.batch,
            relaxation=self.relaxation,
            limits=self.limits,
            retraining=self.retraining,
            external=self.external,
            one_shot=self.search.one_shot,
            references=self.search.references,
            then=self.then,
            objectives=self.search.objectives,
            where=self.search.where,
            xrd=self.xrd,
            keep_evaluations=self.search.keep_evaluations,
        )

    @property
    def needs_trust(self) -> bool:
        """Whether the search runs code or programs that the configuration names."""
        return (
            bool(self._commands)
            or self.search.executor != LOCAL
            or any(map(runs_code, (self.search.choice, *self.then.calculators)))
            or any(one.runs_code for one in self.search.objectives)
        )

    @property
    def _commands(self) -> list[str]:
        return [name for name in self.external if f"external:{name}" in self.search.sources]

    def check_trust(self, *, trust: bool, trust_commands: bool, named: Collection[str] = ()) -> None:
        """Check that the user has agreed to all code and programs that the search would run, without importing any.

        Parameters and errors are those of :meth:`build`.
        """
        if self._commands and not trust_commands:
            listed = shlex.join(self.external[self._commands[0]].command)
            raise InputError(
                f"external.{self._commands[0]}.command",
                listed,
                reason="it runs a program; if you trust it, add --trust",
            )
        if trust:
            return
        given: list[tuple[str, str | None, bool]] = [
            ("search.python", self.search.python, self.search.python is not None),
            ("search.calculator", self.search.calculator, runs_code(self.search.calculator)),
            ("search.executor", self.search.executor, self.search.executor != LOCAL),
            *(("then.calculators", str(one), runs_code(one)) for one in self.then.calculators),
            *(("search.objectives", str(one.objective), one.runs_code) for one in self.search.objectives),
        ]
        for key, shown, runs in given:
            if runs and key not in named:
                option = _OPTIONS.get(key, f"--{key.removeprefix('search.')}")
                raise InputError(
                    key,
                    shown,
                    reason=f"it runs code that this file names; if you trust it, add --trust, or name it with {option}",
                )

    def build(
        self,
        *,
        trust: bool,
        trust_commands: bool = False,
        named: Collection[str] = (),
        allow_calculator_change: bool = False,
    ) -> Search:
        """Start or resume the search, and write the resolved configuration into its run directory.

        Parameters
        ----------
        trust
            Whether the user has agreed to run the code that the name of the calculator refers to.
        trust_commands
            Whether the user has agreed to run the external commands among the sources.
        named
            Keys that the user has set without the file, such as ``"then.calculators"``: their code needs no trust.
        allow_calculator_change
            Whether the calculator may be another one than before, see :class:`~hybridcsp.search.search.Search`.

        Raises
        ------
        InputError
            If the calculator runs code, or a source runs a command, that the user has not agreed to.
        """
        self.check_trust(trust=trust, trust_commands=trust_commands, named=named)
        check_directory(self.directory)
        Target(self.budget.stop_at, self.problem)  # one that cannot be used is an error before the directory is made
        return Search(
            self.problem,
            self.settings,
            directory=self.directory,
            on_open=partial(write, self),
            allow_calculator_change=allow_calculator_change,
        )


class SystemConfiguration(Configuration):
    """The configuration of a search in a chemical system: ``elements`` in the table ``[problem]``, and no formula."""

    problem: System  # type: ignore[assignment]  # the other kind of problem
    search: SystemSearchSection = SystemSearchSection()


def model_of(tables: Mapping[str, Any]) -> type[Configuration]:
    """Return the class of the configuration in tables, which the keys of its problem determine."""
    problem = tables.get("problem")
    return SystemConfiguration if isinstance(problem, Mapping) and "elements" in problem else Configuration


def parse(raw: Mapping[str, Any], where: str | Origin, also: Sequence[str] = ()) -> Configuration:
    """Return the validated configuration of plain data.

    Parameters
    ----------
    raw
        Tables as read from TOML. Numbers may be text with a unit (``"50 GPa"``).
    where
        The file or other origin, for errors, or the places where the keys were written.
    also
        Messages about mistakes found before, which an error lists as well.

    Raises
    ------
    ConfigurationError
        If there are mistakes. It lists every wrong key with its value and the allowed values or the likely key.
    """
    origin = where if isinstance(where, Origin) else Origin(where)
    tables, mistakes = read_quantities(raw, origin)
    if isinstance(tables.get("problem"), dict) and tables["problem"].get("dimension") == 3:
        _drop(tables, ("problem", "dimension"))  # earlier versions wrote it; it could have no other value
    model = model_of(tables)
    for mistake in mistakes:
        _drop(tables, mistake.path)
    for key in SET_BY_PROBLEM:
        if _holds(tables, ("relaxation", key)):
            mistakes.append(unknown_key(("relaxation", key), model, origin))
            _drop(tables, ("relaxation", key))
    configuration, first = None, True
    while configuration is None:
        try:
            configuration = model.model_validate(tables)
        except ValidationError as error:
            found = [explain(dict(details), model, origin) for details in error.errors()]
            # Wrong keys are left out, so that the next round finds further mistakes. From then on, an error about a
            # key that was not given is only a consequence of what was left out.
            given = [mistake for mistake in found if _holds(tables, mistake.path)]
            mistakes += found if first else given
            for mistake in given:
                _drop(tables, mistake.path)
            if not given:
                break
            first = False
    listed = [*also, *messages(mistakes, origin)]
    if configuration is None or listed:
        raise ConfigurationError(origin.name, listed)
    return configuration


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file, and make paths in it absolute, which are relative to its folder.

    Raises
    ------
    InputError
        If the file does not exist or is not TOML.
    """
    try:
        raw = read_toml(path)
    except UnreadableError as error:
        raise InputError("configuration", path, reason=error.reason) from None
    return with_absolute_paths(_with_objectives(raw), path.parent)


def _with_objectives(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables with ``[[objectives]]``, an array of tables of its own, as the key of the table of the search.

    Raises
    ------
    InputError
        If both are given.
    """
    tables = dict(raw)
    given, search = tables.pop("objectives", None), tables.get("search", {})
    if given is None or not isinstance(search, dict):
        return dict(raw)
    if "objectives" in search:
        raise InputError("search.objectives", search["objectives"], reason="[[objectives]] is given too; use only one")
    return {**tables, "search": {**search, "objectives": given if isinstance(given, list) else [given]}}


def write(configuration: Configuration, directory: Path) -> None:
    """Write the resolved configuration with all keys to ``config.toml`` in a run directory."""
    raw = json.loads(configuration.model_dump_json(exclude_none=True, exclude={"relaxation": set(SET_BY_PROBLEM)}))
    if isinstance(configuration.problem, System):  # with the compositions that were chosen
        raw["problem"] = {key: value for key, value in configuration.problem.describe().items() if value is not None}
    raw["search"]["directory"] = str(directory.resolve())
    if not configuration.then.calculators:  # so that earlier versions can read the file
        del raw["then"]
    if configuration.xrd.pattern is None:
        del raw["xrd"]
    for key in ("references", "objectives", "where"):
        if not raw["search"][key]:
            del raw["search"][key]
    if configuration.search.executor == LOCAL:
        del raw["search"]["executor"]
    raw = with_absolute_paths(raw, Path.cwd())
    head = f"# hybridcsp search {FILE}   runs this search; in its own directory: hybridcsp resume .\n\n"
    with atomic_write(directory / FILE) as file:
        file.write(head + tomli_w.dumps(raw))


def of_directory(directory: Path) -> Configuration:
    """Return the configuration of a run directory, from its ``config.toml`` or else from its archive.

    Raises
    ------
    ArchiveError
        If there is no search, or one that was made in Python from objects, which TOML cannot describe.
    """
    with Archive(directory) as archive:
        if (directory / FILE).exists():
            raw = read(directory / FILE)
        else:
            with archive.reading():
                raw = recorded_tables(archive)
    raw.setdefault("search", {})["directory"] = str(directory)
    return parse(raw, str(directory / FILE))


def _holds(tables: Mapping[str, Any], path: Sequence[str]) -> bool:
    table = tables.get(path[0])
    return path[0] in tables if len(path) == 1 else isinstance(table, dict) and path[1] in table


def _drop(tables: dict[str, Any], path: Sequence[str]) -> None:
    if _holds(tables, path):
        if len(path) == 1:
            del tables[path[0]]
        else:
            del tables[path[0]][path[1]]
