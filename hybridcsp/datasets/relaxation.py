"""Relaxation of the crystals of a data set with any calculator, by the workers of searches; it can be resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.outcomes import Failed, FailureReason, Relaxed
from hybridcsp.core.records import RELAX, Candidate, Job, Limits, Proposal
from hybridcsp.datasets.cards import Tally, make_card, write_card
from hybridcsp.datasets.relaxed_files import RelaxedFiles
from hybridcsp.errors import InputError, RelaxationsFailedError
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.relaxation_folders import FAILED, RELAXED
from hybridcsp.io.structure_files import read_structures
from hybridcsp.relaxation.backends.base import Backend
from hybridcsp.relaxation.backends.executors import LOCAL, build_executor
from hybridcsp.relaxation.batch import open_pool
from hybridcsp.relaxation.batch_size import batch_size, check_batch_calculator, check_batch_executor, read_batch
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.dft.chosen import check_elements
from hybridcsp.relaxation.calculators.registry import (
    CalculatorLike,
    check_calculator,
    prepare_calculator,
    try_calculator,
)
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.utils.resources import available_cores

#: Source and operator of the candidates, which name them in errors and progress.
SOURCE = "dataset"

#: Number of failures of the calculator without a single success after which the relaxation stops.
STOP_AFTER_FAILURES = 20

#: Reason for which a crystal has failed whose relaxation ended before it converged.
UNCONVERGED = "unconverged"

#: Properties of a crystal before its relaxation are kept under their names behind this if a relaxation changes them.
START = "start_"

# Names of properties that depend on the structure, pressure or calculator of an energy, and where they occur in names.
_CHANGED = re.compile(
    "energy|energies|enthalpy|hull|volume|density|space_?group|pressure_gpa"
    "|^(height|calculator|known_phase|multiplicity|disagrees)$|^(objective|search|follow_up)_",
    re.IGNORECASE,
)

# Notes of an earlier relaxation, which the new one replaces.
_REPLACED = ("number", "force_calls", "relaxation_seconds", "volume_ratio", "reason", "detail")

# Longest time in s to wait for outcomes before progress is reported again.
_PATIENCE = 1.0

# Arrays of a crystal that a relaxation starts with, besides its structure.
_INITIAL = ("initial_magmoms", "initial_charges")

# Failures that are the calculator's and not the crystal's.
_OF_CALCULATOR = (FailureReason.CALCULATOR, FailureReason.WRONG_RESULTS, FailureReason.WORKER_DIED)


@dataclass(kw_only=True)
class RelaxationProgress:
    """Progress of the relaxation of a data set.

    Attributes
    ----------
    total
        Number of crystals.
    relaxed, failed
        Numbers of crystals that have converged and failed, those of earlier runs included.
    earlier
        Number of crystals with an outcome of an earlier run, which this run does not repeat.
    ended
        Number of outcomes of this run.
    reasons
        Numbers of failures in this run by reason.
    force_calls
        Force calls of this run.
    seconds
        Seconds of this run.
    starting
        Number of workers that are building their calculators.
    """

    total: int
    relaxed: int = 0
    failed: int = 0
    earlier: int = 0
    ended: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    force_calls: int = 0
    seconds: float = 0.0
    starting: int = 0

    @property
    def done(self) -> int:
        """Number of crystals that are not left for this run."""
        return self.earlier + self.ended

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time that the others take; ``None`` before the first outcome of this run."""
        return (self.total - self.done) * self.seconds / self.ended if self.ended else None


def relax_crystals(
    crystals: Sequence[Atoms],
    folder: Path | str,
    *,
    calculator: CalculatorLike = "chgnet",
    settings: RelaxationSettings | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    executor: str = LOCAL,
    batch: int | str = 1,
    retry_failed: bool = False,
    on_progress: Callable[[RelaxationProgress], None] = lambda _: None,
) -> RelaxationProgress:
    """Relax crystals, and write each outcome to a folder as soon as it arrives.

    The same call continues after an interruption, ``kill -9`` included: crystals with an outcome are not repeated.
    Crystals are relaxed in their order; of each, the atoms, cell, initial magnetic moments and charges, and ``info``
    are used. Properties in ``info`` that a relaxation changes (energies, heights above a hull, pressure, volume, space
    group and the like) are those of the start afterwards: they are written with ``start_`` before their names.

    Parameters
    ----------
    crystals
        Crystals, periodic in three dimensions.
    folder
        Folder of the outcomes (:mod:`hybridcsp.datasets.relaxed_files`).
    calculator
        Name of a calculator, a choice, an ASE calculator, or a function that returns one.
    settings
        Pressure and convergence criteria.
    limits
        Limits of each relaxation.
    workers
        Number of worker processes. Default: one per core; on a cluster as many as it has.
    executor
        Where the relaxations run, as in a search: ``"local"`` or a cluster, such as ``"dask:ADDRESS"``.
    batch
        Number of crystals that each worker relaxes at the same time with a batch calculator, such as CHGNet or MACE, or
        ``"auto"``. Outcomes do not depend on it, apart from rounding.
    retry_failed
        Whether crystals that failed earlier are relaxed again; their new outcomes are appended.
    on_progress
        Called after every outcome, and about once a second.

    Returns
    -------
    RelaxationProgress
        The final counts.

    Raises
    ------
    InputError, CalculatorError
        If the folder holds another relaxation, or the calculator cannot be built.
    RelaxationsFailedError
        If nothing but failures of the calculator has come back.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from hybridcsp.datasets import relax_crystals
    >>> relax_crystals([bulk("Cu", a=3.7)], "cu", calculator="emt").relaxed  # doctest: +SKIP
    1
    """
    settings = settings or RelaxationSettings()
    limits = limits or Limits()
    if not crystals:
        raise InputError("crystals", "none", "at least one crystal")
    check_calculator(calculator)
    check_elements(calculator, sorted({symbol for atoms in crystals for symbol in atoms.symbols}))
    build_executor(executor)
    batch = read_batch(batch)
    check_batch_calculator(batch, calculator)
    check_batch_executor(batch, executor)
    prepare_calculator(calculator)
    try_calculator(calculator)
    about = {
        "calculator": str(CalculatorChoice.of(calculator)),
        "settings": dataclasses.asdict(settings),
        "limits": dataclasses.asdict(limits),
        "crystals": len(crystals),
        "sha256": hash_of(crystals),
    }
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  # links are kept; workers of a cluster begin elsewhere
    with RelaxedFiles(folder, about) as files:
        ended = files.relaxed | (set() if retry_failed else files.failed)
        left = [number for number in range(len(crystals)) if number not in ended]
        progress = RelaxationProgress(total=len(crystals), earlier=len(ended))
        _count(progress, files)
        on_progress(progress)
        if not left:
            return progress
        relaxer = Relaxer(calculator=calculator, settings=settings, folder=folder)
        count = min(workers or (available_cores() if executor == LOCAL else len(left)), len(left))
        size = min(batch_size(batch, CalculatorChoice.of(calculator)), -(-len(left) // count))
        with open_pool(executor, relaxer, workers=count, size=size, log_directory=folder / "workers") as pool:
            _run(pool, crystals, left, limits, settings.pressure_gpa, files, progress, on_progress)
        return progress


def hash_of(crystals: Sequence[Atoms]) -> str:
    """Return a SHA-256 hash of the elements, cells and positions (to 1e-6 Å) of crystals.

    Initial magnetic moments and charges are part of it for crystals that have them.
    """
    digest = hashlib.sha256()
    for atoms in crystals:
        digest.update(np.asarray(atoms.numbers, dtype="<i4").tobytes())
        for array in (atoms.cell.array, atoms.positions):
            digest.update((np.rint(np.asarray(array) * 1e6) + 0).astype("<i8").tobytes())
        for name in _INITIAL:
            if atoms.has(name):
                digest.update(name.encode())
                digest.update((np.round(np.asarray(atoms.get_array(name), dtype=float), 6) + 0).astype("<f8").tobytes())
    return digest.hexdigest()


def _run(
    pool: Backend,
    crystals: Sequence[Atoms],
    left: Sequence[int],
    limits: Limits,
    pressure_gpa: float,
    files: RelaxedFiles,
    progress: RelaxationProgress,
    on_progress: Callable[[RelaxationProgress], None],
) -> None:
    begun = time.monotonic()
    waiting = iter(left)
    running: set[int] = set()
    only_failures: Counter[str] = Counter()
    has_succeeded = bool(files.relaxed)

    def fill() -> None:
        while len(running) < pool.capacity and (number := next(waiting, None)) is not None:
            running.add(number)
            pool.submit(_job(number, crystals[number], limits))

    fill()
    while running:
        for outcome in pool.completed(timeout=_PATIENCE):
            number = outcome.candidate.id
            running.discard(number)
            reason = _record(files, number, crystals[number], outcome, pressure_gpa)
            progress.ended += 1
            progress.force_calls += outcome.cost.force_calls
            has_succeeded |= not isinstance(outcome, Failed)
            if reason:
                progress.reasons[reason] += 1
            if isinstance(outcome, Failed) and outcome.reason in _OF_CALCULATOR:
                only_failures[f"{outcome.reason}: {outcome.detail}"[:400]] += 1
        _count(progress, files)
        progress.seconds = time.monotonic() - begun
        progress.starting = pool.starting
        if not has_succeeded and only_failures.total() >= STOP_AFTER_FAILURES:
            raise _all_failed(only_failures)
        fill()
        on_progress(progress)


def _count(progress: RelaxationProgress, files: RelaxedFiles) -> None:
    progress.relaxed, progress.failed = len(files.relaxed), len(files.failed - files.relaxed)


def _job(number: int, atoms: Atoms, limits: Limits) -> Job:
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True)
    for array in _INITIAL:
        if atoms.has(array):
            bare.set_array(array, atoms.get_array(array))
    candidate = Candidate(proposal=Proposal(atoms=bare, operator=SOURCE, given=True), id=number, source=SOURCE)
    return Job(candidate=candidate, atoms=bare, level=RELAX, limits=limits)


def _record(files: RelaxedFiles, number: int, start: Atoms, outcome: Relaxed | Failed, pressure_gpa: float) -> str:
    """Write an outcome; return the reason of a failure, or an empty text."""
    info = _kept(start.info)
    info |= {
        "pressure_gpa": pressure_gpa,
        "force_calls": outcome.cost.force_calls,
        "relaxation_seconds": round(outcome.cost.seconds, 3),
    }
    if isinstance(outcome, Relaxed):
        info |= _energies(outcome, start)
        final = _final(outcome)
        final.info = info
        if outcome.converged:
            files.add_relaxed(number, final)
            return ""
        final.info |= {"reason": UNCONVERGED, "detail": outcome.detail or "its limit of force calls was reached"}
        files.add_failed(number, final)
        return UNCONVERGED
    last = (start if outcome.atoms is None else outcome.atoms).copy()
    last.calc = None
    last.info = info | {"reason": str(outcome.reason), "detail": outcome.detail[:400] or "no details"}
    files.add_failed(number, last)
    return str(outcome.reason)


def _kept(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a start, renamed where they are not those of the relaxed crystal."""
    kept: dict[str, Any] = {}
    for key, value in info.items():
        if key in _REPLACED or key in all_properties or key.startswith(START):
            continue
        kept[START + key if _CHANGED.search(key) else key] = value
    return kept


def _energies(outcome: Relaxed, start: Atoms) -> Mapping[str, Any]:
    return {
        "calculator": outcome.evaluation.calculator,
        "energy_per_atom": outcome.evaluation.energy / len(outcome.atoms),
        "enthalpy_per_atom": outcome.enthalpy_per_atom,
        "volume_ratio": round(outcome.atoms.get_volume() / start.get_volume(), 6),
    }


def _final(outcome: Relaxed) -> Atoms:
    final = outcome.atoms.copy()
    known = outcome.atoms.calc.results if outcome.atoms.calc is not None else {}
    results = {name: known[name] for name in ("forces", "stress", "magmoms") if name in known}
    final.calc = SinglePointCalculator(final, energy=outcome.evaluation.energy, **results)
    return final


def _all_failed(failures: Counter[str]) -> RelaxationsFailedError:
    text, n = failures.most_common(1)[0]
    return RelaxationsFailedError(
        f"none of {failures.total()} relaxations has succeeded, {n} of them failed with {text}. Check that the "
        "calculator evaluates one of the crystals, and repeat the command with a new folder"
    )


def write_relaxation_card(
    folder: Path, *, inputs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the card of the converged crystals of a folder beside them, and return it.

    Parameters
    ----------
    folder
        Folder of a relaxation.
    inputs
        Records of the files of the crystals before relaxation.
    settings
        Calculator and settings of the relaxation.
    """
    tally, left_out = count_outcomes(folder)
    card = make_card("relax", settings=settings, inputs=inputs, left_out=left_out, tally=tally)
    write_card(card, folder / RELAXED, follow=False)
    return card


def count_outcomes(folder: Path) -> tuple[Tally, Counter[str]]:
    """Return the counts of the converged crystals of a folder, and of the others by reason.

    A crystal that has failed several times is counted once, with its last reason, and not at all once it has converged.
    """
    tally, left_out = Tally(), Counter[str]()
    relaxed: set[Any] = set()
    reasons: dict[Any, str] = {}
    for name in (RELAXED, FAILED):
        path = folder / name
        for frame in read_structures(path) if path.stat().st_size else ():
            if isinstance(frame, ReadFailure):
                left_out["not readable"] += 1
                continue
            number = frame.atoms.info.get("number")
            if name == RELAXED:
                relaxed.add(number)
                tally.add(frame.atoms)
            else:
                reasons[number] = frame.atoms.info.get("reason", "unknown")
    left_out.update(f"failed: {reason}" for number, reason in reasons.items() if number not in relaxed)
    return tally, left_out
