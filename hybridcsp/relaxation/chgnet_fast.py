"""CHGNet with one backward pass.

CHGNet's own ASE calculator differentiates twice (forces, then stress), keeps the graph of the derivatives for a
training loss that never comes, carries gradients of all parameters along, and builds its graph from one Python object
per bond. Here the parameters are frozen, the graph is built with array operations, and one backward pass gives forces
and strain.

This module imports torch and CHGNet; it is loaded only when a CHGNet calculator is built.

References
----------
.. [1] B. Deng et al., "CHGNet as a pretrained universal neural network potential for charge-informed atomistic
   modelling", Nature Machine Intelligence 5, 1031 (2023), DOI 10.1038/s42256-023-00716-3.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model.dynamics import CHGNetCalculator
from chgnet.model.model import BatchedGraph, CHGNet
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres

from hybridcsp.relaxation.calculators import IsolatedAtomsError, quiet

_log = logging.getLogger(__name__)

# What CHGNet and this module may differ by before this module is considered broken: both run in single precision.
_SELF_CHECK_TOLERANCE = {"energy": 1e-5, "forces": 1e-4, "stress": 1e-5, "magmoms": 1e-4}


def build_chgnet(argument: str | None = None) -> tuple[Calculator, str]:
    """Build the fast calculator, or CHGNet's own where its internals are not the ones this module knows.

    Parameters
    ----------
    argument
        Not used; CHGNet takes none.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, for example ``"chgnet 0.3.0 (chgnet 0.4.2)"``.
    """
    torch.set_num_threads(1)
    with quiet():
        model = CHGNet.load(use_device="cpu", verbose=False)
        theirs = QuietCHGNetCalculator(model=model, use_device="cpu", on_isolated_atoms="error")
    label = f"chgnet {model.version} (chgnet {version('chgnet')}"
    try:
        ours = FastCHGNetCalculator(model)
        difference = _largest_difference(ours, theirs)
    except (AttributeError, KeyError, TypeError, RuntimeError, IndexError) as error:
        _log.warning(
            "CHGNet's internals have changed (%s: %s): using its own, slower calculator", type(error).__name__, error
        )
        return theirs, f"{label}, its own calculator)"
    if difference:
        _log.warning("the fast CHGNet differs from CHGNet (%s): using its own, slower calculator", difference)
        return theirs, f"{label}, its own calculator)"
    return ours, f"{label})"


def _largest_difference(ours: Calculator, theirs: Calculator) -> str:
    """Compare on a small crystal; return what differs and by how much, or an empty string."""
    atoms = bulk("NiO", "rocksalt", a=4.2)
    deformation = np.array([[1.03, 0.01, 0.0], [0.0, 0.98, 0.02], [0.0, 0.0, 1.01]])
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.positions[1] += [0.1, -0.05, 0.2]
    for name, tolerance in _SELF_CHECK_TOLERANCE.items():
        expected = np.asarray(theirs.get_property(name, atoms), dtype=float)
        if name == "stress":
            expected = expected.reshape(-1)
        found = np.asarray(ours.get_property(name, atoms), dtype=float)
        if found.shape != expected.shape or not np.abs(found - expected).max() <= tolerance:
            return f"{name} {found.tolist()} instead of {expected.tolist()}"
    return ""


class QuietCHGNetCalculator(CHGNetCalculator):  # type: ignore[misc]
    """CHGNet's own calculator, kept off the terminal."""

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] | None = None
    ) -> None:
        """Calculate everything at once.

        Raises
        ------
        IsolatedAtomsError
            If an atom has no neighbour within CHGNet's cutoff.
        """
        with quiet():
            try:
                super().calculate(atoms, properties, system_changes)
            except ValueError as error:
                if "isolated atom" in str(error):
                    raise IsolatedAtomsError(str(error)) from error
                raise
        self.results["energy"] = float(self.results["energy"])
        self.results["free_energy"] = self.results["energy"]
        self.results["stress"] = full_3x3_to_voigt_6_stress(self.results["stress"])


class FastCHGNetCalculator(Calculator):  # type: ignore[misc]
    """CHGNet for relaxations: energy, forces, stress and magnetic moments from one backward pass.

    Parameters
    ----------
    model
        A CHGNet on the CPU; its parameters are frozen.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmoms")

    def __init__(self, model: CHGNet) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self._radius = float(model.graph_converter.atom_graph_cutoff)
        self._bond_radius = float(model.graph_converter.bond_graph_cutoff)
        self._reference_energies = model.composition_model.fc.weight.detach().numpy().astype(float).ravel()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate everything at once.

        Raises
        ------
        IsolatedAtomsError
            If an atom has no neighbour within CHGNet's cutoff.
        """
        super().calculate(atoms, properties, system_changes)
        numbers, lattice = self.atoms.numbers, self.atoms.cell.array
        n_atoms = len(numbers)
        edges = _directed_bonds(lattice, self.atoms.positions, self._radius)
        if n_isolated := n_atoms - len(np.unique(edges[0])):
            raise IsolatedAtomsError(f"{n_isolated} of {n_atoms} atoms have no neighbour within {self._radius:g} Å")
        strain = torch.zeros(3, 3, requires_grad=True)
        graph = self._graph(numbers, lattice, self.atoms.get_scaled_positions(wrap=False), edges, strain)
        prediction = self.model._compute(graph, compute_magmom=True)
        energy = prediction["e"].sum() * (n_atoms if self.model.is_intensive else 1)
        gradient, virial = torch.autograd.grad(energy, (graph.atom_positions[0], strain))
        total = float(energy) + float(self._reference_energies[numbers - 1].sum())
        self.results = {
            "energy": total,
            "free_energy": total,
            "forces": -gradient.numpy().astype(float),
            "stress": full_3x3_to_voigt_6_stress(virial.numpy().astype(float)) / abs(np.linalg.det(lattice)),
            "magmoms": prediction["m"][0].detach().numpy().astype(float),
        }

    def _graph(
        self, numbers: NDArray[Any], lattice: NDArray[Any], scaled: NDArray[Any], edges: _Bonds, strain: torch.Tensor
    ) -> BatchedGraph:
        """Return CHGNet's features of one crystal, differentiable with respect to positions and strain."""
        centre, neighbour, image, distance = edges
        undirected, first = _undirected_bonds(centre, neighbour, image)
        left, right = _angles(centre, distance, self._bond_radius)
        cell = torch.tensor(lattice, dtype=torch.float32) @ (torch.eye(3) + strain)
        positions = torch.tensor(scaled, dtype=torch.float32) @ cell
        bonds_ag, bonds_bg, directions = self.model.bond_basis_expansion(
            center=positions[torch.from_numpy(centre)],
            neighbor=positions[torch.from_numpy(neighbour)],
            undirected2directed=torch.from_numpy(first),
            image=torch.tensor(image, dtype=torch.float32),
            lattice=cell,
        )
        angles = torch.tensor([])
        bond_graph = np.empty((0, 3), dtype=np.int64)
        if len(left):
            angles = self.model.angle_basis_expansion(
                directions[torch.from_numpy(left)], directions[torch.from_numpy(right)]
            )
            bond_graph = np.stack([centre[left], undirected[left], undirected[right]], axis=1)
        return BatchedGraph(
            atomic_numbers=torch.tensor(numbers, dtype=torch.int64),
            bond_bases_ag=bonds_ag,
            bond_bases_bg=bonds_bg,
            angle_bases=angles,
            batched_atom_graph=torch.from_numpy(np.stack([centre, neighbour], axis=1)),
            batched_bond_graph=torch.from_numpy(bond_graph),
            atom_owners=torch.zeros(len(numbers), dtype=torch.int64),
            directed2undirected=torch.from_numpy(undirected),
            atom_positions=[positions],
            strains=[strain],
            volumes=torch.ones(1),  # only CHGNet's own stress divides by it
        )


_Bonds = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _directed_bonds(lattice: NDArray[Any], positions: NDArray[Any], radius: float) -> _Bonds:
    """Return centre, neighbour, image ``(n, 3)`` and length of every bond, each once from either end."""
    positions = np.ascontiguousarray(positions, dtype=float)
    periodic = np.ones(3, dtype=np.int64)
    lattice = np.ascontiguousarray(lattice, dtype=float)
    centre, neighbour, image, distance = find_points_in_spheres(
        positions, positions, r=radius, pbc=periodic, lattice=lattice, tol=1e-8
    )
    bonds = distance > 1e-8  # not an atom with itself
    return centre[bonds], neighbour[bonds], image[bonds].astype(np.int64), distance[bonds]


def _undirected_bonds(
    centre: NDArray[np.int64], neighbour: NDArray[np.int64], image: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the undirected bond of each directed one, and the first directed bond of each undirected one."""
    reach = int(np.abs(image).max(initial=0))
    width = 2 * reach + 1
    n_atoms = int(centre.max(initial=0)) + 1
    weights = np.array([width * width, width, 1])
    key = (centre * n_atoms + neighbour) * width**3 + (image + reach) @ weights
    reverse_key = (neighbour * n_atoms + centre) * width**3 + (reach - image) @ weights
    order = np.argsort(key)
    reverse = order[np.searchsorted(key, reverse_key, sorter=order)]
    index = np.arange(len(centre))
    is_first = index < reverse
    number = np.cumsum(is_first) - 1
    return number[np.minimum(index, reverse)], index[is_first]


def _angles(
    centre: NDArray[np.int64], distance: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all ordered pairs of directed bonds that are shorter than ``radius`` and start at the same atom."""
    short = np.flatnonzero(distance < radius)
    short = short[np.argsort(centre[short], kind="stable")]
    counts = np.bincount(centre[short])
    start = np.cumsum(counts) - counts
    partners = counts[centre[short]]
    left = np.repeat(np.arange(len(short)), partners)
    offset = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
    right = start[centre[short[left]]] + offset
    different = left != right
    return short[left[different]], short[right[different]]
