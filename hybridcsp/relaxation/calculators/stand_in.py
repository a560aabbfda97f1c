"""Base class of calculators that stand for another one, which computes elsewhere."""

from __future__ import annotations

from abc import abstractmethod

from ase.calculators.calculator import BaseCalculator


class StandInCalculator(BaseCalculator):  # type: ignore[misc]
    """Calculator that passes structures to another one, in another process or together with others."""

    @property
    @abstractmethod
    def class_name(self) -> str:
        """Name of the class of the other calculator."""


def class_name_of(calculator: BaseCalculator) -> str:
    """Return the name of the class of a calculator, and of that for which it stands."""
    return calculator.class_name if isinstance(calculator, StandInCalculator) else type(calculator).__name__
