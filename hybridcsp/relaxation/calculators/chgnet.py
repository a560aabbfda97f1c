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
from collections.abc import Sequence
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

from hybridcsp.errors import CalculatorError
from hybridcsp.relaxation.calculators.chgnet_graphs import BondGraph, bond_graph, joined_graph
from hybridcsp.relaxation.calculators.server.batch import BatchCalculator
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.calculators.server.memory import memory_errors
from hybridcsp.utils.quiet import quiet

_log = logging.getLogger(__name__)

# Largest difference between CHGNet and this module, both in single precision, at which this module is used.
_SELF_CHECK_TOLERANCE = {"energy": 1e-5, "forces": 1e-4, "stress": 1e-5, "magmoms": 1e-4}

#: Largest number of atoms that are evaluated at once on a processor. Measured for random TiO2: crystals of 6 atoms took
#: half of the processor time of single ones with 48 to 96 atoms at once, those of 12 to 18 atoms three quarters with 60
#: to 120, and both more again beyond, where the arrays exceed the caches.
MAX_ATOMS_ON_CPU = 96


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


class FastCHGNetCalculator(Calculator, BatchCalculator):  # type: ignore[misc]
    """CHGNet with energy, forces, stress and magnetic moments from one backward pass, of one crystal or of several.

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
        if self._network.device.type == "cpu":
            self.max_atoms_at_once = MAX_ATOMS_ON_CPU

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
        (results,) = self.calculate_batch([self.atoms])
        if isinstance(results, Exception):
            raise results
        self.results = results

    def calculate_batch(self, structures: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
        """Return all properties of each crystal, or an ``IsolatedAtomsError``; see :class:`BatchCalculator`."""
        graphs = [bond_graph(atoms.cell.array, atoms.positions, self._radius, self._short) for atoms in structures]
        isolated = [len(atoms) - len(np.unique(graph.centre)) for atoms, graph in zip(structures, graphs, strict=True)]
        sound = [index for index, count in enumerate(isolated) if not count]
        found = iter(self._evaluated([structures[index] for index in sound], [graphs[index] for index in sound]))
        return [
            IsolatedAtomsError(f"{count} of {len(atoms)} atoms have no neighbour within {self._radius:g} Å")
            if count
            else next(found)
            for atoms, count in zip(structures, isolated, strict=True)
        ]

    def _evaluated(self, crystals: Sequence[Atoms], graphs: Sequence[BondGraph]) -> list[dict[str, Any]]:
        """Return the properties of crystals without isolated atoms."""
        if not crystals:
            return []
        numbers = np.concatenate([atoms.numbers for atoms in crystals])
        graph = joined_graph(graphs, [len(atoms) for atoms in crystals])
        with memory_errors():
            energies, gradient, magmoms = self._network.evaluate(numbers, graph)
        energies += self._reference_energies[numbers - 1]
        forces = np.zeros((len(numbers), 3))
        np.add.at(forces, graph.neighbour[graph.first], -gradient)
        np.add.at(forces, graph.centre[graph.first], gradient)
        owners = np.repeat(np.arange(len(crystals)), [len(atoms) for atoms in crystals])
        owners_of_bonds = owners[graph.centre[graph.first]]
        virials = np.zeros((len(crystals), 3, 3))
        np.add.at(virials, owners_of_bonds, graph.vectors[:, :, None] * gradient[:, None, :])
        results = []
        for index, atoms in enumerate(crystals):
            own = owners == index
            total = float(energies[own].sum())
            results.append(
                {
                    "energy": total,
                    "free_energy": total,
                    "forces": forces[own],
                    "stress": full_3x3_to_voigt_6_stress(virials[index]) / atoms.get_volume(),
                    "magmoms": magmoms[own],
                }
            )
        return results


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
    """The network of ``CHGNet._compute`` as a function of the bond vectors, which are those of any number of crystals.

    Attributes
    ----------
    device
        The device on which it computes.
    """

    def __init__(self, model: CHGNet) -> None:
        parameter = next(model.parameters())
        self.device, self._dtype = parameter.device, parameter.dtype
        self._model = model.eval().requires_grad_(False)
        self._atom = [(_GatedMessages(layer.twoBody_atom, 3), layer.mlp_out) for layer in model.atom_conv_layers]
        self._bond = [(_GatedMessages(layer.twoBody_bond, 4), layer.mlp_out) for layer in model.bond_conv_layers]
        # the output of CHGNet's last angle layer is not used
        self._angle = [_GatedMessages(layer.twoBody_bond, 4) for layer in model.angle_layers[:-1]]

    def evaluate(
        self, numbers: NDArray[Any], graph: BondGraph
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the energy of each atom in eV, the gradient of their sum and the magnetic moments.

        The gradient is that with respect to the bond vectors, in eV/Å, shape ``(n_undirected, 3)``.
        """
        vectors = torch.tensor(graph.vectors, dtype=self._dtype, device=self.device, requires_grad=True)
        energies, magmoms = self(self._indices(numbers), vectors, graph)
        gradient = torch.autograd.grad(energies.sum(), vectors)[0]
        found = (values.detach().cpu().numpy().astype(float) for values in (energies, gradient, magmoms))
        energy_of_atoms, gradient_of_bonds, moments = found
        return energy_of_atoms, gradient_of_bonds, moments

    def _indices(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64, copy=False)).to(self.device)

    def __call__(
        self, numbers: torch.Tensor, vectors: torch.Tensor, graph: BondGraph
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energies of atoms without the reference energies of the elements, and the magnetic moments."""
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
        return model.mlp(model.readout_norm(atoms)).view(-1), magmoms

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
