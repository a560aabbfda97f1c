"""Provide commands whose options set keys of the configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.markup import escape

from hybridcsp.cli.command import Command
from hybridcsp.cli.options import SETTINGS
from hybridcsp.cli.setting import Setting
from hybridcsp.errors import InputError


@dataclass
class Given:
    """The settings given on a command line.

    Attributes
    ----------
    tables
        Values by table and key, as in a TOML file.
    flags
        The option that set each key, by ``table.key``.
    mistakes
        One sentence for each value that could not be read.
    """

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def merged_into(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables of a configuration, overridden by the settings; relative paths become absolute."""
        from hybridcsp import config

        merged = dict(raw)
        for table, chosen in config.with_absolute_paths(self.tables, Path.cwd()).items():
            before = merged.get(table, {})
            if isinstance(before, dict):  # otherwise parsing reports the mistake
                merged[table] = {**before, **chosen}
        return merged


def read_given(settings: Iterable[Setting], values: Mapping[str, Any]) -> Given:
    """Read the settings among the parameter values of a command."""
    given = Given()
    for setting in settings:
        typed = values.get(setting.name)
        if typed is None or typed == []:
            continue
        table, key = setting.key.split(".")
        try:
            value = typed if setting.switch else setting.read(setting.flag, typed if setting.many else [typed])
        except InputError as error:
            given.mistakes.append(str(error))
            continue
        given.tables.setdefault(table, {})[key] = value
        given.flags[setting.key] = setting.flag
    return given


def with_settings(settings: Sequence[Setting]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds an option for each setting, passed as a keyword named :attr:`Setting.name`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            command(**values)

        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(setting)
            )
            for setting in settings
        ]
        first = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        last = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        wrapped.__signature__ = signature.replace(parameters=[*first, *added, *last])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*first, *added, *last]}
        del wrapped.__wrapped__  # Typer would read the type hints of the undecorated command
        return wrapped

    return decorate


def _annotation(setting: Setting) -> Any:
    if setting.switch:
        return Annotated[bool | None, typer.Option(setting.flag, help=setting.help, rich_help_panel=setting.panel)]
    option = typer.Option(setting.flag, metavar=setting.metavar, help=setting.help, rich_help_panel=setting.panel)
    return Annotated[list[str] | None, option] if setting.many else Annotated[str | None, option]


class SettingsCommand(Command):
    """A command with options from :data:`SETTINGS`, whose help shows the defaults of the configuration.

    Attributes
    ----------
    settings
        Settings that are options of the command.
    """

    settings: ClassVar[Sequence[Setting]] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help with the defaults of the configuration, which is loaded only here because that takes time."""
        by_name = {setting.name: setting for setting in self.settings}
        for parameter in self.params:
            if parameter.name in by_name and parameter.default is None:
                parameter.default = default_of(by_name[parameter.name])
        self.epilog = f"{self.epilog or ''}\n\n{escape(self.closing())}"
        super().format_help(ctx, formatter)

    def closing(self) -> str:
        """Return the last paragraph of the help, by default about keys without an option."""
        return further_keys()

    def option_of(self, key: str, ctx: Any) -> str | None:
        """Return the option that set a key of the configuration, or could set it if there is no file."""
        tables = {setting.key.split(".")[0] for setting in SETTINGS}
        table, _, rest = key.partition(".")
        word, _, rest = rest.partition(".") if table in tables and rest else (table, ".", rest)
        what = ctx.params.get("what", ".toml")
        from_file = any(str(one).endswith(".toml") for one in ([what] if isinstance(what, str) else what))
        for setting in self.settings:
            name = setting.key.split(".")[1]
            if word in (name, name.removesuffix("s"), setting.name):
                given = ctx.params.get(setting.name) not in (None, [], ())
                return f"{setting.flag} {rest}".strip() if given or not from_file else None
        return super().option_of(key, ctx)

    def about_option(self, error: InputError, option: str, ctx: Any) -> InputError:
        """Return an error as one about an option, which its text calls by their names too."""
        from hybridcsp.config.errors import Origin

        origin = Origin("", options={setting.key: setting.flag for setting in self.settings})
        allowed, reason = origin.with_options(error.allowed), origin.with_options(error.reason)
        return InputError(option, error.value, allowed, reason=reason)

    def explain_option(self, name: str) -> str:
        """Suggest an existing option or a key of the configuration for an unknown option."""
        from hybridcsp.config.errors import find_key
        from hybridcsp.config.settings import Configuration

        key = find_key(name.lstrip("-"), Configuration)
        here = next((setting.flag for setting in self.settings if setting.key == key), None)
        if here is not None:
            return f"did you mean {here}?"
        if key is not None and key not in {setting.key for setting in SETTINGS}:
            table, word = key.split(".")
            return f"{word} can be set in the table [{table}] of a TOML file (docs/user/configuration.md)."
        return super().explain_option(name) or self.closing()


def default_of(setting: Setting) -> str:
    """Return the default of a setting as text, read from the configuration."""
    if setting.default:
        return setting.default
    from hybridcsp.config.settings import Configuration

    table, key = setting.key.split(".")
    section = Configuration.model_fields[table]
    value = getattr(section.annotation if section.is_required() else section.default, key, None)
    if value is None or value == ():
        return setting.unset
    if isinstance(value, tuple):
        return "-".join(map(str, value)) if isinstance(value[0], int) else ", ".join(map(str, value))
    if setting.key == "limits.memory":
        return f"{value / 1024**3:g} GiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def further_keys() -> str:
    """Return a sentence that lists the keys without an option."""
    from hybridcsp.config.errors import keys_of
    from hybridcsp.config.settings import Configuration

    covered = {setting.key for setting in SETTINGS} | {"problem.formula"}
    tables = []
    for table in Configuration.model_fields:
        left = [key for key in keys_of(Configuration, table) if f"{table}.{key}" not in covered]
        if left:
            tables.append(f"[{table}] {', '.join(left)}")
    return f"Further settings are available in a TOML file (docs/user/configuration.md): {'; '.join(tables)}."


def names_calculator(given: Given, raw: Mapping[str, Any]) -> bool:
    """Return whether the user has named with options all calculators and interpreters that a configuration names.

    Parameters
    ----------
    given
        The settings given on the command line.
    raw
        The tables of the configuration, which contain these settings.
    """
    keys = (("search", "calculator"), ("search", "python"), ("then", "calculators"))
    return all(f"{table}.{key}" in given.flags for table, key in keys if key in raw.get(table, {}))
