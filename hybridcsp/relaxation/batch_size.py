"""The number of structures that a worker relaxes at the same time: its values, its default, and who can do it."""

from __future__ import annotations

from typing import Any

from ase.calculators.calculator import BaseCalculator

from hybridcsp.core.registry import OURS
from hybridcsp.errors import InputError
from hybridcsp.relaxation.backends.executors import LOCAL
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.interpreters import find_interpreter
from hybridcsp.relaxation.calculators.registry import CALCULATORS, CalculatorLike
from hybridcsp.relaxation.calculators.server.batch import BatchCalculator

#: Value that leaves the number to hybridcsp.
AUTO = "auto"

#: Numbers that it chooses. On a processor, more than about 64 atoms at once gain nothing, and on average less than half
#: of the relaxations of a search are still running. A GPU needs many structures to be busy; the number is not measured.
ON_PROCESSOR = 16
ON_GPU = 256

#: Calculators of hybridcsp that are batch calculators, in its own interpreter.
BATCH_CALCULATORS = ("chgnet", "mace")

_ALLOWED = f'a whole number from 1, or "{AUTO}"'


def read_batch(value: Any) -> int | str:
    """Return the number of structures as an ``int``, or ``"auto"``.

    Parameters
    ----------
    value
        A whole number, its digits, or ``"auto"``.

    Raises
    ------
    InputError
        If it is something else.
    """
    if value == AUTO:
        return AUTO
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError("batch", value, _ALLOWED)
    return value


def batch_size(batch: int | str, choice: CalculatorChoice) -> int:
    """Return the number of structures that a worker relaxes at the same time.

    Parameters
    ----------
    batch
        The number, or ``"auto"``.
    choice
        The calculator with its device.
    """
    if batch != AUTO:
        return int(batch)
    return ON_PROCESSOR if choice.device in (None, "cpu") else ON_GPU


def check_batch_calculator(batch: int | str, spec: CalculatorLike) -> None:
    """Check that a calculator can evaluate several structures at once, as far as that is known before it is built.

    Those of other packages, modules and functions are checked when the workers build them.

    Parameters
    ----------
    batch
        The number of structures, for the error.
    spec
        The calculator, which :func:`~hybridcsp.relaxation.calculators.registry.check_calculator` has accepted.

    Raises
    ------
    InputError
        If it cannot.
    """
    if batch == 1:
        return
    choice = CalculatorChoice.of(spec)
    calculator = choice.calculator
    if isinstance(calculator, BaseCalculator):
        able, shown = isinstance(calculator, BatchCalculator), type(calculator).__name__
    elif isinstance(calculator, str):
        name = calculator.partition(":")[0]
        entry = CALCULATORS.entries().get(name)
        ours = entry is not None and entry.package == OURS
        able = find_interpreter(choice) is None and (not ours or name in BATCH_CALCULATORS)
        shown = f"{calculator} in another interpreter" if name in BATCH_CALCULATORS else calculator
    else:
        return
    if not able:
        names = " and ".join(BATCH_CALCULATORS)
        reason = (
            f"it needs a batch calculator, and the calculator {shown} evaluates one structure after the other; leave "
            f"batch out, or use {names} in the interpreter of hybridcsp or a calculator that inherits BatchCalculator"
        )
        raise InputError("batch", batch, reason=reason)


def check_batch_executor(batch: int | str, executor: str) -> None:
    """Check that relaxations run on an executor whose workers can relax several structures at the same time.

    Parameters
    ----------
    batch
        The number of structures, for the error.
    executor
        Name of the executor.

    Raises
    ------
    InputError
        If they run on a cluster.
    """
    if batch != 1 and executor != LOCAL:
        reason = f"it needs worker processes of this machine (the executor {LOCAL}), and the executor is {executor}"
        raise InputError("batch", batch, reason=reason)
