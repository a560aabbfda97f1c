"""Text files of structures: lines with numbers, crystals from numbers, files that appear whole or not at all."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Generic, ParamSpec, Self, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.io.frames import Broken
from hybridcsp.utils.reading import lines_of, open_text

#: A structure is not written in more characters than this.
LARGEST_STRUCTURE = 16 << 20

_FORTRAN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[dDqQ][+-]?\d{1,4}")

P = ParamSpec("P")
T = TypeVar("T")


class BrokenError(Exception):
    """Why something is no structure, and how many lines after its beginning that shows."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Lines:
    """The lines of a text file with a look ahead, whatever ends them.

    Parameters
    ----------
    file
        Read as :func:`~hybridcsp.utils.reading.open_text` says; it may be compressed.

    Attributes
    ----------
    number
        Of the next line, from 1.

    Raises
    ------
    UnreadableError
        If the file cannot be opened. All that reads on raises it for damage, and where a limit is reached.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.number = 1
        self._stream = open_text(file)
        self._rest = lines_of(self._stream, file)
        self._ahead: deque[str] = deque()
        self._size = 0  # characters ahead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def peek(self, n: int) -> list[str]:
        """Return the next ``n`` lines, fewer at the end of the file, and stay in front of them."""
        while len(self._ahead) < n and (line := next(self._rest, None)) is not None:
            self._ahead.append(line)
            self._size += len(line)
            if self._size > LARGEST_STRUCTURE:
                raise UnreadableError(
                    self.file, f"one structure of more than {LARGEST_STRUCTURE >> 20} MiB", line=self.number
                )
        return list(islice(self._ahead, n))

    def __iter__(self) -> Iterator[str]:
        """Go past the lines that are left, one by one."""
        while head := self.peek(1):
            self.skip(1)
            yield head[0]

    def skip(self, n: int) -> None:
        """Go past lines that were peeked at."""
        for _ in range(n):
            self._size -= len(self._ahead.popleft())
        self.number += n

    def broken(self, reason: str, offset: int = 0) -> Broken:
        """Return a complaint about the line ``offset`` lines ahead."""
        return Broken(file=self.file, line=self.number + offset, reason=reason)


def complaining(read: Callable[P, Iterator[T | Broken]]) -> Callable[P, Iterator[T | Broken]]:
    """Let a generator end with a complaint, instead of an error, where a file cannot be read on."""

    @wraps(read)
    def complain(*args: P.args, **kwargs: P.kwargs) -> Iterator[T | Broken]:
        try:
            yield from read(*args, **kwargs)
        except UnreadableError as error:
            yield Broken(file=error.file, line=error.line, reason=error.reason)

    return complain


class KeyedStream(Generic[T]):
    """Looks things up in a stream that is in nearly the same order: reads on to what is asked for, keeps the rest.

    Parameters
    ----------
    stream
        Pairs of key and value, or complaints; these are collected in ``complaints``.
    """

    def __init__(self, stream: Iterable[tuple[str, T] | Broken]) -> None:
        self.complaints: list[Broken] = []
        self._stream = iter(stream)
        self._kept: dict[str, T] = {}

    def pop(self, key: str) -> T | None:
        """Return the value of a key, once; ``None`` if there is none."""
        while key not in self._kept:
            found = next(self._stream, None)
            if found is None:
                return None
            if isinstance(found, Broken):
                self.complaints.append(found)
            else:
                self._kept[found[0]] = found[1]
        return self._kept.pop(key)

    def rest(self) -> Iterator[tuple[str, T]]:
        """Yield what nobody asked for."""
        yield from self._kept.items()
        for found in self._stream:
            if isinstance(found, Broken):
                self.complaints.append(found)
            else:
                yield found

    def complained(self) -> list[Broken]:
        """Return the new complaints."""
        new, self.complaints = self.complaints, []
        return new


def real(text: str) -> float | None:
    """Return the number that a text is, as Fortran may write it too (``1.0D+00``); ``None`` if it is none."""
    try:
        return float(text)
    except ValueError:
        return float(re.sub("[dDqQ]", "e", text)) if _FORTRAN.fullmatch(text) else None


def count(text: str | None) -> int | None:
    """Return the number from 0 that a text is, ``None`` if it is none of up to nine digits."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def finite(value: float | None) -> float | None:
    """Return the value, or ``None`` in place of what is not finite."""
    return value if value is not None and math.isfinite(value) else None


def in_order(atoms: Atoms, elements: Sequence[str]) -> tuple[list[str], list[int], NDArray[np.int64]]:
    """Group atoms by element.

    Parameters
    ----------
    atoms
        The structure.
    elements
        All elements in their order; if empty, by increasing electronegativity.

    Returns
    -------
    list of str, list of int, array
        Elements, how many atoms of each (0 for those that do not occur), and the order of the atoms.

    Raises
    ------
    InputError
        If an atom is of another element.
    """
    occurring = set(atoms.symbols)
    order = list(elements) or by_electronegativity(occurring)
    strangers = occurring - set(order)
    if strangers:
        raise InputError(
            "elements", " ".join(sorted(strangers)), f"only {' '.join(order)}, the elements of the other code's search"
        )
    symbols = np.asarray(atoms.symbols)
    groups = [np.flatnonzero(symbols == symbol) for symbol in order]
    return order, [len(group) for group in groups], np.concatenate(groups)


def by_electronegativity(symbols: Iterable[str]) -> list[str]:
    """Return elements by increasing electronegativity, as formulas are written."""
    from pymatgen.core import Element

    return sorted(symbols, key=lambda symbol: (Element(symbol).X if not math.isnan(Element(symbol).X) else 9.0, symbol))
