"""Tools for parsing text files of structures: lines with lookahead, numbers, and lookup of values in a second file."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Generic, ParamSpec, Self, TypeVar

from hybridcsp.errors import UnreadableError
from hybridcsp.io.frames import ReadFailure
from hybridcsp.utils.reading import lines_of, open_text

#: Maximum number of characters of one structure.
MAX_STRUCTURE_SIZE = 16 << 20

_FORTRAN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[dDqQ][+-]?\d{1,4}")

P = ParamSpec("P")
T = TypeVar("T")


class Lines:
    """The lines of a text file, with lookahead and with any line ending.

    Parameters
    ----------
    file
        The file, opened with :func:`~hybridcsp.utils.reading.open_text`; it may be compressed.

    Attributes
    ----------
    number
        The number of the next line, counted from 1.

    Raises
    ------
    UnreadableError
        If the file cannot be opened. Methods that read further raise it for damaged files and exceeded limits.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.number = 1
        self._stream = open_text(file)
        self._rest = lines_of(self._stream, file)
        self._ahead: deque[str] = deque()
        self._size = 0  # characters in the lookahead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def peek(self, n: int) -> list[str]:
        """Return the next ``n`` lines, or fewer at the end of the file, without consuming them."""
        while len(self._ahead) < n and (line := next(self._rest, None)) is not None:
            self._ahead.append(line)
            self._size += len(line)
            if self._size > MAX_STRUCTURE_SIZE:
                raise UnreadableError(
                    self.file,
                    f"one structure takes more than {MAX_STRUCTURE_SIZE >> 20} MiB, the maximum that is read",
                    line=self.number,
                )
        return list(islice(self._ahead, n))

    def __iter__(self) -> Iterator[str]:
        """Consume the remaining lines one by one."""
        while head := self.peek(1):
            self.skip(1)
            yield head[0]

    def skip(self, n: int) -> None:
        """Consume ``n`` lines that were returned by :meth:`peek`."""
        for _ in range(n):
            self._size -= len(self._ahead.popleft())
        self.number += n

    def failure(self, reason: str, offset: int = 0) -> ReadFailure:
        """Return a failure that points to the line ``offset`` lines after the next one."""
        return ReadFailure(file=self.file, line=self.number + offset, reason=reason)


def yields_failures(read: Callable[P, Iterator[T | ReadFailure]]) -> Callable[P, Iterator[T | ReadFailure]]:
    """Decorate a generator to yield a final :class:`ReadFailure` where it raises :class:`UnreadableError`."""

    @wraps(read)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Iterator[T | ReadFailure]:
        try:
            yield from read(*args, **kwargs)
        except UnreadableError as error:
            yield ReadFailure(file=error.file, line=error.line, reason=error.reason)

    return wrapped


class KeyedStream(Generic[T]):
    """Look values up in a stream that is in nearly the order of the requests.

    The stream is read as far as the requested key; values passed on the way are kept until they are requested. Two
    files in the same order are thus joined without holding either in memory.

    Parameters
    ----------
    stream
        Pairs of key and value, or failures, which are collected.
    """

    def __init__(self, stream: Iterable[tuple[str, T] | ReadFailure]) -> None:
        self._failures: list[ReadFailure] = []
        self._stream = iter(stream)
        self._passed: dict[str, T] = {}

    def pop(self, key: str) -> T | None:
        """Return and remove the value of a key; ``None`` if there is none."""
        while key not in self._passed:
            found = next(self._stream, None)
            if found is None:
                return None
            if isinstance(found, ReadFailure):
                self._failures.append(found)
            else:
                self._passed[found[0]] = found[1]
        return self._passed.pop(key)

    def rest(self) -> Iterator[tuple[str, T]]:
        """Yield the keys and values that have not been requested."""
        yield from self._passed.items()
        for found in self._stream:
            if isinstance(found, ReadFailure):
                self._failures.append(found)
            else:
                yield found

    def new_failures(self) -> list[ReadFailure]:
        """Return the failures found since the previous call."""
        new, self._failures = self._failures, []
        return new


def parse_float(text: str) -> float | None:
    """Parse a number, also in Fortran's notation (``1.0D+00``); return ``None`` for other text."""
    try:
        return float(text)
    except ValueError:
        return float(re.sub("[dDqQ]", "e", text)) if _FORTRAN.fullmatch(text) else None


def parse_count(text: str | None) -> int | None:
    """Parse a non-negative integer of up to nine digits; return ``None`` for other text."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def finite(value: float | None) -> float | None:
    """Return the value if it is a finite number, and ``None`` otherwise."""
    return value if value is not None and math.isfinite(value) else None
