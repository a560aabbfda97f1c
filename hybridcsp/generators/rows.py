"""Packing of rows of arrays with different lengths into a few flat arrays for small files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, NDArray[np.generic]]

# Largest fraction of elements other than 0 of an array that is stored in sparse form.
_SPARSE = 0.125


def pack(rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """Return rows in packed form, from which :func:`unpack` restores them.

    Parameters
    ----------
    rows
        At least one row; all have the same names, and each name has one type and number of dimensions.

    Returns
    -------
    dict
        For each name the shapes, ``(n, n_dimensions)``, and the flat values; if most values are 0, only the others with
        their positions and the total number.
    """
    packed: dict[str, NDArray[Any]] = {}
    for name in rows[0]:
        arrays = [row[name] for row in rows]
        shapes = np.array([array.shape for array in arrays], dtype=np.int32).reshape(len(rows), -1)
        values = np.concatenate([array.ravel() for array in arrays])
        packed[f"{name}/shapes"] = shapes
        places = np.flatnonzero(values)
        if len(places) < _SPARSE * len(values):
            packed[f"{name}/places"] = np.diff(places, prepend=0).astype(np.uint32)
            packed[f"{name}/size"] = np.array([len(values)], dtype=np.int64)
            values = values[places]
        packed[f"{name}/values"] = values
    return packed


def unpack(packed: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """Restore the rows that :func:`pack` has packed.

    Raises
    ------
    KeyError
        If a part is missing.
    ValueError
        If the parts are inconsistent.
    """
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in packed))
    columns: dict[str, list[NDArray[Any]]] = {}
    for name in names:
        shapes, values = packed[f"{name}/shapes"], packed[f"{name}/values"]
        lengths = shapes.prod(axis=1, dtype=np.int64) if shapes.shape[1] else np.ones(len(shapes), dtype=np.int64)
        if f"{name}/places" in packed:
            places = packed[f"{name}/places"].astype(np.int64).cumsum()
            dense = np.zeros(int(packed[f"{name}/size"][0]), dtype=values.dtype)
            dense[places] = values
            values = dense
        if lengths.sum() != len(values):
            raise ValueError(f"{name}: {len(values)} values for shapes that hold {lengths.sum()}")
        parts = np.split(values, lengths.cumsum()[:-1])
        columns[name] = [part.reshape(shape) for part, shape in zip(parts, shapes.tolist(), strict=True)]
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("the columns have different numbers of rows")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
