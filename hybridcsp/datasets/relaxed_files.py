"""The folder of a relaxation of a data set: files that grow by one frame with each outcome, and survive every kill.

======================= ===================================================================
``relaxation.json``     calculator, settings and input of the relaxation, which a later run must share
``relaxed.extxyz``      converged crystals
``failed.extxyz``       last known structures of the others, with ``reason`` and ``detail`` in ``info``
``workers/``            output of the worker processes
======================= ===================================================================

Each frame carries ``number``, the number of its crystal in the input, so that what is done is known from the files
alone. A frame that was being written when the process was killed is cut off when the folder is opened again; a file
with anything else behind its frames is refused and left as it is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from ase import Atoms

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.io.relaxation_folders import ABOUT, FAILED, LOCK, RELAXED
from hybridcsp.io.structure_writer import extxyz_text
from hybridcsp.utils.files import atomic_write, make_folder, open_log
from hybridcsp.utils.locks import FileLock, LockFileError, LockHeldError
from hybridcsp.utils.reading import open_regular, read_json

#: Format in ``relaxation.json``.
FORMAT = 1

_NUMBER = re.compile(rb"(?:^| )number=(\d{1,12})(?= |$)")

# First line of a frame, and the first bytes of its second.
_HEAD, _COMMENT = re.compile(rb"\d{1,6}\n"), b'Lattice="'

# Longest line that is read in bytes, and largest number of atoms of a frame.
_LONGEST, _MOST_ATOMS = 1 << 20, 100_000


class RelaxedFiles:
    """The files of a relaxation, opened for writing; only one process at a time can open them.

    Parameters
    ----------
    folder
        Folder, which is made if it does not exist.
    about
        Calculator, settings and input as plain JSON; those of an existing folder must be the same.

    Attributes
    ----------
    relaxed, failed
        Numbers of the crystals in the two files.

    Raises
    ------
    InputError
        If the folder is in use, holds another relaxation, or cannot be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        make_folder(folder, key="--output")
        self.folder = folder
        self._streams: dict[str, BinaryIO] = {}
        self._lock = _locked(folder)
        try:
            _check_same(folder, about)
            self.relaxed, self.failed = (self._open(name) for name in (RELAXED, FAILED))
        except BaseException:
            self.close()
            raise

    def add_relaxed(self, number: int, atoms: Atoms) -> None:
        """Append a converged crystal."""
        self._append(RELAXED, number, atoms)
        self.relaxed.add(number)

    def add_failed(self, number: int, atoms: Atoms) -> None:
        """Append a crystal whose relaxation has failed."""
        self._append(FAILED, number, atoms)
        self.failed.add(number)

    def close(self) -> None:
        """Close the files and release the lock."""
        for stream in self._streams.values():
            stream.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, name: str) -> set[int]:
        path = self.folder / name
        stream = open_log(path, key="--output")
        self._streams[name] = stream  # type: ignore[assignment]
        numbers, end = _complete_frames(path)
        os.ftruncate(stream.fileno(), end)
        return numbers

    def _append(self, name: str, number: int, atoms: Atoms) -> None:
        written = atoms.copy()
        written.calc = atoms.calc
        written.info = {"number": number, **{key: value for key, value in atoms.info.items() if key != "number"}}
        text = extxyz_text(written)
        stream = self._streams[name]
        try:
            stream.write(text.encode("utf-8", "backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())
        except OSError as error:
            reason = f"it cannot be written ({error.strerror}); what is complete is kept"
            raise InputError("--output", self.folder / name, reason=reason) from error


def _locked(folder: Path) -> FileLock:
    try:
        return FileLock(folder / LOCK)
    except LockHeldError as error:
        reason = f"it is in use by {error.holder}, which relaxes the same crystals"
        raise InputError("--output", folder, reason=reason) from None
    except LockFileError as error:
        raise InputError("--output", folder, reason=str(error)) from None
    except OSError as error:
        raise InputError("--output", folder, reason=f"it cannot be written ({error.strerror})") from error


def _check_same(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what is relaxed, or check that it is what the folder already holds."""
    path = folder / ABOUT
    wanted = {"format": FORMAT, **about}
    if not path.exists():
        others = [name for name in (RELAXED, FAILED) if (folder / name).exists()]
        if others:
            raise InputError("--output", folder, f"a new folder; this one holds {others[0]}, but no {ABOUT}")
        with atomic_write(path, key="--output") as stream:
            json.dump(wanted, stream, indent=1)
        return
    try:
        known = read_json(path)
    except UnreadableError as error:
        raise InputError("--output", path, reason=f"it cannot be read: {error.reason}") from error
    if known == wanted:
        return
    difference = _difference(known, wanted) if isinstance(known, dict) else "its format is another one"
    reason = f"it holds another relaxation ({difference}); choose a new folder, or repeat that command"
    raise InputError("--output", folder, reason=reason)


def _difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return how a relaxation differs from another one, in words."""
    if known.get("sha256") != wanted.get("sha256"):
        return "its crystals are others"
    there, here = ({**one, **one.get("settings", {}), **one.get("limits", {})} for one in (known, wanted))
    keys = [key for key in here if key not in ("settings", "limits") and there.get(key) != here[key]]
    return (
        ", ".join(f"{key} is {there.get(key)} there and {here[key]} here" for key in keys) or "its settings are others"
    )


def _complete_frames(path: Path) -> tuple[set[int], int]:
    """Return the numbers of the complete frames of a file, and the offset of their end in bytes.

    Raises
    ------
    InputError
        If what follows the complete frames is not the beginning of one frame, as an interruption leaves it.
    """
    numbers: set[int] = set()
    end = 0
    with open_regular(path) as stream:
        while head := stream.readline(_LONGEST):
            atoms = int(head) if _HEAD.fullmatch(head) else _MOST_ATOMS + 1
            lines = [stream.readline(_LONGEST) for _ in range(atoms + 1)] if atoms <= _MOST_ATOMS else []
            found = _NUMBER.search(lines[0].rstrip()) if lines else None
            if found is None or not all(line.endswith(b"\n") for line in lines):
                break
            numbers.add(int(found[1]))
            end = stream.tell()
        rest = os.fstat(stream.fileno()).st_size - end
        stream.seek(end)
        interrupted = rest <= _LONGEST and _is_half_a_frame(stream.read(_LONGEST))
    if not interrupted:
        reason = f"it has {rest} bytes behind byte {end} that are no frames of this program; move it away"
        raise InputError("--output", path, reason=reason)
    return numbers, end


def _is_half_a_frame(rest: bytes) -> bool:
    """Return whether bytes can be the first ones of a frame; power cuts may have replaced the last ones by zeros."""
    lines = rest.rstrip(b"\0").split(b"\n")
    if len(lines) == 1:
        return not lines[0] or lines[0].isdigit()
    if not _HEAD.fullmatch(lines[0] + b"\n") or int(lines[0]) > _MOST_ATOMS:
        return False
    if len(lines) == 2:
        return lines[1][: len(_COMMENT)] == _COMMENT[: len(lines[1])]
    return _NUMBER.search(lines[1].rstrip()) is not None and len(lines) <= int(lines[0]) + 2
