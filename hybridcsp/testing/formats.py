"""Conformance suite of formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.build import bulk

from hybridcsp.core.records import is_word
from hybridcsp.io.formats.base import Format, Record, SeedSettings
from hybridcsp.io.frames import ReadFailure
from hybridcsp.testing.requirements import conformance_suite, require


@conformance_suite
def check_format(make: Callable[[], Format], folder: Path, *, target: str = "run") -> None:
    """Check that a format writes into its folder only, recognises only files that exist, and survives damaged files.

    Parameters
    ----------
    make
        Function that returns a new format.
    folder
        Existing empty folder.
    target
        Name of the folder, or of the file, that the format writes.

    Raises
    ------
    AssertionError
        If the format breaks a rule; the message names it.
    """
    one = make()
    require(isinstance(one, Format), f"{type(one).__name__} must inherit hybridcsp.io.formats.Format.")
    name = one.name
    require(is_word(name), f"The name {name!r} of the format must be a word that begins with a letter.")
    require(not one.recognises(folder / "missing"), f"The format {name} recognises a path that does not exist.")
    empty = folder / "empty"
    empty.mkdir()
    require(not one.recognises(empty), f"The format {name} recognises an empty folder.")

    place = folder / target
    if not place.suffix:
        place.mkdir()
    records = [Record(atoms=bulk("CuAu", "cesiumchloride", a=a)) for a in (3.0, 3.1, 3.2)]
    outside = _files(folder) - _files(place)
    note = one.write(records, place, SeedSettings(elements=("Cu", "Au")))
    require(isinstance(note, str) and note, f"The format {name} must return a sentence about what it has written.")
    require(_files(folder) - _files(place) == outside, f"The format {name} wrote outside of {place.name}.")
    written = {file: file.read_bytes() for file in _files(place)}
    require(written, f"The format {name} wrote no file.")

    rng = np.random.default_rng(0)
    if make().recognises(place):
        _read(make(), place)
        for file, content in written.items():
            for end in rng.integers(0, len(content) + 1, 3):
                file.write_bytes(content[:end])
                _read(make(), place)
            file.write_bytes(bytes(rng.integers(0, 256, 200, dtype=np.uint8)))
            _read(make(), place)
            file.write_bytes(content)


def _read(one: Format, place: Path) -> None:
    for found in one.read(place):
        require(
            isinstance(found, Record | ReadFailure),
            f"The format {one.name} yielded a {type(found).__name__}; it must yield Record or ReadFailure.",
        )


def _files(place: Path) -> set[Path]:
    return {place} if place.is_file() else {file for file in place.rglob("*") if file.is_file()}
