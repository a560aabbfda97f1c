"""Rounds of an inverse design: their accounts, and the files in which they are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.io.frames import Frame
from hybridcsp.io.structure_files import read_structures
from hybridcsp.io.structure_writer import structure_writer
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_json

#: Names of the files of a run directory, and of those in the folder of a round.
SETTINGS, ACCOUNTS, FOUND, PICTURE, LOCK = "design.json", "accounts.json", "found.extxyz", "design.png", "design.lock"
SAMPLES, SAMPLED, RELAXED, CRYSTALS, ACCOUNT = (
    "samples.extxyz",
    "samples.json",
    "relaxation",
    "crystals.extxyz",
    "account.json",
)
GENERATOR, CHECKPOINT = "generator", "checkpoint.safetensors"

#: Format of the accounts and settings.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class RoundAccount:
    """Account of one round.

    Attributes
    ----------
    number
        Number of the round, from 1. The generator of the first round is the initial one.
    drawn, valid, unique
        Numbers of samples that were requested, that are plausible crystals, and of different crystals among the latter,
        after their relaxation if there is one.
    relaxed
        Number of crystals whose relaxation has converged; ``None`` without relaxations.
    evaluated
        Number of crystals of which all properties are known.
    within
        Number of these that are within all targets.
    new
        Number of these that are neither among the training data nor among the crystals of earlier rounds.
    share
        ``within`` divided by ``unique``; 0 without crystals.
    mean, best
        Mean of each property over the evaluated crystals, and the value nearest to the middle of the target, or if it
        has only one end the value farthest within; by name.
    checked
        Share of the crystals within all targets for which the prediction of another predictor is within as well, and
        share of all evaluated crystals, by name of the property.
    learned
        Number of crystals from earlier rounds and of the training data that the generator of this round was trained on.
    rejects
        Numbers of samples that are not crystals, by reason.
    seconds
        Seconds of training, sampling, relaxation and evaluation by name; those of a process that was killed are not
        included.
    force_calls
        Number of force calls.
    """

    number: int
    drawn: int
    valid: int
    unique: int
    relaxed: int | None
    evaluated: int
    within: int
    new: int
    share: float
    mean: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    checked: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    learned: Mapping[str, int] = field(default_factory=dict)
    rejects: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    force_calls: int = 0


class RoundFolder:
    """Folder of one round.

    Parameters
    ----------
    directory
        Run directory.
    number
        Number of the round, from 1.
    """

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self.path = directory / f"round-{number}"
        make_folder(self.path, key="--directory")

    @property
    def account(self) -> RoundAccount | None:
        """The account, if the round is complete."""
        record = read_record(self.path / ACCOUNT)
        return None if record is None else RoundAccount(**record)

    def crystals(self) -> list[Atoms]:
        """Return the evaluated crystals of the complete round."""
        return read_frames(self.path / CRYSTALS)


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a JSON object; ``None`` if there is no such file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        record = read_json(path)
    except UnreadableError as error:
        raise InputError("--directory", path, reason=f"it cannot be read: {error.reason}") from error
    if not isinstance(record, dict):
        raise InputError("--directory", path, "a JSON object")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object, which appears when it is complete."""
    with atomic_write(path, key="--directory") as file:
        file.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def write_account(folder: RoundFolder, account: RoundAccount) -> None:
    """Write the account of a round, which completes it."""
    write_record(folder.path / ACCOUNT, asdict(account))


def read_frames(path: Path) -> list[Atoms]:
    """Return the structures of a file; none if it does not exist."""
    if not path.exists():
        return []
    return [frame.atoms for frame in read_structures(path) if isinstance(frame, Frame)]


def write_frames(path: Path, crystals: Sequence[Atoms]) -> None:
    """Write structures to a file; without any, an existing file is removed."""
    if not crystals:
        path.unlink(missing_ok=True)
        return
    with structure_writer(path, key="--directory", follow=False) as write:
        for atoms in crystals:
            write(atoms)


def check_same_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new run directory, or check that they are those of an existing one.

    The number of rounds may differ: a finished design can be continued.

    Raises
    ------
    InputError
        If the directory belongs to something else or to a design with other settings.
    """
    known = read_record(directory / SETTINGS)
    wanted = {"format": FORMAT, **settings}
    if known is None:
        if any(entry.name != LOCK for entry in directory.iterdir()):
            reason = f"it holds other files, and no {SETTINGS}; choose a new directory"
            raise InputError("--directory", directory, reason=reason)
        write_record(directory / SETTINGS, wanted)
        return
    plain = json.loads(json.dumps(wanted))
    different = [key for key in {**known, **plain} if key != "rounds" and known.get(key) != plain.get(key)]
    if different:
        reason = f"it holds a design with another {', '.join(different)}; repeat that command or choose a new directory"
        raise InputError("--directory", directory, reason=reason)
