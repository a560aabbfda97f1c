"""Text that somebody else wrote, made safe to show in a terminal and to write into files."""

from __future__ import annotations

import re

#: What a terminal, or a program that shows a file, takes for a command: control characters (C0 without tabulator and
#: new line, DEL, C1), marks that change the direction or the lines of text, and halves of characters.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text in which whatever a terminal would obey is spelled out: ``\x1b`` for the escape character."""
    return _COMMANDS.sub(_spelled_out, text)


def printable_line(text: str) -> str:
    r"""Return a text as one printable line: new lines and tabulators are spelled out too, ``\n`` and ``\t``."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def _spelled_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
