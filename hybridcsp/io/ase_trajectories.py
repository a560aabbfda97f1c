"""Reading of ASE's trajectories (``.traj``): numbers, positions, cells and energies.

ASE's own reader builds the constraints that a file names, and allocates arrays of any size that a file states.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hybridcsp.errors import UnreadableError
from hybridcsp.io.construction import MAX_ATOMS, from_arrays
from hybridcsp.io.frames import Frame, ReadFailure, StructureError
from hybridcsp.utils.reading import open_regular, parse_json, plain_copy

_MAGIC = b"- of Ulm"
_TAG = b"ASE-Trajectory"

#: Supported types of arrays.
_TYPES = ("float64", "float32", "int64", "int32", "bool")

#: Maximum size of the description of a frame in bytes.
_MAX_DESCRIPTION_SIZE = 1 << 22


def read_trajectory(file: Path) -> Iterator[Frame | ReadFailure]:
    """Yield the structures of a trajectory; a damaged frame does not affect the others.

    Raises
    ------
    UnreadableError
        If the file is not a trajectory of ASE 3.9 or later.
    """
    with plain_copy(file) as plain, open_regular(plain) as stream:
        offsets = _offsets(stream, file)
        first: Mapping[str, Any] = {}
        for number, offset in enumerate(offsets):
            try:
                item = _description(stream, offset, file)
                first = first or item
                atoms = _atoms(stream, item, first)
            except (StructureError, UnreadableError) as error:
                yield ReadFailure(file=file, line=1, reason=f"frame {number}: {error.reason}")
            else:
                yield Frame(atoms=atoms, file=file, number=number, name=f"{file.stem}-{number + 1}")


def _atoms(stream: BinaryIO, item: Mapping[str, Any], first: Mapping[str, Any]) -> Any:
    def value(name: str, of: Mapping[str, Any] = item) -> Any:
        return _value(stream, of, name, little=bool(item.get("_little_endian", True)))

    numbers = value("numbers")
    calculator = item.get("calculator.")
    results: Mapping[str, Any] = calculator if isinstance(calculator, dict) else {}
    return from_arrays(
        numbers=value("numbers", first) if numbers is None else numbers,
        positions=value("positions"),
        cell=value("cell"),
        pbc=value("pbc", first) if value("pbc") is None else value("pbc"),
        moments=value("magmoms"),
        charges=value("charges"),
        energy=results.get("energy"),
        calculator=results.get("name"),
        info=item.get("info"),
    )


def _offsets(stream: BinaryIO, file: Path) -> list[int]:
    size = os.fstat(stream.fileno()).st_size
    head = stream.read(48)
    if len(head) < 48 or not head.startswith(_MAGIC) or head[8:24].strip() != _TAG:
        raise UnreadableError(
            file, "it is not a trajectory of ASE 3.9 or later (older ones are pickles, which can run code)"
        )
    _, n, position = struct.unpack("<3q", head[24:48])
    if not 0 <= n <= size // 8 or not 0 <= position <= size - 8 * n:
        raise UnreadableError(file, "the trajectory is damaged: its list of frames lies outside of the file")
    stream.seek(position)
    return list(struct.unpack(f"<{n}q", stream.read(8 * n)))


def _description(stream: BinaryIO, offset: int, file: Path) -> dict[str, Any]:
    size = os.fstat(stream.fileno()).st_size
    if not 0 <= offset <= size - 8:
        raise StructureError(0, "it lies outside of the file")
    stream.seek(offset)
    (length,) = struct.unpack("<q", stream.read(8))
    if not 0 <= length <= min(size - offset - 8, _MAX_DESCRIPTION_SIZE):
        raise StructureError(0, "its description lies outside of the file")
    found = parse_json(stream.read(length), file)
    if not isinstance(found, dict):
        raise StructureError(0, "it has no description")
    return found


def _value(stream: BinaryIO, item: Mapping[str, Any], name: str, *, little: bool) -> Any:
    """Return a value of a frame: a number, text or list, or an array that is stored elsewhere in the file."""
    described = item.get(f"{name}.")
    if not isinstance(described, dict):
        found = item.get(name)
        if isinstance(found, dict) and isinstance(found.get("array"), list):  # a cell of ASE 3.18
            return found["array"]
        return found
    try:
        shape, kind, offset = described["ndarray"]
        count = math.prod(shape)
        if kind not in _TYPES or not 0 <= count <= 9 * MAX_ATOMS or len(shape) > 2 or min(shape, default=0) < 0:
            raise ValueError
        dtype = np.dtype(kind).newbyteorder("<" if little else ">")
        stream.seek(offset)
        return np.frombuffer(stream.read(count * dtype.itemsize), dtype, count).reshape(shape)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise StructureError(0, f"the array of {name} is damaged or outside of the file") from None
