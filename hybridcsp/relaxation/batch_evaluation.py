"""Evaluation of several structures at once, as far as memory allows, in which each structure fails alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ase import Atoms

from hybridcsp.relaxation.calculators.server.batch import BatchCalculator
from hybridcsp.utils.interrupts import exits_contained

#: Results of one structure by name, or the exception that its evaluation alone raises.
Results: TypeAlias = dict[str, Any] | Exception


class BatchEvaluator:
    """Divide structures into batches that fit into memory, and evaluate these with a batch calculator.

    If there is not enough memory for a batch, its halves are evaluated, and from then on no larger ones. If a batch
    fails as a whole for another reason, each of its structures is evaluated alone, so that only those fail that are the
    reason.

    Parameters
    ----------
    calculator
        The calculator.

    Attributes
    ----------
    max_atoms
        Largest number of atoms that are evaluated at once, except for one structure alone; ``None`` for no limit.
    """

    def __init__(self, calculator: BatchCalculator) -> None:
        self._calculator = calculator
        self.max_atoms = calculator.max_atoms_at_once

    def evaluate(self, structures: Sequence[Atoms]) -> list[Results]:
        """Return the results of structures, or the exceptions that they raise, in order."""
        results: list[Results] = []
        for batch in self._batches(structures):
            results += self._evaluate(batch)
        return results

    def _batches(self, structures: Sequence[Atoms]) -> Iterator[list[Atoms]]:
        """Divide structures into as few batches as the limit allows, without changing their order."""
        batch: list[Atoms] = []
        size = 0
        for atoms in structures:
            if batch and self.max_atoms is not None and size + len(atoms) > self.max_atoms:
                yield batch
                batch, size = [], 0
            batch.append(atoms)
            size += len(atoms)
        if batch:
            yield batch

    def _evaluate(self, batch: list[Atoms]) -> list[Results]:
        try:
            with exits_contained():
                results = self._calculator.calculate_batch(batch)
            if len(results) != len(batch):
                raise ValueError(f"the calculator returned {len(results)} results for {len(batch)} structures")
        except MemoryError as error:
            if len(batch) == 1:
                return [error]
            self.max_atoms = max(1, sum(map(len, batch)) // 2)
        except Exception as error:  # noqa: BLE001 - a calculator may raise anything, and none of it may end a search
            if len(batch) == 1:
                return [error]
            return [result for atoms in batch for result in self._evaluate([atoms])]
        else:
            return list(results)
        return self.evaluate(batch)
