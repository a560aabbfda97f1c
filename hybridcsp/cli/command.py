"""Provide the class of all commands: its help fits the terminal, its errors suggest what was probably meant."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand

from hybridcsp.errors import CommandLineError, InputError, did_you_mean

#: The class of all errors about a command line. Typer does not export it, and has its own copy of click.
UsageError: Any = typer.BadParameter.__mro__[1]

#: Columns of an example in the help of a command.
_WIDTH = 76


class Command(TyperCommand):
    """A command whose help fits the terminal and whose errors suggest options.

    An option without a default value may describe its default in words, as ``show_default``.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, with paragraphs as wide as the terminal."""
        self.help = unwrapped(self.help or "")
        for parameter in self.params:
            option: Any = parameter
            if option.default is None and isinstance(option.show_default, str):
                option.default, option.show_default = option.show_default, True  # Typer would put it in parentheses
        self.epilog = format_examples(self.epilog or "")
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options and arguments."""
        self._refuse_empty(args)
        try:
            return list(super().parse_args(ctx, args))
        except UsageError as error:
            if (invalid := _invalid_number(error)) is not None:
                raise invalid from None
            raise CommandLineError(describe_usage_error(error, ctx, self.explain_option)) from None

    def _refuse_empty(self, args: Sequence[str]) -> None:
        """Check that no argument is empty, as when a variable of the shell is not set.

        Raises
        ------
        InputError
            If one is; the error names its option.
        """
        parameters: list[Any] = self.params
        options = {name: one for one in parameters if not getattr(one, "is_flag", False) for name in one.opts}
        arguments = [_name_of_argument(one) for one in parameters if isinstance(one, TyperArgument)]
        for before, text in zip(["", *args], args, strict=False):
            name, _, value = text.partition("=")
            if text.strip() and (value.strip() or "=" not in text or name not in options):
                continue
            if text.strip():
                key, value = name, value
            elif before in options:
                key, value = before, text
            else:
                key, value = (arguments[0] if len(arguments) == 1 else "argument"), text
            more = ", or leave the option out" if key in options and not options[key].required else ""
            raise InputError(key, value, reason=f"it is empty; give a value{more}")

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors about values of options name the options as they were typed."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            option = self.option_of(error.key, ctx) if error.allowed or error.reason else None
            if option is None:
                raise
            raise self.about_option(error, option, ctx) from error

    def option_of(self, key: str, ctx: Any) -> str | None:
        """Return the option that set the value which an error calls by a key; ``None`` if none did."""
        word, _, rest = key.partition(".")
        names = {f"--{name.replace('_', '-')}" for name in (word, word.removesuffix("s"))}
        for parameter in self.params:
            given = ctx.get_parameter_source(parameter.name)
            if given is not None and given.name == "COMMANDLINE":
                for option in names.intersection(parameter.opts):
                    return f"{option} {rest}".strip()
        return None

    def about_option(self, error: InputError, option: str, ctx: Any) -> InputError:
        """Return an error as one about an option."""
        return error.renamed(option)

    def explain_option(self, name: str) -> str:
        """Return a suggestion for an unknown option, or an empty text."""
        return did_you_mean(name, [option for parameter in self.params for option in parameter.opts])


def describe_usage_error(error: Any, ctx: Any, explain: Callable[[str], str]) -> str:
    """Return a message for an error about a command line.

    Parameters
    ----------
    error
        The error of the command line parser.
    ctx
        The parser's context.
    explain
        Function that returns a suggestion for an unknown option.
    """
    more = f"Run {ctx.command_path} --help for the list of options."
    # Only the error for an unknown option has the attribute "possibilities".
    if hasattr(error, "possibilities"):
        hint = explain(error.option_name).strip()
        return f"unknown option {error.option_name}{': ' if hint else ''}{hint}\n{more}"
    return f"{error.format_message()}\n{more}"


def _name_of_argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _invalid_number(error: Any) -> InputError | None:
    """Return the error about a number that an option cannot have; ``None`` if this is an error of another kind.

    Typer checks numbers with pydantic, whose error is the cause of its own.
    """
    details: list[Any] = getattr(error.__cause__, "errors", list)()
    parameter = getattr(error, "param", None)
    if len(details) != 1 or parameter is None:
        return None
    kind, bounds = details[0]["type"], details[0].get("ctx", {})
    number = "a whole number" if "int" in error.__cause__.title else "a number"
    allowed = {
        "greater_than_equal": f"{number} from {bounds.get('ge')}",
        "less_than_equal": f"{number} up to {bounds.get('le')}",
    }.get(kind, number if kind.startswith(("int_", "float_")) else "")
    name = _name_of_argument(parameter) if isinstance(parameter, TyperArgument) else max(parameter.opts, key=len)
    return InputError(name, details[0]["input"], allowed) if allowed else None


def unwrapped(text: str) -> str:
    """Return a text without the line breaks within its paragraphs."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text))


def format_examples(epilog: str) -> str:
    """Return an epilog with examples that can be copied from a terminal of 80 columns.

    Text after a command, separated by three spaces, becomes a comment above it. Long commands are continued on the
    next line with a backslash.
    """
    blocks = []
    for paragraph in epilog.split("\n\n"):
        command, _, comment = paragraph.strip().partition("   ")
        if not command.startswith(("hybridcsp ", "ase ")):
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
