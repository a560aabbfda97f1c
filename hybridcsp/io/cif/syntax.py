"""Parser of CIF 1.1: text into data blocks, and data blocks into items.

The grammar is that of *International Tables for Crystallography* G, 2.2.7 (DOI 10.1107/97809553602060000107), extended
by deviations that programs write: names in any case, with dots (CIF 2) or a trailing underscore, and values with spaces
that are not quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hybridcsp.io.frames import StructureError
from hybridcsp.io.text_files import MAX_STRUCTURE_SIZE

_TOKENS = re.compile(
    r"""
    (?P<text>^;(?P<body>.*?)\n;)  # a text field between two semicolons at the beginning of lines
    | (?P<comment>\#[^\n]*)
    | '(?P<single>[^\n]*?)'(?=\s|\Z)                   # a quotation mark ends a value only before white space
    | "(?P<double>[^\n]*?)"(?=\s|\Z)
    | (?P<bare>\S+)
    | (?P<end>\n)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)

#: Values that state nothing: unknown, and inapplicable or the default.
UNKNOWN, DEFAULT = "?", "."

# Beginnings of names whose second value would belong to a second crystal, as in blocks that have lost their headings.
_CRYSTAL = ("_cell_length_", "_cell_angle_", "_atom_site_fract_")


@dataclass(frozen=True, eq=False, slots=True)
class DataBlock:
    """One data block.

    Attributes
    ----------
    name
        The name after ``data_``.
    line
        The number of the first line, counted from 1.
    items
        Values by names in lower case, with underscores instead of dots; columns of a loop are lists of equal length.
    """

    name: str
    line: int
    items: Mapping[str, str | list[str]] = field(default_factory=dict)

    def value(self, *names: str) -> str | None:
        """Return the value of the first of these items with a single value that is not unknown or the default."""
        for name in names:
            values = self.items.get(name, [])
            values = [values] if isinstance(values, str) else values
            if len(values) == 1 and values[0] not in (UNKNOWN, DEFAULT, ""):
                return values[0]
        return None

    def column(self, *names: str) -> list[str] | None:
        """Return the values of the first of these items that exists; a single value is a loop of one row."""
        for name in names:
            if name in self.items:
                values = self.items[name]
                return [values] if isinstance(values, str) else values
        return None


def read_blocks(lines: Iterable[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Split a CIF into data blocks; yield the name, the number of the first line (from 1) and the lines of each.

    Text before the first block is a block without a name, unless it is blank or a comment.

    Raises
    ------
    StructureError
        For a block with more than :data:`~hybridcsp.io.text_files.MAX_STRUCTURE_SIZE` characters.
    """
    name, begun, block, in_text, size = "", 1, list[str](), False, 0
    for number, line in enumerate(lines, start=1):
        if line.startswith(";"):
            in_text = not in_text
        opening = None if in_text else re.match(r"\s*data_(\S*)", line, re.IGNORECASE)
        if opening is None:
            block.append(line)
            size += len(line)
            if size > MAX_STRUCTURE_SIZE:
                raise StructureError(
                    begun, f"the data block is larger than {MAX_STRUCTURE_SIZE >> 20} MiB, the maximum that is read"
                )
            continue
        if name or _has_content(block):
            yield name, begun, block
        size = 0
        name, begun, block = opening[1] or UNKNOWN, number, [_after_name(line[opening.end() :])]
    if name or _has_content(block):
        yield name, begun, block


def parse_block(name: str, line: int, lines: Sequence[str]) -> DataBlock:
    """Return the items of a data block.

    Raises
    ------
    StructureError
        For values without a name, and loops whose last row is incomplete.
    """
    items: dict[str, str | list[str]] = {}
    tokens = _Tokens("".join(lines))
    while (token := tokens.take()) is not None:
        if token.keyword == "loop_":
            _loop(tokens, token.line, items)
        elif token.is_name:
            _add(items, _normalised(token.value), tokens.value_of(token), token.line)
        elif not token.keyword:
            raise StructureError(token.line, f"not a CIF: {token.value[:40]!r} is a value without a name before it")
    return DataBlock(name=name, line=line, items=items)


def _after_name(rest: str) -> str:
    """Return the rest of the line after a block's name if it contains items, and not more words of the name."""
    return rest if rest.lstrip().lower().startswith(("_", "loop_")) else "\n"


def _has_content(block: list[str]) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in block)


def _normalised(name: str) -> str:
    return name.lower().replace(".", "_").rstrip("_")


def _loop(tokens: _Tokens, line: int, items: dict[str, str | list[str]]) -> None:
    names = []
    while (token := tokens.peek()) is not None and token.is_name:
        names.append(_normalised(token.value))
        tokens.take()
    values = []
    while (token := tokens.peek()) is not None and not token.is_name and not token.keyword:
        values.append(token.value)
        tokens.take()
    if not names or len(values) % len(names):
        raise StructureError(line, f"a loop of {len(names)} columns has {len(values)} values, which is not a multiple")
    for at, name in enumerate(names):
        _add(items, name, values[at :: len(names)], line)


def _add(items: dict[str, str | list[str]], name: str, value: str | list[str], line: int) -> None:
    """Add an item. The first value of a repeated item is kept, but items that define the crystal must not be repeated.

    Raises
    ------
    StructureError
        If an item that defines the crystal occurs with two values.
    """
    if items.setdefault(name, value) != value and name.startswith(_CRYSTAL):
        raise StructureError(line, f"the item {name[:60]} occurs twice, with different values")


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    line: int
    quoted: bool

    @property
    def is_name(self) -> bool:
        return not self.quoted and self.value.startswith("_")

    @property
    def keyword(self) -> str:
        word = "" if self.quoted else self.value.lower()
        return word if word in ("loop_", "global_", "stop_") or word.startswith("save_") else ""


class _Tokens:
    """The tokens of a block, with a lookahead of one token."""

    def __init__(self, text: str) -> None:
        self._found = self._split(text)
        self._next = next(self._found, None)

    def peek(self) -> _Token | None:
        return self._next

    def take(self) -> _Token | None:
        token, self._next = self._next, next(self._found, None)
        return token

    def value_of(self, name: _Token) -> str:
        """Consume and return the value of a single item; ``?`` if there is none."""
        first = self._next
        if first is None or first.is_name or first.keyword:
            return UNKNOWN
        self.take()
        words = [first.value]
        # An unquoted value with spaces, such as P 63 m c, extends to the end of its line.
        while not first.quoted and (more := self._next) is not None and more.line == first.line:
            if more.is_name or more.keyword:
                break
            words.append(more.value)
            self.take()
        return " ".join(words)

    @staticmethod
    def _split(text: str) -> Iterator[_Token]:
        line = 0
        for match in _TOKENS.finditer(text):
            kind = match.lastgroup
            if kind == "end":
                line += 1
            elif kind == "bare":
                yield _Token(match["bare"], line, False)
            elif match["text"] is not None:
                yield _Token(match["body"].strip(), line, True)
                line += match["text"].count("\n")
            elif kind != "comment":
                yield _Token(match[kind or 0].strip(), line, True)
