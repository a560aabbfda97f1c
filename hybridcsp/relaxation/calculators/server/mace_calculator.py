"""MACE's calculator with checks of elements, a precision of its own, and evaluations of several structures at once.

This module imports torch and mace; it is imported only when a MACE calculator is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from mace import data
from mace.calculators import MACECalculator
from mace.tools import torch_geometric

from .batch import BatchCalculator
from .memory import memory_errors
from .models import check_elements

#: Largest number of atoms that are evaluated at once on a processor.
MAX_ATOMS_ON_CPU = 128


class CheckedMACECalculator(MACECalculator, BatchCalculator):  # type: ignore[misc]
    """MACE calculator that changes torch's default precision only during a calculation.

    Parameters
    ----------
    name
        Name of the model, for messages.
    default_dtype
        Precision, ``"float64"`` or ``"float32"``.
    **options
        Other arguments of MACE's calculator, with one model.
    """

    def __init__(self, name: str, *, default_dtype: str, **options: Any) -> None:
        super().__init__(default_dtype=default_dtype, **options)
        self._model_name, self._dtype = name, getattr(torch, default_dtype)
        if torch.device(self.device).type == "cpu":
            self.max_atoms_at_once = MAX_ATOMS_ON_CPU

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate all properties of a structure.

        Raises
        ------
        ValueError
            If the model does not know an element.
        MemoryError
            If there is not enough memory.
        """
        if atoms is not None:
            check_elements(f"the model {self._model_name}", atoms.numbers, self.z_table.zs)
        with self._precision(), memory_errors():
            super().calculate(atoms, properties, system_changes)

    def calculate_batch(self, structures: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
        """Return energy, forces and stress of each structure, or the error of an unknown element."""
        errors = [self._unknown_element(atoms) for atoms in structures]
        with self._precision(), memory_errors():
            found = iter(self._evaluated([atoms for atoms, error in zip(structures, errors) if error is None]))
        return [next(found) if error is None else error for error in errors]

    def _unknown_element(self, atoms: Atoms) -> ValueError | None:
        try:
            check_elements(f"the model {self._model_name}", atoms.numbers, self.z_table.zs)
        except ValueError as error:
            return error
        return None

    def _evaluated(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        if not structures:
            return []
        batch = torch_geometric.Batch.from_data_list([self._graph(atoms) for atoms in structures]).to(self.device)
        found = self.models[0](batch.to_dict(), compute_stress=True)
        energies, forces, stresses = (
            found[key].detach().cpu().numpy().astype(float) for key in ("energy", "forces", "stress")
        )
        ends = np.cumsum([len(atoms) for atoms in structures])
        return [
            {
                "energy": float(energy),
                "free_energy": float(energy),
                "forces": own,
                "stress": full_3x3_to_voigt_6_stress(stress),
            }
            for energy, own, stress in zip(energies, np.split(forces, ends[:-1]), stresses)
        ]

    def _graph(self, atoms: Atoms) -> Any:
        """Return the graph of a structure as MACE's calculator makes it."""
        keys = data.KeySpecification(info_keys=self.info_keys, arrays_keys=self.arrays_keys)
        config = data.config_from_atoms(atoms, key_specification=keys, head_name=self.head)
        return data.AtomicData.from_config(config, z_table=self.z_table, cutoff=self.r_max, heads=self.available_heads)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
