"""Provide tables that adapt to the width of the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    heading
        Heading of the column; it may have several lines.
    meaning
        Explanation for the legend; empty if the heading needs none.
    words
        Whether the cells hold text, which is aligned left and may be wrapped, instead of numbers, which are aligned
        right and never wrapped.
    dispensable
        Order in which columns are omitted in a narrow terminal: the highest number first, 0 never.
    """

    heading: str
    meaning: str = ""
    words: bool = False
    dispensable: int = 0

    @property
    def name(self) -> str:
        """The heading in one line; parts of a long word, which are broken after a colon or the like, are joined."""
        return re.sub(r"(?<=[/,:=+])\n", "", self.heading).replace("\n", " ")


class FittingTable:
    """A table that omits columns and wraps text until it fits the available width.

    Parameters
    ----------
    title
        Title above the table.
    columns
        Columns from left to right.
    rows
        Cells of each row. A word that is too long for its column is preferably broken after a slash, comma, colon or
        plus sign.
    notes
        Lines below the table, after the legend.

    Attributes
    ----------
    columns, rows
        As given.
    """

    def __init__(
        self, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
    ) -> None:
        self.columns, self.rows = columns, rows
        self._title, self._notes = title, notes

    def explanations(self, kept: Sequence[int] | None = None) -> list[str]:
        """Return the legend of some columns, by default of all, a line that names hidden ones, and the notes."""
        shown = range(len(self.columns)) if kept is None else kept
        meanings = [f"{self.columns[i].name}: {self.columns[i].meaning}" for i in shown if self.columns[i].meaning]
        hidden = [column.name for i, column in enumerate(self.columns) if i not in shown]
        return [
            *([f"{'; '.join(meanings)}."] if meanings else []),
            *([f"Hidden columns (widen the terminal to show them): {', '.join(hidden)}."] if hidden else []),
            *self._notes,
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self.columns)))
        while self._width(kept) > options.max_width:
            last = max(kept, key=lambda i: self.columns[i].dispensable)
            if not self.columns[last].dispensable:
                break
            kept.remove(last)
        fits = self._width(kept) <= options.max_width
        table = Table(title=Text(self._title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        height = max((column.heading.count("\n") for column in self.columns), default=0)
        for i in kept:
            column = self.columns[i]
            table.add_column(
                Text("\n" * (height - column.heading.count("\n")) + column.heading),  # in the lowest lines
                justify="left" if column.words else "right",
                no_wrap=not column.words,
                overflow="fold",
                min_width=self._least(i) if fits else None,
            )
        for row in self.rows:
            table.add_row(*(_Words(row[i]) if self.columns[i].words else Text(row[i]) for i in kept))
        yield table
        for line in self.explanations(kept):
            yield Text(line, style="italic dim")
        yield Text()

    def _width(self, kept: Sequence[int]) -> int:
        return 1 + sum(self._least(i) + 2 for i in kept)  # edges, and two spaces between columns

    def _least(self, i: int) -> int:
        """Return the smallest width of a column that breaks no word and no number."""
        cells = [*self.columns[i].heading.splitlines(), *(row[i] for row in self.rows)]
        if not self.columns[i].words:
            return max(map(len, cells), default=0)
        return max(len(part) for cell in cells for word in cell.split() or [""] for part in _parts(word))


def list_table(entries: Sequence[tuple[str, str]]) -> Table:
    """Return names and their descriptions as a table without lines."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    names = [_Words(name) for name, _ in entries]
    table.add_column(
        min_width=max((len(part) for name, _ in entries for part in _parts(name)), default=0), style="bold"
    )
    table.add_column()
    for name, (_, meaning) in zip(names, entries, strict=True):
        table.add_row(name, Text(meaning))
    return table


def heading_lines(words: Sequence[str]) -> str:
    """Return a heading of short lines: each word on its own, a long one in parts."""
    lines: list[str] = []
    for part in (part for word in words for part in _parts(word)):
        lines.append("")
        for piece in (cut for seam in _SEAMS.split(part) for cut in textwrap.wrap(seam, _HEADING)):
            if lines[-1] and len(lines[-1] + piece) > _HEADING:
                lines.append("")
            lines[-1] += piece
    return "\n".join(lines)


#: Longest line of a heading that :func:`heading_lines` makes, in characters.
_HEADING = 12

#: Places at which a name may be broken in a heading: after an underscore, before a capital letter.
_SEAMS = re.compile(r"(?<=_)(?=[^_])|(?<=[a-z])(?=[A-Z])")


class _Words:
    """A cell of text, wrapped between words or, if a word is too long, after one of a few characters."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        least = max((len(part) for word in self._text.split() for part in _parts(word)), default=0)
        return Measurement(least, len(self._text)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [""]
        for word in self._text.split():
            joined = f"{lines[-1]} {word}".lstrip()
            if len(joined) <= options.max_width:
                lines[-1] = joined
                continue
            pieces = [word] if len(word) <= options.max_width else _parts(word)
            lines += [pieces[0]] if lines[-1] else []
            lines[-1] = pieces[0]
            for piece in pieces[1:]:
                if len(lines[-1] + piece) <= options.max_width:
                    lines[-1] += piece
                else:
                    lines.append(piece)
        yield Text("\n".join(lines), overflow="fold")


#: Longest word that is never broken.
_UNBROKEN = 8


def _parts(word: str) -> list[str]:
    """Return the parts of a long word between which a line may be broken, each of three or more characters."""
    parts = [""]
    for character in word:
        parts[-1] += character
        if len(word) > _UNBROKEN and character in "/,:=+" and len(parts[-1]) > 2:
            parts.append("")
    return [part for part in parts if part]
