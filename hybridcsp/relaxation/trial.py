"""Trial of a calculator: the relaxation of one small crystal that it can handle."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from hybridcsp.core.outcomes import Evaluation, Failed, FailureReason, Relaxed
from hybridcsp.core.records import EVALUATE, RELAX, Candidate, Job, Limits, Proposal
from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends.pool import WorkerPool
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.utils.activity import announce

#: Force calls after which a trial is given up; the crystals below need about ten.
MAX_FORCE_CALLS = 200

# Reasons of failures that another crystal may not have: the calculator does not know an element, or treats it oddly.
_OF_THE_CRYSTAL = (
    FailureReason.CALCULATOR,
    FailureReason.NON_FINITE,
    FailureReason.FORCE_EXPLOSION,
    FailureReason.OVERLAP,
    FailureReason.ISOLATED_ATOMS,
    FailureReason.VOLUME,
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Result of a trial.

    Attributes
    ----------
    crystal
        Chemical formula of the unit cell.
    n_atoms
        Number of atoms in it.
    failures
        Reasons for which other crystals or this one failed, by formula.
    seconds_to_start
        Time in s in which the worker started and built the calculator.
    before
        Evaluation of the crystal before the relaxation.
    after
        Outcome of the relaxation; ``None`` if every crystal failed.
    seconds_per_call
        Wall time in s of one evaluation after the relaxation, when everything is loaded; ``None`` if it failed.
    """

    crystal: str
    n_atoms: int
    failures: dict[str, str]
    seconds_to_start: float
    before: Evaluation | None = None
    after: Relaxed | None = None
    seconds_per_call: float | None = None

    @property
    def passed(self) -> bool:
        """Whether a crystal was relaxed until it converged."""
        return self.after is not None and self.after.converged


def trial_crystals() -> list[Atoms]:
    """Return small crystals of common elements, expanded by 1 % and with one atom displaced by 0.1 Å.

    Each has two atoms, so that a trial of a DFT code is affordable.
    """
    copper = Atoms("Cu2", cell=[2.553, 2.553, 3.61], scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], pbc=True)
    crystals = [
        copper,
        bulk("Si", "diamond", a=5.43),
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("MgO", "rocksalt", a=4.21),
        bulk("C", "diamond", a=3.57),
        bulk("GaN", "zincblende", a=4.50),
    ]
    return [displaced(crystal) for crystal in crystals]


def displaced(crystal: Atoms) -> Atoms:
    """Return a crystal expanded by 1 %, whose first atom is displaced by 0.1 Å."""
    atoms = crystal.copy()
    atoms.set_cell(1.01 * np.asarray(atoms.cell), scale_atoms=True)
    atoms.positions[0] += 0.1 / np.sqrt(3)
    return atoms


def crystal_of(element: str) -> Atoms:
    """Return a small crystal of one element: that of ASE's reference state, or one close-packed atom.

    Raises
    ------
    InputError
        If there is no such element.
    """
    if element not in atomic_numbers or element == "X":
        raise InputError("element", element, "the symbol of an element")
    try:
        return displaced(bulk(element))
    except (ValueError, KeyError, TypeError, RuntimeError, NotImplementedError):  # molecules and odd lattices
        length = 2.2 * float(covalent_radii[atomic_numbers[element]])
        return bulk(element, "fcc", a=np.sqrt(2) * length)


def run_single_point(
    calculator: CalculatorLike, crystal: Atoms, *, seconds: float, folder: Path
) -> tuple[Relaxed | Failed, float]:
    """Evaluate a crystal once in a worker process; return the outcome and the seconds until the worker was ready.

    Parameters
    ----------
    calculator
        The calculator.
    crystal
        The crystal.
    seconds
        Longest time in s in which the worker must start, and longest time of the evaluation.
    folder
        Folder in which a calculator that writes files works, and for the output of the worker.

    Raises
    ------
    CalculatorError
        If the calculator cannot be built.
    BackendError
        If the worker does not start in time.
    """
    announce("starting the calculator")
    start = time.monotonic()
    relaxer = Relaxer(calculator=calculator, folder=folder)
    with WorkerPool(relaxer, workers=1, log_directory=folder / "log", start_timeout=seconds) as pool:
        pool.wait_ready()
        seconds_to_start = time.monotonic() - start
        announce(f"computing {crystal.get_chemical_formula()}")
        return _outcome(pool, crystal, EVALUATE, 1, Limits(force_calls=1, seconds=seconds)), seconds_to_start


def run_trial(
    calculator: CalculatorLike,
    *,
    crystals: Sequence[Atoms] = (),
    seconds: float = 300.0,
    log_directory: Path | None = None,
) -> Trial:
    """Relax the first crystal that a calculator can handle, in a worker process.

    Parameters
    ----------
    calculator
        The calculator.
    crystals
        Crystals to try in succession; those of :func:`trial_crystals` by default.
    seconds
        Longest time in s in which the worker must start, and longest time of the relaxation.
    log_directory
        Folder of the output of the worker; by default it is discarded.

    Raises
    ------
    CalculatorError
        If the calculator cannot be built.
    BackendError
        If the worker does not start in time.
    """
    limits = Limits(force_calls=MAX_FORCE_CALLS, seconds=seconds)
    failures: dict[str, str] = {}
    announce("starting the calculator")
    start = time.monotonic()
    with WorkerPool(
        Relaxer(calculator=calculator), workers=1, log_directory=log_directory, start_timeout=seconds
    ) as pool:
        pool.wait_ready()
        seconds_to_start = time.monotonic() - start
        for number, atoms in enumerate(crystals or trial_crystals(), 1):
            crystal = atoms.get_chemical_formula(empirical=True)
            announce(f"relaxing {crystal}")
            before = _outcome(pool, atoms, EVALUATE, number, limits)
            after = _outcome(pool, atoms, RELAX, number, limits) if isinstance(before, Relaxed) else before
            if isinstance(before, Relaxed) and isinstance(after, Relaxed):
                again = _outcome(pool, atoms, EVALUATE, number, limits)
                return Trial(
                    crystal=crystal,
                    n_atoms=len(atoms),
                    failures=failures,
                    seconds_to_start=seconds_to_start,
                    before=before.evaluation,
                    after=after,
                    seconds_per_call=again.cost.seconds if isinstance(again, Relaxed) else None,
                )
            assert isinstance(after, Failed)
            failures[crystal] = after.detail or str(after.reason)
            if after.reason not in _OF_THE_CRYSTAL:
                break
    return Trial(crystal=crystal, n_atoms=len(atoms), failures=failures, seconds_to_start=seconds_to_start)


def _outcome(pool: WorkerPool, atoms: Atoms, level: str, number: int, limits: Limits) -> Relaxed | Failed:
    candidate = Candidate(id=number, proposal=Proposal(atoms=atoms, operator="trial"), source="trial")
    pool.submit(Job(candidate=candidate, atoms=atoms, level=level, limits=limits))
    return pool.completed(None)[0]
