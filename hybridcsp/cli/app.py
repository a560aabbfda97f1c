"""Provide the application: its groups of commands, the handling of errors and exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from hybridcsp import __version__
from hybridcsp.cli.command import Command, UsageError, describe_usage_error, format_examples, unwrapped
from hybridcsp.cli.console import console, errors, guard_the_terminal
from hybridcsp.errors import CommandLineError, HybridCSPError, InputError, did_you_mean

#: Panels of ``hybridcsp --help`` with their commands in order. A command that is missing here is listed last.
PANELS = {
    "Search": ("search", "resume", "refine", "compare", "watch"),
    "Results": ("show", "hull", "front", "xrd", "export"),
    "Models": (
        *("dataset", "generators", "predictors", "train", "sample", "predict", "evaluate", "design"),
        "potential",
    ),
    "Other codes": ("import", "formats"),
    "Lists": ("calculators", "sources", "operators", "objectives", "executors"),
}


class CommandGroup(TyperGroup):
    """A group of commands whose errors suggest what was probably meant."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, with paragraphs as wide as the terminal."""
        self.help = unwrapped(self.help or "")
        self.epilog = format_examples(self.epilog or "")
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command."""
        try:
            return list(super().parse_args(ctx, args))
        except UsageError as error:
            if not hasattr(error, "possibilities"):
                raise  # no command was given: Typer prints the help
            known = [option for parameter in self.params for option in parameter.opts]
            hint = did_you_mean(error.option_name, known) or "options of a command must come after the command. "
            raise CommandLineError(describe_usage_error(error, ctx, lambda _: hint)) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names."""
        name = args[0] if args else ""
        if args and not name.startswith("-") and name not in self.commands:
            raise CommandLineError(f"unknown command {name!r}: {self.suggestion(args)}")
        return super().resolve_command(ctx, args)

    def suggestion(self, args: list[str]) -> str:
        """Return a suggestion for the arguments after an unknown command, which is the first."""
        known = list(self.commands)
        hint = did_you_mean(args[0], known)
        return f"{hint}{'The' if hint else 'the'} commands are {', '.join(known)}."


class Commands(CommandGroup):
    """The commands in the order and panels of :data:`PANELS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order in which help shows them."""
        ordered = [name for names in PANELS.values() for name in names if name in self.commands]
        return [*ordered, *(name for name in self.commands if name not in ordered)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command with its panel."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            command.rich_help_panel = next((panel for panel, names in PANELS.items() if cmd_name in names), None)
        return command

    def suggestion(self, args: list[str]) -> str:
        """Return a suggestion; a formula or a run directory suggests the command for it."""
        name = args[0]
        if not did_you_mean(name, self.commands):
            if _looks_like_a_problem(name):
                return f"did you mean hybridcsp search {' '.join(map(quote, args))} ?"
            if (Path(name) / "search.db").exists():
                return f"did you mean hybridcsp show {quote(name)} or hybridcsp resume {quote(name)} ?"
        return super().suggestion(args)


def _looks_like_a_problem(text: str) -> bool:
    """Return whether a text is a formula, nearly a formula or the name of a TOML file."""
    from hybridcsp.core.problem import Problem
    from hybridcsp.utils.formulas import elements_of_system

    if text.endswith(".toml") or elements_of_system(text):
        return True
    try:
        return bool(Problem(text, max_atoms=10**6).composition)
    except InputError as error:
        return error.reason.startswith("did you mean")


Function = TypeVar("Function", bound=Callable[..., Any])


class App(typer.Typer):
    """The application; the default class of its commands is :class:`~hybridcsp.cli.command.Command`."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **more: Any
    ) -> Callable[[Function], Function]:
        """Add a command."""
        return super().command(name, cls=cls or Command, **more)


app = App(
    name="hybridcsp",
    cls=Commands,
    help="Predict crystal structures with any ASE calculator.",
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp show TiO2 --plot tio2.png\n\n"
    "  hybridcsp export TiO2 --output best.cif --top 5 --cell conventional\n\n"
    "  hybridcsp resume TiO2 --relaxations 100",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command line; exit with 2 after an input error, 1 after another known error and 130 after Ctrl-C."""
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # spglib would print its errors in addition to raising them
    guard_the_terminal()
    try:
        app()
    except HybridCSPError as error:
        _print_error(str(error))
        sys.exit(2 if isinstance(error, InputError | CommandLineError) else 1)
    except OSError as error:  # such as a full disk or a removed folder, which a traceback would not explain better
        _print_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        sys.exit(1)


def _print_error(message: str) -> None:
    errors.print(f"[bold red]error:[/] {escape(message)}", markup=True, highlight=False, soft_wrap=True)


def _version(value: bool) -> None:
    if value:
        console.print(f"hybridcsp {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
