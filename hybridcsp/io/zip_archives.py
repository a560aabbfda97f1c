"""Files in a zip archive, unpacked one after the other within limits."""

from __future__ import annotations

import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hybridcsp.errors import UnreadableError
from hybridcsp.utils.compression import check_unpacked, is_compressed
from hybridcsp.utils.reading import open_regular

#: More files in an archive are not read; nor is a longer list of them (bytes).
MOST_MEMBERS = 65_535
_LONGEST_LIST = 16 << 20

_CHUNK = 1 << 16
_END = b"PK\x05\x06"
_END_OF_ZIP64 = b"PK\x06\x07"


def members(file: Path) -> Iterator[tuple[str, Path | UnreadableError]]:
    """Yield each file of an archive: its name there, and a copy that lasts until the next, or why there is none.

    Hidden files are left out.

    Raises
    ------
    UnreadableError
        If the archive cannot be read, or unpacks to more than is read.
    """
    with open_regular(file) as stream, tempfile.TemporaryDirectory() as folder:
        packed = _check_list(stream, file)
        unpacked = 0
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
            raise UnreadableError(file, f"a damaged zip archive ({error})") from error
        with archive:
            for member in sorted(archive.infolist(), key=lambda info: info.filename):
                name = PurePosixPath(member.filename).name
                if member.is_dir() or name.startswith(".") or member.filename.startswith("__MACOSX/"):
                    continue
                # Under its last name only: a path in an archive may lead anywhere.
                # File systems take names of up to 255 bytes, and a character is up to four.
                plain = Path(folder) / (name[-60:].replace("\0", "") or "file")
                try:
                    plain.touch()  # an empty file is one too, and is told to hold nothing
                    for chunk in _chunks(archive, member):
                        unpacked += len(chunk)
                        check_unpacked(packed, unpacked, file)
                        with plain.open("ab") as target:
                            target.write(chunk)
                except _MemberError as error:
                    yield member.filename, UnreadableError(file / member.filename, str(error))
                else:
                    yield member.filename, plain
                finally:
                    plain.unlink(missing_ok=True)


class _MemberError(Exception):
    """Why one file of an archive cannot be unpacked."""


def _check_list(stream: BinaryIO, file: Path) -> int:
    """Look at the end of an archive before its list of files is read into memory; return the archive's size."""
    size = stream.seek(0, 2)
    begin = max(0, size - 22 - 65_535 - 20)
    stream.seek(begin)
    tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise UnreadableError(file, "a damaged zip archive: its list of files is cut off")
    if _END_OF_ZIP64 in tail[:at]:
        raise UnreadableError(file, f"a zip archive of more than {MOST_MEMBERS} files or 4 GiB")
    (length,) = struct.unpack("<I", tail[at + 12 : at + 16])
    if length > _LONGEST_LIST:
        raise UnreadableError(file, f"a zip archive with a list of files of more than {_LONGEST_LIST >> 20} MiB")
    stream.seek(0)
    return size


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _MemberError("compressed in a way that is not read; use ordinary zip compression")
    if member.flag_bits & 1:
        raise _MemberError("it is encrypted")
    try:
        with archive.open(member) as source:
            first = True
            while chunk := source.read(_CHUNK):
                if first and is_compressed(chunk):
                    raise _MemberError("an archive or a compressed file inside an archive; unpack it once")
                first = False
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise _MemberError(f"damaged ({error})") from error
