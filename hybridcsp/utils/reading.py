"""Open and decode files that somebody else made: only regular files, and within limits of size.

Nothing here runs, imports or unpickles what a file names, and nothing allocates more than the limits below, whatever a
file claims about itself. Whatever goes wrong is an :class:`~hybridcsp.errors.UnreadableError` with one sentence.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import stat
import tempfile
import tomllib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO, cast

from hybridcsp.errors import UnreadableError

_MIB = 1 << 20

#: Compressed files that unpack to more bytes are not read.
LARGEST_UNPACKED = 16 << 30

#: Compressed files of structures shrink to a tenth or so; what unpacks to this many times its size is a bomb, or may
#: as well be one. Small files are not judged.
LARGEST_RATIO = 100
_JUDGED_FROM = 8 * _MIB

#: Longer lines are no structure's.
LONGEST_LINE = _MIB

#: Larger files are not read where all of a file has to be in memory at once: JSON takes up to 24 times its size there.
LARGEST_DOCUMENT = 24 * _MIB

#: Larger configurations are not read.
LARGEST_TOML = _MIB // 4

#: Deepest nesting of tables, arrays and objects.
DEEPEST = 50

_CHUNK = 1 << 16
_XZ_MEMORY = 100 * _MIB

_ZIP = b"PK\x03\x04"

_PART_OF_KEY = r"""(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART_OF_KEY}){{{DEEPEST}}}")


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
    """Gives zlib the interface of :mod:`bz2` and :mod:`lzma`."""

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


def open_regular(file: Path) -> BinaryIO:
    """Open a file for reading as it is, without waiting for anybody.

    Raises
    ------
    UnreadableError
        If it cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    try:
        _check_regular(file, file.stat().st_mode)  # before it is opened: that alone may do something to a device
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(file, f"it cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    try:
        _check_regular(file, os.fstat(descriptor).st_mode)
    except UnreadableError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 hash of a file, in hexadecimal digits; errors as of :func:`open_regular`."""
    found = hashlib.sha256()
    with open_regular(file) as stream:
        while chunk := stream.read(_MIB):
            found.update(chunk)
    return found.hexdigest()


def open_bytes(file: Path) -> BinaryIO:
    """Open a file for reading; compression (gzip, bzip2, xz) is recognised by content and undone.

    Raises
    ------
    UnreadableError
        As of :func:`open_regular`, and for archives. Reading raises it for damage and where a limit is reached.
    """
    source = open_regular(file)
    kind = _compression(_beginning(source, file))
    if kind is None:
        if is_zip(_beginning(source, file)):
            source.close()
            raise UnreadableError(file, "it is a zip archive, and one file is needed")
        return source
    name, make = _COMPRESSIONS[kind]
    unpacked = io.BufferedReader(cast(io.RawIOBase, _Unpacked(source, file, name, make)), _CHUNK)
    try:
        inside = _beginning(unpacked, file)
    except UnreadableError:
        unpacked.close()
        raise
    if is_compressed(inside):
        unpacked.close()
        raise UnreadableError(file, "it is compressed more than once; unpack it once")
    return unpacked


def open_text(file: Path) -> TextIO:
    """Open a text file as :func:`open_bytes` does.

    It is read as UTF-8, or UTF-16 where it begins with that byte order mark; no byte order mark is left, and bytes that
    are no characters are replaced. Lines end with a line feed, whatever ended them in the file.
    """
    source = open_bytes(file)
    utf16 = _beginning(source, file)[:2] in (b"\xff\xfe", b"\xfe\xff")
    return io.TextIOWrapper(source, encoding="utf-16" if utf16 else "utf-8-sig", errors="replace")


def lines_of(stream: TextIO, file: Path) -> Iterator[str]:
    """Yield the lines of a text.

    Raises
    ------
    UnreadableError
        For a line of more than :data:`LONGEST_LINE` characters, and whatever reading raises.
    """
    number = 0
    while line := _next_line(stream, file, number):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UnreadableError(file, f"a line of more than {LONGEST_LINE:,} characters", line=number)
        yield line


def read_bytes(file: Path, most: int = LARGEST_DOCUMENT) -> bytes:
    """Return all of a file, unpacked if it is compressed.

    Raises
    ------
    UnreadableError
        If it cannot be read or holds more than ``most`` bytes.
    """
    with open_bytes(file) as stream:
        try:
            data = stream.read(most + 1)
        except OSError as error:
            raise UnreadableError(file, f"it cannot be read ({error.strerror or error})") from error
    if len(data) > most:
        raise UnreadableError(file, f"it holds more than {most / _MIB:g} MiB, the most that is read here")
    return data


def read_text(file: Path, most: int = LARGEST_DOCUMENT) -> str:
    """Return all of a text file, as :func:`open_text` reads it.

    Raises
    ------
    UnreadableError
        If it cannot be read or holds more than ``most`` bytes.
    """
    return _decoded(read_bytes(file, most), errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def read_json(file: Path, most: int = LARGEST_DOCUMENT) -> Any:
    """Return what a JSON file holds, in Python's own types.

    Raises
    ------
    UnreadableError
        As of :func:`read_bytes` and :func:`parse_json`.
    """
    return parse_json(read_bytes(file, most), file)


def parse_json(data: bytes | str, file: Path) -> Any:
    """Return what a JSON text means, in Python's own types.

    Parameters
    ----------
    data
        The text.
    file
        Where it comes from, for errors.

    Raises
    ------
    UnreadableError
        If it is no JSON, nested deeper than :data:`DEEPEST`, names a key twice or has whole numbers of thousands of
        digits.
    """
    try:
        text = _decoded(data) if isinstance(data, bytes) else data
        found = json.loads(text, object_pairs_hook=_once_each)
    except RecursionError:
        raise UnreadableError(file, f"JSON that is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise UnreadableError(file, f"it is not JSON: {error}", line=getattr(error, "lineno", 1)) from error
    if _is_deeper(found, DEEPEST):
        raise UnreadableError(file, f"JSON that is nested deeper than {DEEPEST} levels")
    return found


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    UnreadableError
        If it cannot be read, is no TOML in UTF-8, is larger than :data:`LARGEST_TOML` or nested deeper than
        :data:`DEEPEST`.
    """
    data = read_bytes(file, LARGEST_TOML)
    try:
        text = _decoded(data).replace("\r\n", "\n")
        if _LONG_KEY.search(text):  # tomllib takes time and memory that grow with the square of the parts
            raise UnreadableError(file, f"TOML with a dotted key of more than {DEEPEST} parts")
        found = tomllib.loads(text)
    except RecursionError:
        raise UnreadableError(file, f"TOML that is nested deeper than {DEEPEST} levels") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(file, f"it is not text in UTF-8: byte {error.start} is {error.reason}") from error
    except ValueError as error:  # TOMLDecodeError, and whole numbers of thousands of digits
        raise UnreadableError(file, f"it is not TOML: {error}") from error
    if _is_deeper(found, DEEPEST):
        raise UnreadableError(file, f"TOML that is nested deeper than {DEEPEST} levels")
    return found


@contextmanager
def plain_copy(file: Path) -> Iterator[Path]:
    """Give a path at which a file can be read that is not compressed: its own, or one that lasts for the block.

    Raises
    ------
    UnreadableError
        As of :func:`open_bytes`.
    """
    with open_regular(file) as source:
        compressed = _compression(_beginning(source, file)) is not None
    if not compressed:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        name = file.name
        if file.suffix.lower() in (".gz", ".bz2", ".xz"):
            name = file.stem
        plain = Path(folder) / name
        with open_bytes(file) as packed, plain.open("wb") as target:
            shutil.copyfileobj(packed, target)
        yield plain


def check_unpacked(packed: int, unpacked: int, file: Path) -> None:
    """Stop where more has come out of a compressed file than is read.

    Parameters
    ----------
    packed, unpacked
        How many bytes were read of it, and have come out.
    file
        The file.

    Raises
    ------
    UnreadableError
        If it unpacks to more than :data:`LARGEST_UNPACKED` or :data:`LARGEST_RATIO` times its size.
    """
    if unpacked > LARGEST_UNPACKED:
        raise UnreadableError(file, f"it unpacks to more than {LARGEST_UNPACKED / (1 << 30):g} GiB")
    if unpacked > max(_JUDGED_FROM, LARGEST_RATIO * packed):
        raise UnreadableError(file, f"it unpacks to more than {LARGEST_RATIO} times its size, which no structures do")


def is_compressed(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes is compressed or a zip archive."""
    return _compression(beginning) is not None or is_zip(beginning)


def is_zip(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes is a zip archive."""
    return beginning.startswith(_ZIP)


class _Unpacked(io.RawIOBase):
    """The content of a compressed stream, one compressed part after the other, within the limits."""

    def __init__(self, source: BinaryIO, file: Path, name: str, make: Callable[[], _Decompressor]) -> None:
        self._source = source
        self._file = file
        self._name = name
        self._make = make
        self._decompressor = make()
        self._packed = self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            found = self._some(len(view))
        except (zlib.error, lzma.LZMAError, EOFError, OSError, MemoryError) as error:
            raise UnreadableError(self._file, f"damaged {self._name} data ({error})") from error
        self._unpacked += len(found)
        check_unpacked(self._packed, self._unpacked, self._file)
        view[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._source.close()
        super().close()

    def _some(self, most: int) -> bytes:
        while True:
            data = b""
            if self._decompressor.eof:
                data = self._decompressor.unused_data.lstrip(b"\0") or self._more().lstrip(b"\0")
                if not data:
                    return b""
                self._decompressor = self._make()
            elif self._decompressor.needs_input:
                data = self._more()
                if not data:
                    raise EOFError("it ends too early")
            if found := self._decompressor.decompress(data, most):
                return found

    def _more(self) -> bytes:
        data = self._source.read(_CHUNK)
        self._packed += len(data)
        return data


def _check_regular(file: Path, mode: int) -> None:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if not stat.S_ISREG(mode):
        raise UnreadableError(file, f"it is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a file")


def _beginning(stream: BinaryIO, file: Path) -> bytes:
    try:
        return cast(io.BufferedReader, stream).peek(8)[:8]
    except OSError as error:
        raise UnreadableError(file, f"it cannot be read ({error.strerror or error})") from error


def _compression(beginning: bytes) -> bytes | None:
    return next((magic for magic in _COMPRESSIONS if beginning.startswith(magic)), None)


def _next_line(stream: TextIO, file: Path, number: int) -> str:
    try:
        return stream.readline(LONGEST_LINE + 1)
    except UnreadableError as error:
        raise UnreadableError(file, error.reason, line=number + 1) from error
    except (OSError, UnicodeError) as error:
        raise UnreadableError(file, f"it cannot be read ({error})", line=number + 1) from error


def _decoded(data: bytes, errors: str = "strict") -> str:
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands there twice")
    return found


def _is_deeper(found: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than so many levels; without recursion."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(levels):
        inner = (value for item in level for value in (item.values() if isinstance(item, dict) else item))
        level = [value for value in inner if isinstance(value, dict | list)]
    return bool(level)
