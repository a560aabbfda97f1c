"""A batch calculator that is exact: EMT evaluates each structure of a batch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.emt import EMT

from hybridcsp.relaxation.calculators.server.batch import BatchCalculator


class BatchEMT(EMT, BatchCalculator):
    """EMT that records the numbers of structures in its batches, in ``sizes``."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def calculate_batch(self, structures: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
        self.sizes.append(len(structures))
        return [self.results_of(atoms) for atoms in structures]

    def results_of(self, atoms: Atoms) -> dict[str, Any] | Exception:
        calculator = EMT()
        try:
            calculator.calculate(atoms, ["energy", "forces", "stress"])
        except NotImplementedError as error:  # an element that EMT does not know
            return error
        return dict(calculator.results)
