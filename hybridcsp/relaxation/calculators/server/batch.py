"""The interface of calculators that evaluate several structures at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ase import Atoms


class BatchCalculator(ABC):
    """Ability of an ASE calculator to evaluate several structures at once; a second base class of the calculator.

    Attributes
    ----------
    max_atoms_at_once
        Largest number of atoms in one call of :meth:`calculate_batch`, except for one structure alone; ``None`` if only
        memory limits it. A processor needs a limit, because the process is killed when it uses too much memory; with
        that of a GPU one tries.

    Examples
    --------
    >>> from ase.calculators.emt import EMT
    >>> class BatchEMT(EMT, BatchCalculator):
    ...     def calculate_batch(self, structures):
    ...         return [self.get_properties(["energy", "forces", "stress"], atoms) for atoms in structures]
    """

    max_atoms_at_once: int | None = None

    @abstractmethod
    def calculate_batch(self, structures: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
        """Return the results of each structure, or the exception that evaluating it alone would raise.

        Parameters
        ----------
        structures
            One or more structures; they must not be changed.

        Returns
        -------
        list of dict or Exception
            One for each structure, in order. The results are those that the calculator has for the structure alone, up
            to rounding, with ASE's names, units and shapes.

        Raises
        ------
        MemoryError
            If there is not enough memory; fewer structures are tried then.
        Exception
            If all structures failed together for another reason; each of them is evaluated alone then.
        """
