"""Reading of untrusted files: regular files only, compressed ones included, within limits of size.

No function runs, imports or unpickles anything that a file names, and none allocates more memory than the limits below,
whatever the file claims about itself. Every failure is an :class:`~hybridcsp.errors.UnreadableError`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from hybridcsp.errors import UnreadableError
from hybridcsp.utils.compression import UnpackedStream, is_compressed, is_packed, is_zip

_MIB = 1 << 20

#: Longest line in characters.
LONGEST_LINE = _MIB

#: Largest size in bytes of a file that is read as a whole; as JSON it takes up to 24 times its size in memory.
LARGEST_DOCUMENT = 24 * _MIB

#: Largest size in bytes of a configuration.
LARGEST_TOML = _MIB // 4

#: Deepest nesting of tables, arrays and objects.
DEEPEST = 50

_CHUNK = 1 << 16

_PART_OF_KEY = r"""(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART_OF_KEY}){{{DEEPEST}}}")


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading, without decompression and without blocking.

    Raises
    ------
    UnreadableError
        If the file cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    try:
        _check_regular(file, file.stat().st_mode)  # before opening it, which alone may act on a device
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
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
    """Return the SHA-256 hash of a file in hexadecimal digits; errors as in :func:`open_regular`."""
    found = hashlib.sha256()
    with open_regular(file) as stream:
        while chunk := stream.read(_MIB):
            found.update(chunk)
    return found.hexdigest()


def open_bytes(file: Path) -> BinaryIO:
    """Open a file for reading, and decompress it if its content is gzip, bzip2 or xz.

    Raises
    ------
    UnreadableError
        As in :func:`open_regular`, and for zip archives. Reading raises it for damaged data and beyond a limit.
    """
    source = open_regular(file)
    beginning = _beginning(source, file)
    if is_zip(beginning):
        source.close()
        raise UnreadableError(file, "it is a zip archive; a single file is needed")
    if not is_packed(beginning):
        return source
    unpacked = io.BufferedReader(UnpackedStream(source, file, beginning), _CHUNK)
    try:
        inside = _beginning(unpacked, file)
    except UnreadableError:
        unpacked.close()
        raise
    if is_compressed(inside):
        unpacked.close()
        raise UnreadableError(file, "it is compressed more than once; it may be compressed once only")
    return unpacked


def open_text(file: Path) -> TextIO:
    """Open a text file for reading, and decompress it as :func:`open_bytes` does.

    The text is decoded as UTF-8, or as UTF-16 if it begins with that byte order mark; the mark is removed, and invalid
    bytes are replaced. All line endings become line feeds.
    """
    source = open_bytes(file)
    utf16 = _beginning(source, file)[:2] in (b"\xff\xfe", b"\xfe\xff")
    return io.TextIOWrapper(source, encoding="utf-16" if utf16 else "utf-8-sig", errors="replace")


def lines_of(stream: TextIO, file: Path) -> Iterator[str]:
    """Yield the lines of a text stream.

    Raises
    ------
    UnreadableError
        If a line has more than :data:`LONGEST_LINE` characters, or reading fails.
    """
    number = 0
    while line := _next_line(stream, file, number):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UnreadableError(file, f"it has a line of more than {LONGEST_LINE:,} characters", line=number)
        yield line


def read_bytes(file: Path, most: int = LARGEST_DOCUMENT) -> bytes:
    """Return the content of a file, decompressed if necessary.

    Raises
    ------
    UnreadableError
        If the file cannot be read or holds more than ``most`` bytes.
    """
    with open_bytes(file) as stream:
        try:
            data = stream.read(most + 1)
        except OSError as error:
            raise UnreadableError(file, f"it cannot be read ({error.strerror or error})") from error
    if len(data) > most:
        raise UnreadableError(file, f"it holds more than {most / _MIB:g} MiB, the limit for such files")
    return data


def read_text(file: Path, most: int = LARGEST_DOCUMENT) -> str:
    """Return the content of a text file, decoded as in :func:`open_text`.

    Raises
    ------
    UnreadableError
        If the file cannot be read or holds more than ``most`` bytes.
    """
    return _decoded(read_bytes(file, most), errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def read_json(file: Path, most: int = LARGEST_DOCUMENT) -> Any:
    """Return the content of a JSON file as Python objects.

    Raises
    ------
    UnreadableError
        As in :func:`read_bytes` and :func:`parse_json`.
    """
    return parse_json(read_bytes(file, most), file)


def parse_json(data: bytes | str, file: Path) -> Any:
    """Return the content of a JSON text as Python objects.

    Parameters
    ----------
    data
        The text.
    file
        The file that contains the text, for error messages.

    Raises
    ------
    UnreadableError
        If the text is not JSON, is nested deeper than :data:`DEEPEST`, repeats a key, or contains integers of thousands
        of digits.
    """
    try:
        text = _decoded(data) if isinstance(data, bytes) else data
        found = json.loads(text, object_pairs_hook=_once_each)
    except RecursionError:
        raise UnreadableError(file, f"it is JSON that is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise UnreadableError(file, f"it is not JSON: {error}", line=getattr(error, "lineno", 1)) from error
    if _is_deeper(found, DEEPEST):
        raise UnreadableError(file, f"it is JSON that is nested deeper than {DEEPEST} levels")
    return found


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    UnreadableError
        If the file cannot be read, is not TOML in UTF-8, is larger than :data:`LARGEST_TOML` or nested deeper than
        :data:`DEEPEST`.
    """
    data = read_bytes(file, LARGEST_TOML)
    try:
        text = _decoded(data).replace("\r\n", "\n")
        if _LONG_KEY.search(text):  # tomllib needs time and memory in proportion to the square of their number
            raise UnreadableError(file, f"it is TOML with a dotted key of more than {DEEPEST} parts")
        found = tomllib.loads(text)
    except RecursionError:
        raise UnreadableError(file, f"it is TOML that is nested deeper than {DEEPEST} levels") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(file, f"it is not text in UTF-8: byte {error.start} is {error.reason}") from error
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        raise UnreadableError(file, f"it is not TOML: {error}") from error
    if _is_deeper(found, DEEPEST):
        raise UnreadableError(file, f"it is TOML that is nested deeper than {DEEPEST} levels")
    return found


@contextmanager
def plain_copy(file: Path) -> Iterator[Path]:
    """Yield the path of an uncompressed version of a file: its own path, or that of a temporary copy.

    Raises
    ------
    UnreadableError
        As in :func:`open_bytes`.
    """
    with open_regular(file) as source:
        compressed = is_packed(_beginning(source, file))
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
        raise ValueError(f"the key {twice[:40]!r} occurs twice")
    return found


def _is_deeper(found: Any, levels: int) -> bool:
    """Return whether lists and objects are nested deeper than a number of levels; works without recursion."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(levels):
        inner = (value for item in level for value in (item.values() if isinstance(item, dict) else item))
        level = [value for value in inner if isinstance(value, dict | list)]
    return bool(level)
