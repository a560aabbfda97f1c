"""Files of structures that a training reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hybridcsp.errors import InputError
from hybridcsp.io.frames import Frame, ReadFailure
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


def training_files(paths: Iterable[Path]) -> Iterator[TrainingFile]:
    """Read files or folders of structures; pickles are never read.

    Raises
    ------
    InputError
        If a path does not exist, or a whole file cannot be read.
    """
    for path in paths:
        if not path.exists():
            raise InputError("data", path, reason="there is no such file or folder")
        for file in structure_files(path):
            frames = list(read_structures(file))
            if len(frames) == 1 and isinstance(frames[0], ReadFailure):
                raise InputError("data", file, reason=f"it cannot be read: {frames[0].reason}")
            yield TrainingFile(file, frames, {"name": file.name, "sha256": sha256_of(file), "frames": len(frames)})
