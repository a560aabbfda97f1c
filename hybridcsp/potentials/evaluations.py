"""Evaluations from which potentials learn: structures with energies, forces and stresses of one calculator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.database import DATABASE
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.errors import InputError
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.io.structure_files import read_structures, structure_files
from hybridcsp.relaxation.evaluation_files import EVALUATIONS
from hybridcsp.relaxation.properties import PropertyError, results_of
from hybridcsp.similarity import compute_descriptors
from hybridcsp.utils.reading import sha256_of

#: Largest force in eV/Å of a structure from which potentials learn; atoms of structures above nearly overlap.
LARGEST_FORCE = 30.0

# Consecutive structures of a file belong to one trajectory if no atom moves by more than this (Å), and no component of
# the strain of the cell is larger.
_MOVE, _STRAIN = 0.8, 0.15


@dataclass(kw_only=True, eq=False)
class Evaluations:
    """Evaluated structures.

    Attributes
    ----------
    frames
        Structures with calculators that hold energy, forces and stress.
    trajectories
        Name of the trajectory of each structure. Structures of one trajectory are similar.
    calculator
        Label of the calculator; empty if the files do not name it.
    left_out
        Numbers of structures that cannot be used, by reason.
    inputs
        Names of what was read, with digests of files, for the card of a potential.
    """

    frames: list[Atoms] = field(default_factory=list)
    trajectories: list[str] = field(default_factory=list)
    calculator: str = ""
    left_out: Counter[str] = field(default_factory=Counter)
    inputs: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, indices: Iterable[int]) -> Evaluations:
        """Return some of the evaluations, by their indices."""
        chosen = list(indices)
        return Evaluations(
            frames=[self.frames[i] for i in chosen],
            trajectories=[self.trajectories[i] for i in chosen],
            calculator=self.calculator,
            left_out=self.left_out,
            inputs=self.inputs,
        )


def read_evaluations(
    paths: Sequence[Path], *, key: str = "data", progress: Callable[[int], None] = lambda _: None
) -> Evaluations:
    """Read the evaluations of searches and of files.

    Parameters
    ----------
    paths
        Run directories, files of structures and folders of them. Of a run directory, the ends of the relaxations are
        read, and all structures in its folder ``evaluations``, which ``hybridcsp search --keep-evaluations`` writes.
    key
        Name of the argument for error messages.
    progress
        Function that is called with the number of structures so far.

    Raises
    ------
    InputError
        If a path does not exist, there is no usable structure, or the energies are of several calculators.
    ArchiveError
        If a run directory cannot be read.
    """
    found = Evaluations()
    labels: dict[str, str] = {}
    known: set[bytes] = set()
    for path in paths:
        if not path.exists():
            raise InputError(key, path, reason="there is no such file or folder")
        before = len(found)
        record: dict[str, Any] = {"name": path.name}
        is_search = (path / DATABASE).exists()
        for atoms, trajectory in _of_search(path, found) if is_search else _of_files(path, found, record):
            _add(found, atoms, trajectory, known, labels)
            progress(len(found))
        found.inputs.append(record | {"evaluations": len(found) - before})
    if not found.frames:
        reasons = "; ".join(f"{n} {reason}" for reason, n in found.left_out.items()) or "there is none"
        shown = ", ".join(map(str, paths))
        raise InputError(key, shown, reason=f"no structure has an energy, forces and a stress ({reasons})")
    if len(labels) > 1:
        listed = "; ".join(f"{label or 'without a name'} of {where}" for label, where in labels.items())
        shown = ", ".join(map(str, paths))
        raise InputError(key, shown, reason=f"energies of different calculators are not mixed: {listed}")
    found.calculator = next(iter(labels))
    return found


def _add(found: Evaluations, atoms: Atoms, trajectory: str, known: set[bytes], labels: dict[str, str]) -> None:
    try:
        results = results_of(atoms)
    except PropertyError:
        found.left_out["without an energy"] += 1
        return
    missing = [name for name in ("forces", "stress") if name not in results]
    geometry = atoms.numbers.tobytes() + atoms.positions.round(6).tobytes() + atoms.cell.array.round(6).tobytes()
    if missing:
        found.left_out[f"without {' and '.join(missing)}"] += 1
    elif not atoms.pbc.all():
        found.left_out["not periodic in three dimensions"] += 1
    elif np.linalg.norm(results["forces"], axis=1).max() > LARGEST_FORCE:
        found.left_out[f"with a force above {LARGEST_FORCE:g} eV/Å"] += 1
    elif geometry in known:
        found.left_out["evaluated twice"] += 1
    else:
        known.add(geometry)
        frame = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        frame.calc = SinglePointCalculator(
            frame, energy=results["energy"], forces=results["forces"], stress=results["stress"]
        )
        found.frames.append(frame)
        found.trajectories.append(trajectory)
        labels.setdefault(str(atoms.info.get("calculator", "")), trajectory)


def _of_search(directory: Path, found: Evaluations) -> Iterator[tuple[Atoms, str]]:
    """Yield the kept evaluations of a search, and the ends of all relaxations by its calculator."""
    with Archive(directory) as archive:
        label = archive.state.calculator
        ends = [outcome for outcome in archive.history() if isinstance(outcome, Relaxed)]
    kept = directory / EVALUATIONS
    for file in structure_files(kept) if kept.is_dir() else []:
        for frame in read_structures(file):
            if isinstance(frame, ReadFailure):
                found.left_out["unreadable"] += 1
            elif frame.atoms.info.get("calculator") != label:  # of follow-ups and of earlier calculators
                found.left_out["by another calculator of the search"] += 1
            else:
                yield frame.atoms, f"{directory.name}, candidate {frame.atoms.info.get('candidate')}"
    for end in ends:
        if end.evaluation.calculator == label:
            atoms = end.atoms.copy()
            atoms.calc = end.atoms.calc
            atoms.info = {"calculator": label}
            yield atoms, f"{directory.name}, candidate {end.candidate.id}"


def _of_files(path: Path, found: Evaluations, record: dict[str, Any]) -> Iterator[tuple[Atoms, str]]:
    """Yield the structures of files, in which trajectories are recognised by their small steps."""
    digests = record.setdefault("sha256", [])
    for file in structure_files(path):
        digests.append(sha256_of(file))
        before: Atoms | None = None
        number = 0
        for frame in read_structures(file):
            if isinstance(frame, ReadFailure):
                found.left_out["unreadable"] += 1
                continue
            assert isinstance(frame, Frame)
            number += before is None or not _continues(before, frame.atoms)
            before = frame.atoms
            candidate = frame.atoms.info.get("candidate")
            yield frame.atoms, f"{file.name}, {f'trajectory {number}' if candidate is None else candidate}"


def _continues(before: Atoms, after: Atoms) -> bool:
    """Return whether a structure is the next step of a trajectory."""
    if len(before) != len(after) or (before.numbers != after.numbers).any() or before.cell.rank != 3:
        return False
    strain = np.linalg.solve(before.cell.array, after.cell.array) - np.eye(3)
    if np.abs(strain).max() > _STRAIN:
        return False
    moves = after.get_scaled_positions(wrap=False) - before.get_scaled_positions(wrap=False)
    moves -= np.rint(moves)
    return bool(np.linalg.norm(moves @ before.cell.array, axis=1).max() < _MOVE)


def diverse(frames: Sequence[Atoms], count: int) -> list[int]:
    """Return the indices of different structures by farthest-point sampling on their fingerprints.

    The first is the one of lowest energy per atom. Each further one has the largest distance to its nearest neighbour
    among those before it; between different compositions the distance is infinite.

    Parameters
    ----------
    frames
        Structures with calculators that hold their energies.
    count
        Number of structures; all are returned in their order if there are not more.

    Returns
    -------
    list of int
        Indices in ascending order.
    """
    if len(frames) <= count:
        return list(range(len(frames)))
    described = [compute_descriptors(atoms) for atoms in frames]
    members: dict[Any, list[int]] = {}
    for i, one in enumerate(described):
        members.setdefault(one.crystal.composition, []).append(i)
    points = {kind: np.array([described[i].fingerprint for i in own]) for kind, own in members.items()}
    chosen = [int(np.argmin([atoms.get_potential_energy() / len(atoms) for atoms in frames]))]
    nearest = np.full(len(frames), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        kind = described[last].crystal.composition
        own = members[kind]
        distances = np.linalg.norm(points[kind] - described[last].fingerprint, axis=1)
        nearest[own] = np.minimum(nearest[own], distances)
        nearest[last] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return sorted(chosen)
