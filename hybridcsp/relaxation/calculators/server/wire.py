"""Messages between hybridcsp and a calculator server: JSON with arrays, each after its length in bytes.

Numbers and arrays arrive exactly. Results of a calculator may be anything; those that are not arrays of numbers arrive
as objects that numpy converts, or fails to convert, like the original.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms

#: Version of the messages; both sides must have the same.
PROTOCOL = 1

#: Largest size of a message in bytes.
LARGEST = 2**30

# Number of components per atom, in addition to those of a small structure, up to which an array is sent. Larger ones
# have a wrong shape in any case, which is all that is sent of them.
_COMPONENTS = 16

_LENGTH = struct.Struct("<Q")
_ARRAY = "__array__"
_PLAIN = (str, bool, int, float)
_NUMERIC = "biufc"
_LARGEST_ITEM = 2**20


class WireError(Exception):
    """Bytes that are no message of the other side."""


class _Unreadable:
    """Stand-in for an object that numpy cannot convert to an array: it fails with the same error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self._error


def send(connection: socket.socket, message: Any, on_timeout: Callable[[], None] | None = None) -> None:
    """Send a message.

    Parameters
    ----------
    connection
        Socket to the other side.
    message
        Plain JSON with arrays, or what :func:`encode` has made of it.
    on_timeout
        Function that is called whenever the timeout of the socket has passed; it may raise an error.

    Raises
    ------
    OSError
        If the other side has ended.
    """
    text = message if isinstance(message, bytes) else encode(message)
    rest = memoryview(_LENGTH.pack(len(text)) + text)
    while rest:
        sent = 0
        try:
            sent = connection.send(rest)
        except socket.timeout:
            if on_timeout is None:
                raise
            on_timeout()
        rest = rest[sent:]


def receive(connection: socket.socket, on_timeout: Callable[[], None] | None = None) -> Any:
    """Wait for a message and return it; parameters as in :func:`send`.

    Raises
    ------
    EOFError, OSError
        If the other side has ended.
    WireError
        If it has sent something else.
    """
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size, on_timeout))
    if length > LARGEST:
        raise WireError(f"it claims to be a message of {length} bytes")
    return decode(_read(connection, length, on_timeout))


def _read(connection: socket.socket, length: int, on_timeout: Callable[[], None] | None) -> bytes:
    found = bytearray()
    while len(found) < length:
        try:
            part = connection.recv(min(length - len(found), 2**20))
        except socket.timeout:
            if on_timeout is None:
                raise
            on_timeout()
            continue
        if not part:
            raise EOFError("the other side has ended")
        found += part
    return bytes(found)


def encode(message: Any) -> bytes:
    """Return a message as bytes."""
    return json.dumps(message, default=_plain).encode()


def decode(text: bytes) -> Any:
    """Return the message that :func:`encode` encoded.

    Raises
    ------
    WireError
        If it is none.
    """
    try:
        return json.loads(text, object_hook=_with_arrays)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError) as error:
        raise WireError(f"it is not a message: {type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {_ARRAY: [value.dtype.str, value.shape, data]}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _with_arrays(found: dict[str, Any]) -> Any:
    if _ARRAY not in found:
        return found
    kind, shape, data = found[_ARRAY]
    if data is None:  # only the shape is sent; this array takes no memory
        return np.broadcast_to(np.zeros((), dtype=kind), shape)
    return np.frombuffer(base64.b64decode(data, validate=True), dtype=kind).reshape(shape).copy()


def encode_result(value: Any, n_atoms: int) -> Any:
    """Return a result of a calculator as a part of a message.

    Parameters
    ----------
    value
        Anything that a calculator returns as one of its properties.
    n_atoms
        Number of atoms of the structure.
    """
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except Exception as error:  # noqa: BLE001 - objects of other code may fail in any way
        return {"unreadable": encode_error(error)}
    kind = array.dtype.str if array.dtype.itemsize <= _LARGEST_ITEM else "O"
    if array.dtype.kind not in _NUMERIC or array.size > _COMPONENTS * (n_atoms + 4):
        return {"array": {_ARRAY: [kind, array.shape, None]}}
    if np.ma.is_masked(value):
        return {"array": array, "mask": np.array(np.ma.getmaskarray(value))}
    return {"array": array}


def decode_result(sent: Any) -> Any:
    """Return what stands for the result of a calculator on this side."""
    if sent is None:
        return None
    if "unreadable" in sent:
        return _Unreadable(decode_error(sent["unreadable"]))
    if "mask" in sent:
        return np.ma.MaskedArray(sent["array"], sent["mask"])
    return sent["array"]


def encode_error(error: BaseException) -> Any:
    """Return the class and the message of an exception as a part of a message."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - formatting an exception of other code may fail in any way
        text = "(its message cannot be shown)"
    return {"class": type(error).__name__, "message": text[:LONGEST_TEXT]}


#: Number of characters that are sent of the message of an exception.
LONGEST_TEXT = 10000


def decode_error(sent: Any) -> RaisedError:
    """Return an exception whose class has the name of the original one, and with its message."""
    kind = type(str(sent["class"]), (RaisedError,), {})
    error: RaisedError = kind(str(sent["message"]))
    return error


class RaisedError(Exception):
    """Exception that the code of another process raised."""


def encode_structure(atoms: Atoms) -> Any:
    """Return all of a structure on which its energy may depend as a part of a message."""
    return {
        "arrays": {name: array for name, array in atoms.arrays.items() if array.dtype.kind in _NUMERIC},
        "cell": atoms.cell.array,
        "pbc": [bool(periodic) for periodic in atoms.pbc],
        "info": {key: value for key, value in atoms.info.items() if isinstance(key, str) and isinstance(value, _PLAIN)},
    }


def decode_structure(sent: Any) -> Atoms:
    """Return the structure of a message."""
    arrays = dict(sent["arrays"])
    atoms = Atoms(numbers=arrays.pop("numbers"), positions=arrays.pop("positions"), cell=sent["cell"], pbc=sent["pbc"])
    atoms.arrays.update(arrays)
    atoms.info.update(sent["info"])
    return atoms
