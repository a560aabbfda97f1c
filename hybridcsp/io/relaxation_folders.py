"""Folders of the relaxation of a data set: the names of their files, and the file that stands for the folder."""

from __future__ import annotations

from pathlib import Path

from hybridcsp.io.extxyz import read_extxyz
from hybridcsp.io.frames import Frame

#: Names of the files.
RELAXED, FAILED, ABOUT, LOCK = "relaxed.extxyz", "failed.extxyz", "relaxation.json", "relaxation.lock"


def is_relaxation(path: Path) -> bool:
    """Return whether a path is the folder of a relaxation of a data set."""
    return path.is_dir() and (path / ABOUT).is_file() and (path / RELAXED).is_file()


def is_without_crystals(file: Path) -> bool:
    """Return whether a file is that of the converged crystals of a relaxation, and there is none yet."""
    return file.name == RELAXED and is_relaxation(file.parent) and not file.stat().st_size


def why_without_crystals(file: Path) -> str:
    """Return the reason why the file of the converged crystals of a relaxation is empty."""
    failures = file.with_name(FAILED)
    frames = read_extxyz(failures) if failures.is_file() else ()
    n = len({frame.atoms.info.get("number") for frame in frames if isinstance(frame, Frame)})
    failed = f"{n} {'has' if n == 1 else 'have'} failed (see {FAILED})" if n else "none has failed"
    return f"no crystal has converged yet, {failed}"
