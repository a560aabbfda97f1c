"""What all commands share: the application, the terminal, and how errors look."""

from __future__ import annotations

import inspect
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from hybridcsp import __version__
from hybridcsp.cli.console import console, errors, guard_the_terminal
from hybridcsp.errors import CommandLineError, HybridCSPError, InputError, did_you_mean

if TYPE_CHECKING:
    from hybridcsp.archive.archive import Archive

#: The commands as help lists them; one that is not named here comes last.
PANELS = {
    "Search": ("search", "resume", "compare", "watch"),
    "Results": ("show", "export"),
    "Generators": ("generators", "train", "sample", "evaluate"),
    "Other codes": ("import", "formats"),
    "Lists": ("calculators", "sources", "operators"),
}

# The class of all errors about what was typed, which Typer does not name: its own copy of click has it.
_UsageError: Any = typer.BadParameter.__mro__[1]


#: Columns of an example in the help of a command.
_WIDTH = 76


def examples_in_lines(epilog: str) -> str:
    """Return an epilog whose examples can be pasted from a terminal of 80 columns.

    What follows a command after three spaces is put above it as a comment; long commands go on in a second line as a
    shell allows it.
    """
    blocks = []
    for paragraph in epilog.split("\n\n"):
        command, _, comment = paragraph.strip().partition("   ")
        if not command.startswith("hybridcsp "):
            blocks.append(paragraph)
            continue
        lines = [f"# {comment.strip()}"] if comment else []
        while len(command) > _WIDTH - 2:
            end = command.rfind(" --", 0, _WIDTH - 4)
            if end <= 0:
                break
            lines.append(f"{command[:end]} \\")
            command = f"    {command[end + 1 :]}"
        blocks.append("\n".join(f"  {line}" for line in [*lines, command]))
    return "\n\n".join(blocks)


class Command(TyperCommand):
    """A command whose errors say what was probably meant.

    An option without a default value may say in words, as ``show_default``, what holds without it.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, its paragraphs as wide as the terminal."""
        self.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(self.help or ""))
        for parameter in self.params:
            option: Any = parameter
            if option.default is None and isinstance(option.show_default, str):
                option.default, option.show_default = option.show_default, True  # otherwise it is put in brackets
        self.epilog = examples_in_lines(self.epilog or "")
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options and arguments."""
        try:
            return list(super().parse_args(ctx, args))
        except _UsageError as error:
            raise CommandLineError(_in_words(error, ctx, self.explain_option)) from None

    def explain_option(self, name: str) -> str:
        """Say which option may be meant by one that does not exist."""
        return did_you_mean(name, [option for parameter in self.params for option in parameter.opts])


#: What Typer says of values of a wrong kind, and what it means.
_KINDS = {
    r"Input should be a valid integer.*": "a whole number",
    r"Input should be a valid number.*": "a number",
    r"Input should be greater than or equal to (\S+).*": r"a number from \1",
    r"Input should be less than or equal to (\S+).*": r"a number up to \1",
}


def _in_words(error: Any, ctx: Any, explain: Callable[[str], str]) -> str:
    more = f"{ctx.command_path} --help lists the options."
    # One about an unknown option holds those that are near; one about a value that is missing does not.
    if hasattr(error, "possibilities"):
        hint = explain(error.option_name).strip()
        return f"there is no option {error.option_name}{': ' if hint else ''}{hint}\n{more}"
    text = str(error.format_message())
    for pattern, meaning in _KINDS.items():
        text = re.sub(pattern, meaning, text)
    return f"{text}\n{more}"


class Commands(TyperGroup):
    """The commands in the order and panels of :data:`PANELS`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command."""
        try:
            return list(super().parse_args(ctx, args))
        except _UsageError as error:
            if not hasattr(error, "possibilities"):
                raise  # help, for want of a command
            known = [option for parameter in self.params for option in parameter.opts]
            hint = did_you_mean(error.option_name, known) or "options of a command come after it. "
            raise CommandLineError(_in_words(error, ctx, lambda _: hint)) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order in which help shows them."""
        ordered = [name for names in PANELS.values() for name in names if name in self.commands]
        return [*ordered, *(name for name in self.commands if name not in ordered)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, which then knows its panel."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None:
            command.rich_help_panel = next((panel for panel, names in PANELS.items() if cmd_name in names), None)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.commands:
            raise CommandLineError(f"there is no command {name!r}: {self._meant(args)}")
        return super().resolve_command(ctx, args)

    def _meant(self, args: list[str]) -> str:
        name = args[0]
        known = self.list_commands(None)
        if hint := did_you_mean(name, known):
            return f"{hint}known: {', '.join(known)}"
        if _looks_like_a_problem(name):
            return f"did you mean hybridcsp search {' '.join(map(quote, args))} ?"
        if (Path(name) / "search.db").exists():
            return f"did you mean hybridcsp show {quote(name)}, or resume ?"
        return f"known: {', '.join(known)}"


def _looks_like_a_problem(text: str) -> bool:
    """Whether a text is a formula or the name of a TOML file."""
    from hybridcsp.core.problem import Problem

    if text.endswith(".toml"):
        return True
    try:
        return bool(Problem(text, max_atoms=10**6).composition)
    except InputError as error:
        return error.allowed.startswith("did you mean")


Function = TypeVar("Function", bound=Callable[..., Any])


class App(typer.Typer):
    """The application; its commands are of :class:`Command` where they name no class of their own."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **more: Any
    ) -> Callable[[Function], Function]:
        """Add a command."""
        return super().command(name, cls=cls or Command, **more)


app = App(
    name="hybridcsp",
    cls=Commands,
    help="Crystal structure prediction through any ASE calculator.",
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
    """Run the command line; errors of input end with 2, other known ones with 1, Ctrl-C with 130."""
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it writes to the terminal, besides raising
    guard_the_terminal()
    try:
        app()
    except HybridCSPError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", markup=True, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, InputError | CommandLineError) else 1)
    except OSError as error:  # a full disk, a folder that was removed: nothing that a traceback would explain
        said = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        errors.print(f"[bold red]error:[/] {escape(said)}", markup=True, highlight=False, soft_wrap=True)
        sys.exit(1)


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


def show_archive(archive: Archive, top: int) -> None:
    """Print the best minima, what each source has done, and totals."""
    from hybridcsp.analysis.report import duration, minima_table, problem_of, sources_table

    state = archive.state
    if not state.settings:
        raise InputError("directory", str(archive.directory), "a search that was begun; this one has no events")
    minima = archive.minima(top)
    if minima:
        console.print(minima_table(minima, problem_of(archive)))
    else:
        console.print("No minimum has been found yet.")
    if state.tallies or state.last_errors:
        console.print(sources_table(archive))
    console.print(
        f"{state.relaxations} relaxations, {state.cost.force_calls} force calls, "
        f"{duration(state.cost.seconds)} of computing, {archive.number_of_minima} minima",
        highlight=False,
    )


def as_argument(path: Path) -> str:
    """Return a path as it can be typed in a shell as the argument of a command, relative where it lies below here."""
    here = Path.cwd()
    shown = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return quote(f"./{shown}" if shown.startswith("-") else shown)


def number(key: str, text: str, allowed: str) -> float:
    """Read a finite number from an option, with our own words if it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(key, text, allowed)
    return value


def parse_units(text: str) -> list[int]:
    """Read ``"2"`` or ``"1-4"``."""
    low, dash, high = text.partition("-")
    try:
        return [int(low), int(high if dash else low)]
    except ValueError:
        raise InputError("--formula-units", text, "a whole number, or two in order: 1-4") from None
