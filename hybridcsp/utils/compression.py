"""Recognition of compressed files, and their decompression within limits of size."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from hybridcsp.errors import UnreadableError

_MIB = 1 << 20

#: Largest size in bytes to which a compressed file may unpack.
LARGEST_UNPACKED = 16 << 30

#: Largest ratio of unpacked to compressed size. Structures shrink to about a tenth; a file that exceeds this ratio is
#: probably made to fill the memory. The ratio is checked only for files that unpack to at least this size in bytes.
LARGEST_RATIO = 100
_CHECKED_SIZE = 8 * _MIB

_CHUNK = 1 << 16
_XZ_MEMORY = 100 * _MIB

_ZIP = b"PK\x03\x04"


class _Decompressor(Protocol):
    """The interface of the decompressors of :mod:`bz2` and :mod:`lzma`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """Adapter that gives zlib the interface of :mod:`bz2` and :mod:`lzma`."""

    needs_input = True

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        found = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = len(found) < max_length
        return found


_COMPRESSIONS: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    b"\x1f\x8b\x08": ("gzip", _Gzip),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": ("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
}


def is_compressed(beginning: bytes) -> bool:
    """Return whether a file with this beginning is compressed or a zip archive."""
    return is_packed(beginning) or is_zip(beginning)


def is_packed(beginning: bytes) -> bool:
    """Return whether a file with this beginning is compressed with gzip, bzip2 or xz."""
    return _compression(beginning) is not None


def is_zip(beginning: bytes) -> bool:
    """Return whether a file with this beginning is a zip archive."""
    return beginning.startswith(_ZIP)


def check_unpacked(packed: int, unpacked: int, file: Path) -> None:
    """Check that a compressed file does not unpack to an excessive size.

    Parameters
    ----------
    packed, unpacked
        Bytes that have been read from the file, and bytes to which they have been unpacked.
    file
        The file, for the error message.

    Raises
    ------
    UnreadableError
        If the file unpacks to more than :data:`LARGEST_UNPACKED`, or to more than :data:`LARGEST_RATIO` times its size.
    """
    if unpacked > LARGEST_UNPACKED:
        raise UnreadableError(file, f"it unpacks to more than {LARGEST_UNPACKED / (1 << 30):g} GiB")
    if unpacked > max(_CHECKED_SIZE, LARGEST_RATIO * packed):
        raise UnreadableError(file, f"it unpacks to more than {LARGEST_RATIO} times its size, which no structures do")


class UnpackedStream(io.RawIOBase):
    """The content of a compressed stream, all its compressed parts in succession, within the limits of size.

    Parameters
    ----------
    source
        The compressed stream.
    file
        The file, for error messages.
    beginning
        The first bytes of the stream, which identify the compression.

    Raises
    ------
    UnreadableError
        If reading finds damaged data or exceeds a limit.
    """

    def __init__(self, source: BinaryIO, file: Path, beginning: bytes) -> None:
        self._source = source
        self._file = file
        self._name, self._make = _COMPRESSIONS[_compression(beginning) or b""]
        self._decompressor = self._make()
        self._packed = self._unpacked = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read unpacked bytes into a buffer and return their number; 0 at the end."""
        view = memoryview(buffer).cast("B")
        try:
            found = self._decompress(len(view))
        except (zlib.error, lzma.LZMAError, EOFError, OSError, MemoryError) as error:
            raise UnreadableError(self._file, f"damaged {self._name} data ({error})") from error
        self._unpacked += len(found)
        check_unpacked(self._packed, self._unpacked, self._file)
        view[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Close the stream and the file."""
        self._source.close()
        super().close()

    def _decompress(self, most: int) -> bytes:
        while True:
            data = b""
            if self._decompressor.eof:
                data = self._decompressor.unused_data.lstrip(b"\0") or self._read().lstrip(b"\0")
                if not data:
                    return b""
                self._decompressor = self._make()
            elif self._decompressor.needs_input:
                data = self._read()
                if not data:
                    raise EOFError("it ends too early")
            if found := self._decompressor.decompress(data, most):
                return found

    def _read(self) -> bytes:
        data = self._source.read(_CHUNK)
        self._packed += len(data)
        return data


def _compression(beginning: bytes) -> bytes | None:
    return next((magic for magic in _COMPRESSIONS if beginning.startswith(magic)), None)
