"""Rows of a table in the order of one of its columns, which is kept as rows are added and removed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class SortedRows:
    """The rows of a table, sorted by one value each; rows without a value, ``nan``, come last.

    Adding or removing a row moves the entries behind it in memory, which takes some 0.05 ms among 100,000, and less
    than comparing all values in a single query.
    """

    def __init__(self) -> None:
        self._values = np.empty(16)
        self._rows = np.empty(16, dtype=np.int64)
        self._n = 0

    def add(self, row: int, value: float) -> None:
        """Add a row."""
        n = self._n
        if n == len(self._rows):
            self._values = np.concatenate([self._values, np.empty_like(self._values)])
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        place = int(np.searchsorted(self._values[:n], value, "right"))
        for entries in (self._values, self._rows):
            entries[place + 1 : n + 1] = entries[place:n]
        self._values[place], self._rows[place] = value, row
        self._n = n + 1

    def remove(self, row: int, value: float) -> None:
        """Remove a row that was added with this value."""
        place, n = self._place(row, value), self._n
        for entries in (self._values, self._rows):
            entries[place : n - 1] = entries[place + 1 : n]
        self._n = n - 1

    def renumber(self, row: int, value: float, new: int) -> None:
        """Give a row that was added with this value another number."""
        self._rows[self._place(row, value)] = new

    def between(self, low: float, high: float) -> NDArray[np.int64]:
        """Return the rows whose values are not outside these bounds, those without a value included."""
        values, rows = self._values[: self._n], self._rows[: self._n]
        if math.isnan(low) or math.isnan(high):
            return rows
        first, last = np.searchsorted(values, low, "left"), np.searchsorted(values, high, "right")
        unknown = np.searchsorted(values, math.nan, "left")
        return rows[first:last] if unknown == self._n else np.concatenate([rows[first:last], rows[unknown:]])

    def _place(self, row: int, value: float) -> int:
        first, last = (int(np.searchsorted(self._values[: self._n], value, side)) for side in ("left", "right"))
        return first + int(np.flatnonzero(self._rows[first:last] == row)[0])
