"""Reading of zip archives, whose files are unpacked one at a time and within limits."""

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

#: Maximum number of files in an archive, and maximum size of the list of them in bytes.
MAX_MEMBERS = 65_535
_MAX_LIST_SIZE = 16 << 20

_CHUNK = 1 << 16
_END = b"PK\x05\x06"
_END_OF_ZIP64 = b"PK\x06\x07"


def members(file: Path) -> Iterator[tuple[str, Path | UnreadableError]]:
    """Unpack the files of an archive one at a time, except hidden ones.

    Parameters
    ----------
    file
        The archive.

    Yields
    ------
    str
        The name of a file in the archive.
    Path or UnreadableError
        An unpacked copy, which is deleted before the next one is made, or the reason why the file cannot be unpacked.

    Raises
    ------
    UnreadableError
        If the archive cannot be read, or its files exceed the limit of unpacked data.
    """
    with open_regular(file) as stream, tempfile.TemporaryDirectory() as folder:
        packed = _check_list(stream, file)
        unpacked = 0
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
            raise UnreadableError(file, f"the zip archive is damaged ({error})") from error
        with archive:
            for member in sorted(archive.infolist(), key=lambda info: info.filename):
                name = PurePosixPath(member.filename).name
                if member.is_dir() or name.startswith(".") or member.filename.startswith("__MACOSX/"):
                    continue
                # The folders of the name are dropped, since a path in an archive may lead anywhere, and the name is
                # shortened, since file systems allow names of up to 255 bytes and a character takes up to four.
                plain = Path(folder) / (name[-60:].replace("\0", "") or "file")
                try:
                    plain.touch()  # so that an empty file exists too
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
    """The reason why one file of an archive cannot be unpacked."""


def _check_list(stream: BinaryIO, file: Path) -> int:
    """Check the size of the list of files before it is read into memory; return the size of the archive in bytes."""
    size = stream.seek(0, 2)
    begin = max(0, size - 22 - 65_535 - 20)
    stream.seek(begin)
    tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise UnreadableError(file, "the zip archive is damaged: its list of files is cut off")
    if _END_OF_ZIP64 in tail[:at]:
        raise UnreadableError(
            file, f"the zip archive has more than {MAX_MEMBERS} files or 4 GiB; split it into smaller ones"
        )
    (length,) = struct.unpack("<I", tail[at + 12 : at + 16])
    if length > _MAX_LIST_SIZE:
        raise UnreadableError(
            file, f"the list of files in the zip archive is larger than {_MAX_LIST_SIZE >> 20} MiB; split the archive"
        )
    stream.seek(0)
    return size


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _MemberError("its compression is not supported; use the usual zip compression (deflate)")
    if member.flag_bits & 1:
        raise _MemberError("it is encrypted; unpack the archive first")
    try:
        with archive.open(member) as source:
            first = True
            while chunk := source.read(_CHUNK):
                if first and is_compressed(chunk):
                    raise _MemberError(
                        "it is an archive or a compressed file inside an archive; unpack the outer one first"
                    )
                first = False
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise _MemberError(f"it is damaged ({error})") from error
