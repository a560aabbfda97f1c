"""Provide the class of all commands: its help fits the terminal, its errors suggest what was probably meant."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from hybridcsp.errors import CommandLineError, did_you_mean

#: The class of all errors about a command line. Typer does not export it, and has its own copy of click.
UsageError: Any = typer.BadParameter.__mro__[1]

#: Columns of an example in the help of a command.
_WIDTH = 76

#: Typer's messages about invalid values, and our words for the allowed ones.
_ALLOWED = {
    r"Input should be a valid integer.*": "a whole number",
    r"Input should be a valid number.*": "a number",
    r"Input should be greater than or equal to (\S+).*": r"a number from \1",
    r"Input should be less than or equal to (\S+).*": r"a number up to \1",
}


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
        try:
            return list(super().parse_args(ctx, args))
        except UsageError as error:
            raise CommandLineError(describe_usage_error(error, ctx, self.explain_option)) from None

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
    text = str(error.format_message())
    for pattern, allowed in _ALLOWED.items():
        text = re.sub(pattern, allowed, text)
    return f"{text}\n{more}"


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
