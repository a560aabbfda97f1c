"""Sanitising of text from other programs and files before it is shown in a terminal or written to a file."""

from __future__ import annotations

import re

#: Characters that a terminal or a viewer may interpret as commands: control characters (C0 except tab and newline, DEL,
#: C1), marks that change the direction or the lines of text, and surrogates.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text with every control character spelled out, for example ``\x1b`` for the escape character."""
    return _COMMANDS.sub(_spelled_out, text)


def printable_line(text: str) -> str:
    r"""Return a text as one printable line; newlines and tabs are spelled out too, as ``\n`` and ``\t``."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def _spelled_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
