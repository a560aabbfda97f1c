"""Rounds of a search with a potential that learns: settings, accounts, and the choice of what is calculated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed
from hybridcsp.errors import InputError
from hybridcsp.potentials.architecture import SIZES
from hybridcsp.potentials.calculator import UNCERTAIN
from hybridcsp.similarity import StructureIndex
from hybridcsp.utils.checks import finite_number, whole_number
from hybridcsp.workflows.design_rounds import read_record, write_record

#: Names of the files and folders of a run directory and of its rounds.
SETTINGS, LOCK, SELECTED = "learned-search.json", "learned-search.lock", "selected"
SEARCH, POTENTIAL, ACCOUNT, CHECKPOINT = "search", "potential", "account.json", "checkpoint.safetensors"

#: Reasons for which a structure is calculated, in the ``info`` of the selected structures.
START, PROMISING, UNSURE = "start", "promising", "uncertain"

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class LearningPlan:
    """Represent the settings of a search with a potential that learns.

    Attributes
    ----------
    rounds
        Number of rounds after the start.
    start
        Number of structures that the expensive calculator relaxes before the first training.
    relaxations
        Number of relaxations with the committee in each round.
    selected
        Largest number of structures that the expensive calculator relaxes after each round.
    uncertain
        Share of ``selected`` for structures at which relaxations ended because the committee was uncertain.
    window
        Energy in eV/atom above the best minimum of the committee below which its minima are promising.
    limit
        Uncertainty of forces in eV/Å above which a relaxation with the committee ends.
    max_steps
        Largest number of force calls of a relaxation with the expensive calculator.
    seconds
        Longest time of a relaxation with the expensive calculator.
    members, size, most, epochs
        Number of networks of the committee, name of their size, and largest numbers of structures and of epochs of a
        training.
    seed
        Random seed.

    Raises
    ------
    InputError
        If a value is outside its range.
    """

    rounds: int = 4
    start: int = 10
    relaxations: int = 60
    selected: int = 8
    uncertain: float = 0.25
    window: float = 0.1
    limit: float = 0.3
    max_steps: int = 40
    seconds: float = 14400.0
    members: int = 3
    size: str = "small"
    most: int = 600
    epochs: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"start": 4, "max_steps": 2, "members": 2, "most": 10, "seed": 0}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type == "int":
                low = least.get(one.name, 1)
                whole_number(one.name, value, f"a whole number from {low}", low)
        finite_number("uncertain", self.uncertain, "a number from 0 to 1", 0.0, 1.0)
        for name in ("window", "limit", "seconds"):
            if finite_number(name, getattr(self, name), "a positive number", 0.0) <= 0:
                raise InputError(name, getattr(self, name), "a positive number")
        if self.size not in SIZES:
            raise InputError("size", self.size, f"one of {', '.join(SIZES)}")


@dataclass(frozen=True, kw_only=True)
class LearningAccount:
    """Account of one round; number 0 is the start.

    Attributes
    ----------
    number
        Number of the round.
    learned
        Number of structures that the committee has learned from; 0 at the start.
    errors
        Mean absolute errors on held-out trajectories: ``energy`` (eV/atom), ``forces`` (eV/Å), ``stress`` (eV/Å³).
    relaxed, stopped
        Numbers of relaxations with the committee that ended in a structure, and that ended because it was uncertain.
    committee_calls
        Number of force calls of the committee.
    selected
        Number of structures for the expensive calculator by reason.
    force_calls
        Number of force calls of the expensive calculator, in this round and before.
    minima
        Number of minima of the expensive calculator.
    best
        Lowest enthalpy by the expensive calculator in eV/atom; ``None`` if nothing has converged.
    """

    number: int
    learned: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    relaxed: int = 0
    stopped: int = 0
    committee_calls: int = 0
    selected: Mapping[str, int] = field(default_factory=dict)
    force_calls: int = 0
    minima: int = 0
    best: float | None = None


def round_folder(directory: Path, number: int) -> Path:
    """Return the folder of a round."""
    return directory / f"round-{number}"


def selected_file(directory: Path, number: int) -> Path:
    """Return the file of the structures that a round passes to the expensive calculator."""
    return directory / SELECTED / f"round-{number:03}.extxyz"


def read_account(directory: Path, number: int) -> LearningAccount | None:
    """Return the account of a round, if the round is complete."""
    record = read_record(round_folder(directory, number) / ACCOUNT)
    return None if record is None else LearningAccount(**record)


def write_account(directory: Path, account: LearningAccount) -> None:
    """Write the account of a round, which completes it."""
    write_record(round_folder(directory, account.number) / ACCOUNT, asdict(account))


def check_same_plan(directory: Path, plan: LearningPlan, others: Mapping[str, Any]) -> None:
    """Write the settings into a new run directory, or check that they are those of an existing one.

    The number of rounds may differ.

    Raises
    ------
    InputError
        If the directory belongs to something else, or to a search with other settings.
    """
    known = read_record(directory / SETTINGS)
    wanted = json.loads(json.dumps({"format": _FORMAT, **asdict(plan), **others}))
    if known is None:
        if any(entry.name != LOCK for entry in directory.iterdir()):
            reason = f"it holds other files, and no {SETTINGS}; choose a new directory"
            raise InputError("--directory", directory, reason=reason)
        write_record(directory / SETTINGS, wanted)
        return
    different = [key for key in {**known, **wanted} if key != "rounds" and known.get(key) != wanted.get(key)]
    if different:
        reason = f"it holds a search with another {', '.join(different)}; repeat that command or choose a new directory"
        raise InputError("--directory", directory, reason=reason)


def select(cheap: Archive, expensive: Archive, plan: LearningPlan) -> list[Atoms]:
    """Return the structures of a search with the committee that the expensive calculator should relax.

    Promising are the lowest minima within the window that are no minima of the expensive calculator yet, holes of the
    potential included: the committee must learn that they are none. Uncertain are the structures at which relaxations
    ended because the committee was uncertain. They fill the places that are kept for them, and those that are left.

    Parameters
    ----------
    cheap
        Archive of the search with the committee.
    expensive
        Archive of the search with the expensive calculator.
    plan
        Settings.

    Returns
    -------
    list of Atoms
        Bare structures with ``selected`` in ``info``: ``"promising"`` or ``"uncertain"``.
    """
    taken = StructureIndex(energy_window=None)
    for minimum in expensive.stream_minima():
        taken.add(len(taken), minimum.best.atoms)
    unsure = [one.atoms for one in cheap.history() if isinstance(one, Failed) and UNCERTAIN in one.detail]
    kept = min(len(unsure), round(plan.uncertain * plan.selected))
    minima = cheap.minima()
    sound = [minimum.enthalpy_per_atom for minimum in minima if not minimum.suspect]
    highest = min(sound, default=0.0) + plan.window
    promising = [minimum.best.atoms for minimum in minima if minimum.enthalpy_per_atom <= highest]
    found = _new(promising, plan.selected - kept, taken, PROMISING)
    return found + _new([one for one in unsure if one is not None], plan.selected - len(found), taken, UNSURE)


def _new(structures: Sequence[Atoms], most: int, taken: StructureIndex, why: str) -> list[Atoms]:
    """Return the first structures that are not in the index, and add them to it."""
    found: list[Atoms] = []
    for atoms in structures:
        if len(found) == most:
            break
        if taken.find(atoms) is None:
            taken.add(len(taken), atoms)
            bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
            bare.info["selected"] = why
            found.append(bare)
    return found
