"""Computation of the values of objectives for a relaxed structure, in the worker that has relaxed it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ase import Atoms
from ase.calculators.calculator import Calculator

from hybridcsp.core.records import Cost, Limits
from hybridcsp.errors import message_of
from hybridcsp.objectives.base import Objective
from hybridcsp.objectives.values import real_value
from hybridcsp.relaxation.guards import Evaluated, GuardedCalculator, JobEnded
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.utils.interrupts import exits_contained

#: Largest number of characters of a reason that is recorded.
_LONGEST = 200

#: Shortest time in s that an objective has, however long the relaxation took.
_LEAST_SECONDS = 1.0


def evaluate_objectives(
    objectives: Mapping[str, Objective],
    atoms: Atoms,
    evaluated: Evaluated,
    calculator: Calculator,
    limits: Limits,
    settings: RelaxationSettings,
) -> tuple[dict[str, float], dict[str, str], Cost]:
    """Return the values of objectives, the reasons for which others are missing, and the cost.

    Nothing that an objective does ends the job: an error, a value that is no finite number, and more force calls or
    seconds than the limits allow are reasons for which its value is missing.

    Parameters
    ----------
    objectives
        Objectives by name.
    atoms
        The relaxed structure.
    evaluated
        Its geometry with its results, which objectives get without another evaluation.
    calculator
        The calculator that has relaxed it.
    limits
        Limits of each objective: as many force calls as a relaxation has, and the seconds that are left to the job.
    settings
        Settings of the relaxation.
    """
    values: dict[str, float] = {}
    failures: dict[str, str] = {}
    cost = Cost()
    for name, objective in objectives.items():
        copied = atoms.copy()
        guarded = GuardedCalculator(calculator, copied, limits, settings)
        guarded.return_to(evaluated, copied)
        copied.calc = guarded
        try:
            left = max(_LEAST_SECONDS, limits.seconds - cost.seconds)
            with exits_contained(), _interrupted_after(left):
                values[name] = real_value(objective.value(copied))
        except JobEnded as end:
            failures[name] = end.detail[:_LONGEST]
        except Exception as error:  # noqa: BLE001 - code of the user may fail in any way, and none of it may end a search
            failures[name] = message_of(error)[:_LONGEST]
        cost += Cost(force_calls=guarded.force_calls, seconds=guarded.seconds)
    return values, failures, cost


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in Python code that takes longer; outside the main thread the block is not limited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"it took longer than the {seconds:.3g} s that were left to the job")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
