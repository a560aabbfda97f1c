"""CHGNet calculator for relaxations: the same results as CHGNet's own, about three times as fast.

CHGNet's own ASE calculator [1]_ differentiates twice (forces, then stress), keeps the graph of the derivatives as for
training, computes gradients of all parameters, and builds its graph from one Python object per bond. Here the
parameters are frozen, the graph is built with array operations, and one backward pass to the bond vectors gives forces
and stress. The first layer of each gated network is applied to atoms and bonds before they are gathered into messages,
because there are many more messages than atoms and bonds.

This module imports torch and CHGNet; it is imported only when a CHGNet calculator is built.

References
----------
.. [1] B. Deng et al., "CHGNet as a pretrained universal neural network potential for charge-informed atomistic
   modelling", Nature Machine Intelligence 5, 1031 (2023), DOI 10.1038/s42256-023-00716-3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model.dynamics import CHGNetCalculator
from chgnet.model.model import CHGNet
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres

from hybridcsp.errors import CalculatorError
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.utils.quiet import quiet

_log = logging.getLogger(__name__)

# Largest difference between CHGNet and this module, both in single precision, at which this module is used.
_SELF_CHECK_TOLERANCE = {"energy": 1e-5, "forces": 1e-4, "stress": 1e-5, "magmoms": 1e-4}


def build_chgnet(
    argument: str | None = None, *, device: str | None = None, precision: str | None = None
) -> tuple[Calculator, str]:
    """Build the fast calculator, or CHGNet's own if its internals differ from those that this module supports.

    Parameters
    ----------
    argument
        Not used.
    device
        Name of a torch device, for example ``"cuda"``; the CPU if not given.
    precision
        ``"float32"``, the default, or ``"float64"``.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, for example ``"chgnet 0.3.0 (chgnet 0.4.2)"``.

    Raises
    ------
    CalculatorError
        If the precision is ``"float64"`` and CHGNet's own calculator, which has single precision, must be used.
    """
    torch.set_num_threads(1)
    device = device or "cpu"
    with quiet():
        model = CHGNet.load(use_device=device, verbose=False)
        theirs = QuietCHGNetCalculator(model=model, use_device=device, on_isolated_atoms="error")
    label = f"chgnet {model.version} (chgnet {version('chgnet')}"
    crystal = _test_crystal()
    expected = {name: theirs.get_property(name, crystal) for name in _SELF_CHECK_TOLERANCE}
    try:
        ours = FastCHGNetCalculator(model)
        obstacle = _first_difference(ours, crystal, expected)
    except (AttributeError, KeyError, TypeError, RuntimeError, IndexError) as error:
        obstacle = f"CHGNet's internals have changed ({type(error).__name__}: {error})"
    if precision == "float64":  # compared above in single precision, in which CHGNet's own calculator computes
        if obstacle:
            raise CalculatorError(f"chgnet: float64 is not available, because {obstacle}; use float32")
        return FastCHGNetCalculator(model.double()), f"{label}, float64)"
    if obstacle:
        _log.warning("%s: using its own, slower calculator", obstacle)
        return theirs, f"{label}, its own calculator)"
    return ours, f"{label})"


def _test_crystal() -> Atoms:
    """Return a small crystal without symmetry, on which two calculators are compared."""
    atoms = bulk("NiO", "rocksalt", a=4.2)
    deformation = np.array([[1.03, 0.01, 0.0], [0.0, 0.98, 0.02], [0.0, 0.0, 1.01]])
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.positions[1] += [0.1, -0.05, 0.2]
    return atoms


def _first_difference(ours: Calculator, atoms: Atoms, theirs: dict[str, Any]) -> str:
    """Compare a calculator with results; return a description of the first difference, or an empty string."""
    for name, tolerance in _SELF_CHECK_TOLERANCE.items():
        expected = np.asarray(theirs[name], dtype=float)
        if name == "stress":
            expected = expected.reshape(-1)
        found = np.asarray(ours.get_property(name, atoms), dtype=float)
        if found.shape != expected.shape or not np.abs(found - expected).max() <= tolerance:
            return f"the fast CHGNet differs from CHGNet ({name} {found.tolist()} instead of {expected.tolist()})"
    return ""


class QuietCHGNetCalculator(CHGNetCalculator):  # type: ignore[misc]
    """CHGNet's own calculator without terminal output."""

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] | None = None
    ) -> None:
        """Calculate all properties at once.

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
    """CHGNet with energy, forces, stress and magnetic moments from one backward pass.

    Parameters
    ----------
    model
        A CHGNet; its parameters are frozen. Its device and precision are those of the calculation.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmoms")

    def __init__(self, model: CHGNet) -> None:
        super().__init__()
        self._network = _FrozenCHGNet(model)
        self._radius = float(model.graph_converter.atom_graph_cutoff)
        self._short = float(model.graph_converter.bond_graph_cutoff)
        self._reference_energies = model.composition_model.fc.weight.detach().cpu().numpy().astype(float).ravel()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate all properties at once.

        Raises
        ------
        IsolatedAtomsError
            If an atom has no neighbour within CHGNet's cutoff.
        """
        super().calculate(atoms, properties, system_changes)
        numbers, n_atoms = self.atoms.numbers, len(self.atoms)
        graph = bond_graph(self.atoms.cell.array, self.atoms.positions, self._radius, self._short)
        if n_isolated := n_atoms - len(np.unique(graph.centre)):
            raise IsolatedAtomsError(f"{n_isolated} of {n_atoms} atoms have no neighbour within {self._radius:g} Å")
        energy, gradient, magmoms = self._network.evaluate(numbers, graph)
        forces = np.zeros((n_atoms, 3))
        first = graph.first
        np.add.at(forces, graph.neighbour[first], -gradient)
        np.add.at(forces, graph.centre[first], gradient)
        total = energy + float(self._reference_energies[numbers - 1].sum())
        self.results = {
            "energy": total,
            "free_energy": total,
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(graph.vectors.T @ gradient) / self.atoms.get_volume(),
            "magmoms": magmoms,
        }


@dataclass(frozen=True)
class BondGraph:
    """Bonds within CHGNet's cutoff and angles between short bonds.

    Attributes
    ----------
    centre, neighbour
        Indices of the atoms of each directed bond, shape ``(n_bonds,)``; each bond occurs once in both directions.
    undirected
        Index of the undirected bond of each directed bond, shape ``(n_bonds,)``; the short bonds come first.
    first
        Index of the first directed bond of each undirected bond, shape ``(n_undirected,)``.
    vectors
        Vectors from centre to neighbour of ``first`` in Å, shape ``(n_undirected, 3)``.
    n_short
        Number of short undirected bonds.
    left, right
        Indices of the directed bonds of each angle, which start at the same atom, shape ``(n_angles,)``.
    """

    centre: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    undirected: NDArray[np.int64]
    first: NDArray[np.int64]
    vectors: NDArray[np.float64]
    n_short: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def bond_graph(lattice: NDArray[Any], positions: NDArray[Any], radius: float, short: float) -> BondGraph:
    """Return the graph of a crystal as ``chgnet.graph.CrystalGraphConverter`` defines it.

    Parameters
    ----------
    lattice
        Lattice vectors in rows, shape ``(3, 3)``, in Å.
    positions
        Cartesian, shape ``(n_atoms, 3)``, in Å.
    radius, short
        Largest length of bonds, and of bonds with angles, in Å.
    """
    positions, lattice = np.ascontiguousarray(positions, dtype=float), np.ascontiguousarray(lattice, dtype=float)
    periodic = np.ones(3, dtype=np.int64)
    centre, neighbour, image, distance = find_points_in_spheres(
        positions, positions, r=radius, pbc=periodic, lattice=lattice, tol=1e-8
    )
    bonds = distance > 1e-8  # not an atom with itself
    centre, neighbour, distance, image = centre[bonds], neighbour[bonds], distance[bonds], image[bonds]
    reverse = _reverse_bonds(centre, neighbour, image.astype(np.int64))
    index = np.arange(len(centre))
    first = index[index < reverse]
    first = first[np.argsort(distance[first] >= short, kind="stable")]
    undirected = np.empty_like(index)
    undirected[first] = undirected[reverse[first]] = np.arange(len(first))
    left, right = _angles(centre, distance, short)
    vectors = positions[neighbour[first]] + image[first] @ lattice - positions[centre[first]]
    n_short = int((distance[first] < short).sum())
    return BondGraph(centre, neighbour, undirected, first, vectors, n_short, left, right)


def _reverse_bonds(
    centre: NDArray[np.int64], neighbour: NDArray[np.int64], image: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the index of the reverse of each directed bond, shape ``(n_bonds,)``."""
    reach = int(np.abs(image).max(initial=0))
    width = 2 * reach + 1
    n_atoms = int(centre.max(initial=0)) + 1
    weights = np.array([width * width, width, 1])
    key = (centre * n_atoms + neighbour) * width**3 + (image + reach) @ weights
    reverse_key = (neighbour * n_atoms + centre) * width**3 + (reach - image) @ weights
    order = np.argsort(key)
    reverse: NDArray[np.int64] = order[np.searchsorted(key, reverse_key, sorter=order)]
    return reverse


def _angles(
    centre: NDArray[np.int64], distance: NDArray[np.float64], short: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all ordered pairs of short directed bonds that start at the same atom."""
    bonds = np.flatnonzero(distance < short)
    bonds = bonds[np.argsort(centre[bonds], kind="stable")]
    counts = np.bincount(centre[bonds])
    start = np.cumsum(counts) - counts
    partners = counts[centre[bonds]]
    left = np.repeat(np.arange(len(bonds)), partners)
    offset = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
    right = start[centre[bonds[left]]] + offset
    different = left != right
    return bonds[left[different]], bonds[right[different]]


class _GatedMessages:
    """Gated network of CHGNet on messages, each of which concatenates rows of several tables.

    A linear layer on a concatenation is a sum of linear layers on its parts; therefore these act on the tables.
    """

    def __init__(self, network: Any, n_parts: int) -> None:
        core, gate = (
            [layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear)]
            for mlp in (network.mlp_core, network.mlp_gate)
        )
        weight = torch.cat([core[0].weight, gate[0].weight])
        self._parts = [part.T.contiguous() for part in weight.chunk(n_parts, dim=1)]
        self._bias = torch.cat([core[0].bias, gate[0].bias])
        self._width = len(core[0].bias)
        self._second = (core[1], gate[1]) if len(core) == 2 else None
        self._network = network

    def __call__(self, *parts: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        """Return the messages for tables and the row of each table in each message (``None``: all rows in order)."""
        hidden = self._bias
        for weight, (table, rows) in zip(self._parts, parts, strict=True):
            product = table @ weight
            hidden = hidden + (product if rows is None else product.index_select(0, rows))
        if self._second is not None:
            hidden = self._network.activation(hidden)
        core, gate = hidden[:, : self._width], hidden[:, self._width :]
        if self._second is not None:
            core, gate = self._second[0](core), self._second[1](gate)
        network = self._network
        result: torch.Tensor = network.activation(network.bn1(core)) * network.sigmoid(network.bn2(gate))
        return result


class _FrozenCHGNet:
    """The network of ``CHGNet._compute`` for one crystal as a function of the bond vectors."""

    def __init__(self, model: CHGNet) -> None:
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._model = model.eval().requires_grad_(False)
        self._atom = [(_GatedMessages(layer.twoBody_atom, 3), layer.mlp_out) for layer in model.atom_conv_layers]
        self._bond = [(_GatedMessages(layer.twoBody_bond, 4), layer.mlp_out) for layer in model.bond_conv_layers]
        # the output of CHGNet's last angle layer is not used
        self._angle = [_GatedMessages(layer.twoBody_bond, 4) for layer in model.angle_layers[:-1]]

    def evaluate(
        self, numbers: NDArray[Any], graph: BondGraph
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Return the energy in eV, its gradient with respect to the bond vectors in eV/Å, and the magnetic moments."""
        vectors = torch.tensor(graph.vectors, dtype=self._dtype, device=self._device, requires_grad=True)
        energy, magmoms = self(self._indices(numbers), vectors, graph)
        gradient = torch.autograd.grad(energy, vectors)[0]
        return float(energy), *(values.detach().cpu().numpy().astype(float) for values in (gradient, magmoms))

    def _indices(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64, copy=False)).to(self._device)

    def __call__(
        self, numbers: torch.Tensor, vectors: torch.Tensor, graph: BondGraph
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy without the reference energies of the elements, and the magnetic moments."""
        model, n_short = self._model, graph.n_short
        centre, neighbour, undirected, left, right = (
            self._indices(rows) for rows in (graph.centre, graph.neighbour, graph.undirected, graph.left, graph.right)
        )
        atoms = model.atom_embedding(numbers - 1)
        lengths = vectors.norm(dim=1)
        basis = model.bond_basis_expansion.rbf_expansion_ag(lengths)
        bonds = model.bond_embedding(basis)
        bond_weights = model.bond_weights_ag(basis).index_select(0, undirected)
        left_bond, right_bond, corner = undirected[left], undirected[right], centre[left]
        angle_weights = model.bond_weights_bg(model.bond_basis_expansion.rbf_expansion_bg(lengths[:n_short]))
        angle_weights = angle_weights.index_select(0, left_bond) * angle_weights.index_select(0, right_bond)
        angles = self._angle_features(
            vectors[:n_short] / lengths[:n_short, None], graph, left, right, left_bond, right_bond
        )
        magmoms = atoms
        for layer, (messages, output) in enumerate(self._atom):
            if layer == len(self._bond):
                magmoms = model.site_wise(atoms).abs().view(-1)
            update = messages((atoms, centre), (bonds, undirected), (atoms, neighbour)) * bond_weights
            atoms = atoms + output(torch.zeros_like(atoms).index_add(0, centre, update))
            if layer == len(self._bond) or not len(left):
                continue
            messages, output = self._bond[layer]
            short = bonds[:n_short]  # longer bonds have no angles and stay unchanged
            update = messages((short, left_bond), (short, right_bond), (angles, None), (atoms, corner)) * angle_weights
            short = short + output(torch.zeros_like(short).index_add(0, left_bond, update))
            bonds = torch.cat([short, bonds[n_short:]])
            if layer < len(self._angle):
                messages = self._angle[layer]
                angles = angles + messages((short, left_bond), (short, right_bond), (angles, None), (atoms, corner))
        return model.mlp(model.readout_norm(atoms)).sum(), magmoms

    def _angle_features(
        self,
        directions: torch.Tensor,
        graph: BondGraph,
        left: torch.Tensor,
        right: torch.Tensor,
        left_bond: torch.Tensor,
        right_bond: torch.Tensor,
    ) -> torch.Tensor:
        """Return the embedded angles; ``directions`` are unit vectors along the short undirected bonds."""
        sign = -directions.new_ones(len(graph.centre))
        sign[self._indices(graph.first)] = 1.0
        from_corner = directions.index_select(0, left_bond) * (sign[left] * sign[right])[:, None]
        basis = self._model.angle_basis_expansion(from_corner, directions.index_select(0, right_bond))
        features: torch.Tensor = self._model.angle_embedding(basis)
        return features
