"""DFT files that stand for the calculator of a search."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.core.registry import split_argument
from hybridcsp.errors import InputError
from hybridcsp.relaxation.calculators.choice import DFT, CalculatorChoice

if TYPE_CHECKING:
    from hybridcsp.relaxation.calculators.dft.settings import DFTFile


def is_dft(choice: CalculatorChoice) -> bool:
    """Return whether a DFT file stands for the calculator of a choice."""
    return isinstance(choice.calculator, str) and choice.calculator.partition(":")[0] == DFT


def dft_file(choice: CalculatorChoice) -> DFTFile:
    """Return the DFT file that stands for the calculator of a choice.

    Raises
    ------
    InputError
        If it cannot be read or contains a mistake.
    """
    from hybridcsp.relaxation.calculators.dft.codes import read_dft_file  # imports the interface to a code

    _, argument = split_argument(str(choice.calculator), "calculator")
    if argument is None:
        raise InputError("calculator", choice.calculator, "the path of a DFT file, such as dft.toml")
    return read_dft_file(Path(argument))


def check_elements(spec: Any, elements: Iterable[str], *, magnetic: bool = False) -> None:
    """Check that a calculator can compute structures of elements, as far as a DFT file says it.

    Parameters
    ----------
    spec
        The calculator, as a search may be given it; ``None`` for none.
    elements
        Chemical symbols.
    magnetic
        Whether the structures have initial magnetic moments.

    Raises
    ------
    InputError
        If a DFT file has no pseudopotential of an element, or would ignore the moments.
    """
    choice = None if spec is None else CalculatorChoice.of(spec)
    if choice is not None and is_dft(choice):
        dft_file(choice).check_elements(elements, magnetic=magnetic)
