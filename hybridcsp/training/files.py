"""Files of structures that trainings and data sets read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hybridcsp.errors import InputError
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.relaxation_folders import is_without_crystals, why_without_crystals
from hybridcsp.io.structure_files import read_structures, structure_files
from hybridcsp.utils.reading import sha256_of


class TrainingFile(NamedTuple):
    """Represent a file of structures.

    Attributes
    ----------
    path
        The file.
    frames
        Its structures, and frames that could not be read.
    record
        Name, SHA-256 and number of frames, for the card of the training.
    """

    path: Path
    frames: list[Frame | ReadFailure]
    record: dict[str, Any]


def training_files(
    paths: Iterable[Path], *, key: str = "data", progress: Callable[[int], None] = lambda _: None
) -> Iterator[TrainingFile]:
    """Read files or folders of structures; pickles are never read.

    Parameters
    ----------
    paths
        Structure files, folders of them, or folders of the relaxation of a data set, whose converged crystals are read.
    key
        Name of the option for error messages.
    progress
        Called with the number of frames read so far.

    Raises
    ------
    InputError
        If a path does not exist, or a whole file cannot be read.
    """
    seen = 0
    for path in paths:
        if not path.exists():
            raise InputError(key, path, reason="there is no such file or folder")
        for file in structure_files(path):
            if is_without_crystals(file):
                raise InputError(key, path, reason=why_without_crystals(file))
            frames: list[Frame | ReadFailure] = []
            for frame in read_structures(file):
                frames.append(frame)
                seen += 1
                progress(seen)
            if len(frames) == 1 and isinstance(frames[0], ReadFailure):
                raise InputError(key, file, reason=f"it cannot be read: {frames[0].reason}")
            yield TrainingFile(file, frames, {"name": file.name, "sha256": sha256_of(file), "frames": len(frames)})
