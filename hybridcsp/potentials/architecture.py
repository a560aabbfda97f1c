"""MACE networks of chosen sizes, built with the modules of the package mace-torch.

MACE is described in doi:10.48550/arXiv.2206.07697. The networks are ``ScaleShiftMACE`` with the repulsion of Ziegler,
Biersack and Littmark between near atoms, which keeps relaxations out of overlaps that no training data show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from ase import Atoms

from hybridcsp.errors import CalculatorError, InputError, UnknownNameError
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.calculators.server.mace import mace_environment
from hybridcsp.relaxation.calculators.server.models import missing_package
from hybridcsp.utils.quiet import quiet

# Quantities of a graph that a network reads, and those that it is trained on.
_INPUTS = ("batch", "cell", "edge_index", "head", "node_attrs", "positions", "ptr", "shifts", "unit_shifts")
_LABELS = ("energy", "forces", "stress")


@dataclass(frozen=True, kw_only=True)
class MaceSizes:
    """Sizes of a MACE network.

    Attributes
    ----------
    channels
        Number of channels of each order of the features of atoms.
    order
        Largest order of the features that are passed between layers: 0 for scalars, 1 for vectors too.
    angular
        Largest order of the spherical harmonics of the bonds.
    correlation
        Number of neighbours whose products are formed; the body order is this number plus 1.
    interactions
        Number of layers.
    radial
        Number of Bessel functions of the bond lengths.
    cutoff
        Longest bond in Å.

    Raises
    ------
    InputError
        If a value is outside its range.
    """

    channels: int = 16
    order: int = 0
    angular: int = 2
    correlation: int = 2
    interactions: int = 2
    radial: int = 8
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _RANGES[field.name]
            kind = int | float if field.name == "cutoff" else int
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                allowed = "a number of Å" if field.name == "cutoff" else "a whole number"
                raise InputError(field.name, value, f"{allowed} from {low} to {high}")


_RANGES = {
    "channels": (1, 256),
    "order": (0, 2),
    "angular": (1, 4),
    "correlation": (1, 4),
    "interactions": (1, 4),
    "radial": (2, 32),
    "cutoff": (2.0, 10.0),
}

#: Sizes by name.
SIZES: Mapping[str, MaceSizes] = {
    "small": MaceSizes(),
    "medium": MaceSizes(channels=32, order=1, angular=3, correlation=3, cutoff=6.0),
}


def sizes_named(name: str) -> MaceSizes:
    """Return sizes by their name.

    Raises
    ------
    UnknownNameError
        If there are none.
    """
    if name not in SIZES:
        raise UnknownNameError("size", name, SIZES)
    return SIZES[name]


def check_mace() -> None:
    """Check that this interpreter can import MACE, without importing it.

    Raises
    ------
    CalculatorError
        If it is not installed.
    """
    if find_spec("mace") is None:
        raise CalculatorError(str(missing_package("mace", "it is not installed")))


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Represent what a network knows of its training data before it is trained.

    Attributes
    ----------
    numbers
        Atomic numbers of the elements in ascending order.
    atomic_energies
        Energy of an atom of each element in eV, by least squares over the energies of the crystals.
    scale
        Root mean square of the forces in eV/Å.
    neighbours
        Mean number of neighbours of an atom within the cutoff.
    """

    numbers: tuple[int, ...]
    atomic_energies: tuple[float, ...]
    scale: float
    neighbours: float

    def __post_init__(self) -> None:
        values = [*self.atomic_energies, self.scale, self.neighbours]
        if len(self.numbers) != len(self.atomic_energies) or not np.isfinite(values).all():
            raise ValueError("each element must have a finite energy")
        if not all(isinstance(number, int) and 0 < number < 119 for number in self.numbers):
            raise ValueError("the elements must be atomic numbers")
        if not (self.numbers and self.scale > 0 and self.neighbours > 0):
            raise ValueError("scale and number of neighbours must be positive")

    @classmethod
    def of(cls, frames: Sequence[Atoms], sizes: MaceSizes) -> Normalisation:
        """Return that of evaluated crystals.

        Raises
        ------
        InputError
            If no atom has a neighbour within the cutoff, or all forces are zero.
        """
        from ase.neighborlist import neighbor_list

        numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
        counts = np.array([[(atoms.numbers == number).sum() for number in numbers] for atoms in frames], dtype=float)
        energies = np.array([atoms.get_potential_energy() for atoms in frames])
        # Each crystal counts by its energy per atom. Without independent compositions, the shortest solution is taken.
        n_atoms = counts.sum(axis=1)
        atomic = np.linalg.lstsq(counts / n_atoms[:, None], energies / n_atoms, rcond=None)[0]
        scale = float(np.sqrt(np.mean(np.concatenate([atoms.get_forces().ravel() for atoms in frames]) ** 2)))
        bonds = sum(len(neighbor_list("i", atoms, sizes.cutoff)) for atoms in frames)
        if not bonds:
            raise InputError("cutoff", sizes.cutoff, reason="no atom has a neighbour within it")
        # Crystals whose forces vanish by symmetry have stresses, for which any scale of this order will do.
        return cls(
            numbers=tuple(numbers),
            atomic_energies=tuple(atomic.tolist()),
            scale=max(scale, 0.1),
            neighbours=float(bonds / n_atoms.sum()),
        )


def build_network(sizes: MaceSizes, normalisation: Normalisation, seed: int) -> torch.nn.Module:
    """Return a network in single precision with random weights."""
    # e3nn compiles parts of the network, with many warnings of torch about its own source code.
    with quiet(), mace_environment(), torch.random.fork_rng(devices=[]):
        from e3nn import o3
        from mace.modules import ScaleShiftMACE, interaction_classes

        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        block = interaction_classes["RealAgnosticResidualInteractionBlock"]
        hidden = " + ".join(f"{sizes.channels}x{order}{'eo'[order % 2]}" for order in range(sizes.order + 1))
        network: torch.nn.Module = ScaleShiftMACE(
            r_max=sizes.cutoff,
            num_bessel=sizes.radial,
            num_polynomial_cutoff=5,
            max_ell=sizes.angular,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=sizes.interactions,
            num_elements=len(normalisation.numbers),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.array(normalisation.atomic_energies),
            avg_num_neighbors=normalisation.neighbours,
            atomic_numbers=list(normalisation.numbers),
            correlation=sizes.correlation,
            gate=torch.nn.functional.silu,
            pair_repulsion=True,
            radial_MLP=[32, 32],
            atomic_inter_scale=normalisation.scale,
            atomic_inter_shift=0.0,
        )
        return network


def graph_of(atoms: Atoms, sizes: MaceSizes, numbers: Sequence[int], dtype: torch.dtype = torch.float32) -> Any:
    """Return the graph of a crystal, with its energy, forces and stress if a calculator holds them.

    Raises
    ------
    IsolatedAtomsError
        If an atom has no neighbour within the cutoff.
    """
    with quiet(), mace_environment():
        from mace.data import AtomicData, Configuration
        from mace.tools import AtomicNumberTable

        torch.set_default_dtype(dtype)
        results = {} if atoms.calc is None else atoms.calc.results
        properties = {name: np.asarray(results[name]) for name in _LABELS if name in results}
        if "stress" in properties:
            properties["stress"] = properties["stress"][[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
        given = Configuration(
            atomic_numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=(True, True, True),
            properties=properties,
            property_weights=dict.fromkeys(_LABELS, 1.0),
        )
        graph = AtomicData.from_config(given, z_table=AtomicNumberTable(list(numbers)), cutoff=sizes.cutoff)
    isolated = len(atoms) - len(torch.unique(graph.edge_index))
    if isolated:
        raise IsolatedAtomsError(f"{isolated} of {len(atoms)} atoms have no neighbour within {sizes.cutoff:g} Å")
    return graph


def batch_of(graphs: Sequence[Any], *, labels: bool) -> dict[str, torch.Tensor]:
    """Collate graphs into the tensors that a network reads, and those that it is trained on if ``labels`` is true."""
    with mace_environment():
        from mace.tools import torch_geometric

        batch = torch_geometric.Batch.from_data_list(list(graphs))
    names = (*_INPUTS, *_LABELS) if labels else _INPUTS
    return {name: batch[name] for name in names}
