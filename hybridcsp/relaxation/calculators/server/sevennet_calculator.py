"""SevenNet's calculator with checks of the structure, one neighbour list for each geometry, and a choice of precision.

This module imports torch and sevenn; it is imported only when a SevenNet calculator is built.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import KEY, SevenNetCalculator
from sevenn.nn.convolution import IrrepsConvolution
from sevenn.train.dataload import unlabeled_atoms_to_graph

from .exceptions import BuildError, IsolatedAtomsError
from .models import check_elements
from .pair_convolution import PairConvolution, add_pairs

_log = logging.getLogger(__name__)

# Largest difference between the two kinds of convolution on a crystal of two atoms, in single precision, at which the
# faster one is used (eV, eV/Å and eV/Å³).
_TOLERANCES = {"energy": 1e-4, "forces": 1e-4, "stress": 1e-5}


def load_sevennet(path: Path, modal: str | None, *, device: str | None, precision: str | None) -> Calculator:
    """Load a checkpoint and return its calculator.

    Parameters
    ----------
    path
        A checkpoint of SevenNet, which may execute code.
    modal
        The functional, for a model that was trained on several.
    device, precision
        As in :func:`~hybridcsp.relaxation.calculators.server.sevennet.build_sevennet`.

    Raises
    ------
    BuildError
        If the functional is missing or unknown.
    """
    torch.set_num_threads(1)
    try:
        return CheckedSevenNetCalculator(
            model=str(path), file_type="checkpoint", device=device or "auto", modal=modal, precision=precision
        )
    except ValueError as error:
        if "modal" in str(error):
            raise BuildError(f"sevennet:{path}: {error}; write sevennet:{path}:FUNCTIONAL") from error
        raise


class CheckedSevenNetCalculator(SevenNetCalculator):  # type: ignore[misc]
    """SevenNet's calculator with checks of the structure and a choice of precision.

    Parameters
    ----------
    precision
        ``"float64"``, or ``None`` or ``"float32"`` for single precision.
    options
        Passed to SevenNet's calculator.
    """

    def __init__(self, *, precision: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.model.requires_grad_(False)
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        if self._dtype is torch.float64:
            self.model.double()
        own = dict(self.model.named_children())
        faster = _with_pairs(own)
        for modules in (own, faster):
            for module in modules.values():
                if self._dtype is torch.float64:  # some modules make tensors in single precision
                    module.register_forward_hook(_to_double)
        if difference := self._difference(own, faster):
            _log.warning("the faster convolution differs from sevenn's (%s): using sevenn's own", difference)
            self._use(own)

    def _difference(self, own: Mapping[str, Any], faster: Mapping[str, Any]) -> str:
        """Use faster modules and compare them with the model's own; return a description of the first difference."""
        if not faster:
            return ""
        atoms = _small_crystal(self.type_map)
        expected = self._results_of(atoms)
        self._use(faster)
        found = self._results_of(atoms)
        for name, tolerance in _TOLERANCES.items():
            if not np.abs(np.asarray(found[name]) - np.asarray(expected[name])).max() <= tolerance:
                return f"{name} {np.asarray(found[name]).tolist()} instead of {np.asarray(expected[name]).tolist()}"
        return ""

    def _use(self, modules: Mapping[str, Any]) -> None:
        for name, module in modules.items():
            setattr(self.model, name, module)

    def _results_of(self, atoms: Atoms) -> Mapping[str, Any]:
        self.calculate(atoms)
        results = dict(self.results)
        self.reset()
        return results

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """Calculate all properties at once.

        Raises
        ------
        IsolatedAtomsError
            If an atom has no neighbour within SevenNet's cutoff.
        ValueError
            If SevenNet does not know an element.
        """
        Calculator.calculate(self, atoms, properties, system_changes)
        check_elements("SevenNet", self.atoms.numbers, self.type_map)
        arrays = unlabeled_atoms_to_graph(self.atoms, self.cutoff, with_shift=False)
        n_atoms = len(self.atoms)
        if n_isolated := n_atoms - len(np.unique(arrays[KEY.EDGE_IDX][0])):
            raise IsolatedAtomsError(f"{n_isolated} of {n_atoms} atoms have no neighbour within {self.cutoff:g} Å")
        real = {key: value for key, value in arrays.items() if getattr(value, "dtype", None) == np.float64}
        data = AtomGraphData.from_numpy_dict(arrays)
        if self._dtype is torch.float64:
            for key, value in real.items():
                data[key] = torch.from_numpy(value)
        if self.modal:
            data[KEY.DATA_MODALITY] = self.modal
        data.to(self.device)
        add_pairs(data, data[KEY.EDGE_IDX], n_atoms)
        self.results = self.output_to_results(self.model(data))


def _with_pairs(modules: Mapping[str, Any]) -> dict[str, Any]:
    """Return faster convolutions by the names of those that they may replace.

    There are none if sevenn's internals differ from those that the faster convolution supports.
    """
    try:
        return {
            name: PairConvolution(module)
            for name, module in modules.items()
            if type(module) is IrrepsConvolution  # not those of an accelerator for GPUs
        }
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError, IndexError) as error:
        _log.warning("sevenn's internals have changed (%s): using its own, slower convolution", error)
        return {}


def _small_crystal(known: Iterable[int]) -> Atoms:
    """Return a deformed crystal of two atoms of elements that a model knows."""
    numbers = sorted(known)
    metal, other = (number if number in numbers else numbers[0] for number in (28, 8))
    atoms = bulk("NiO", "rocksalt", a=4.2)
    atoms.numbers[:] = [metal, other]
    deformation = np.array([[1.03, 0.01, 0.0], [0.0, 0.98, 0.02], [0.0, 0.0, 1.01]])
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.positions[1] += [0.1, -0.05, 0.2]
    return atoms


def _to_double(module: Any, inputs: Any, data: Any) -> Any:
    """Convert the tensors that a module has made to double precision."""
    for key, value in list(data.items()):
        if isinstance(value, torch.Tensor) and value.dtype is torch.float32:
            data[key] = value.double()
    return data
