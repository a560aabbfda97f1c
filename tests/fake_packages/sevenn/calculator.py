"""Calculator with a tiny equivariant network."""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from ase.calculators.calculator import Calculator
from e3nn.o3 import Irreps, Linear, spherical_harmonics

import sevenn._keys as KEY  # noqa: N812 - as in sevenn
from sevenn.nn.convolution import IrrepsConvolution

CUTOFF = 4.0
ELEMENTS = [8, 13, 22, 28, 29]


class Embedding(torch.nn.Module):
    def __init__(self, modals):
        super().__init__()
        self.modals = modals

    def forward(self, data):
        data[KEY.EDGE_VEC].requires_grad_(True)
        lengths = data[KEY.EDGE_VEC].norm(dim=1)
        waves = torch.sin(lengths[:, None] * torch.arange(1, 9) * np.pi / CUTOFF) / lengths[:, None]
        data[KEY.EDGE_EMBEDDING] = waves * (1 - (lengths / CUTOFF) ** 2)[:, None] ** 2
        data[KEY.EDGE_ATTR] = spherical_harmonics("0e+1e+2e", data[KEY.EDGE_VEC], True, "component")
        known = torch.tensor(ELEMENTS)
        one_hot = (data[KEY.ATOMIC_NUMBERS][:, None] == known).float()  # in single precision, as in SevenNet
        data[KEY.NODE_FEATURE] = one_hot + (self.modals.index(data[KEY.DATA_MODALITY]) if self.modals else 0)
        return data


class Mix(torch.nn.Module):
    def __init__(self, irreps_in, irreps_out):
        super().__init__()
        self.linear = Linear(irreps_in, irreps_out)

    def forward(self, data):
        data[KEY.NODE_FEATURE] = self.linear(data[KEY.NODE_FEATURE])
        return data


class Readout(torch.nn.Module):
    def forward(self, data):
        data[KEY.ATOMIC_ENERGY] = data[KEY.NODE_FEATURE].tanh().sum(dim=1) - 3
        data[KEY.PRED_TOTAL_ENERGY] = data[KEY.ATOMIC_ENERGY].sum()
        vectors = data[KEY.EDGE_VEC]
        gradient = torch.autograd.grad(data[KEY.PRED_TOTAL_ENERGY], vectors)[0]
        forces = torch.zeros(len(data[KEY.NODE_FEATURE]), 3, dtype=vectors.dtype)
        first, second = data[KEY.EDGE_IDX]
        data[KEY.PRED_FORCE] = forces.index_add(0, first, gradient).index_add(0, second, -gradient)
        virial = vectors.T @ gradient
        data[KEY.PRED_STRESS] = -virial[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]] / data[KEY.CELL_VOLUME]
        return data


def network(seed, modals):
    torch.manual_seed(seed)
    scalars, features = Irreps("5x0e"), Irreps("4x0e+2x1e+1x2e")
    edges = Irreps("0e+1e+2e")
    layers = [Embedding(modals)]
    for inputs, outputs in ((scalars, features), (features, Irreps("4x0e"))):
        convolution = IrrepsConvolution(inputs, edges, outputs, [8, 6], 5.0)
        layers += [convolution, Mix(convolution.convolution.irreps_out, outputs)]
    return torch.nn.Sequential(*layers, Readout())


class SevenNetCalculator(Calculator):
    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, model, file_type="checkpoint", device="auto", modal=None):
        super().__init__()
        warnings.warn("No tensor product accelerator is enabled", stacklevel=2)
        print("converting the model")  # noqa: T201
        checkpoint = json.loads(Path(model).read_text())
        if checkpoint["modals"] and not modal:
            raise ValueError(f"modal argument missing (avail: {checkpoint['modals']})")
        if modal and modal not in checkpoint["modals"]:
            raise ValueError(f"unknown modal {modal} (not in {checkpoint['modals']})")
        self.model = network(**checkpoint)
        self.modal, self.device = modal, torch.device("cpu" if device == "auto" else device)
        self.cutoff, self.type_map = CUTOFF, {number: index for index, number in enumerate(ELEMENTS)}

    def output_to_results(self, output):
        energy = output[KEY.PRED_TOTAL_ENERGY].item()
        return {
            "energy": energy,
            "free_energy": energy,
            "forces": output[KEY.PRED_FORCE].detach().numpy(),
            "stress": -output[KEY.PRED_STRESS].detach().numpy()[[0, 1, 2, 4, 5, 3]],
        }

    def calculate(self, atoms=None, properties=None, system_changes=()):
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        super().calculate(atoms, properties, system_changes)
        data = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, self.cutoff))
        if self.modal:
            data[KEY.DATA_MODALITY] = self.modal
        self.results = self.output_to_results(self.model(data))
