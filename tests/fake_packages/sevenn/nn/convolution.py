"""Convolution of a network, with the attributes and the equations of SevenNet's."""

import torch
from e3nn.nn import FullyConnectedNet
from e3nn.o3 import Irreps, TensorProduct

import sevenn._keys as keys


class IrrepsConvolution(torch.nn.Module):
    def __init__(self, irreps_x, irreps_filter, irreps_out, hidden, denominator):
        super().__init__()
        self.denominator = torch.nn.Parameter(torch.tensor([denominator]))
        self.key_x, self.key_filter, self.key_weight_input = keys.NODE_FEATURE, keys.EDGE_ATTR, keys.EDGE_EMBEDDING
        self.key_edge_idx, self.is_parallel = keys.EDGE_IDX, False
        instructions, outputs = [], []
        for i, (mul, ir) in enumerate(irreps_x):
            for j, (_, ir_filter) in enumerate(irreps_filter):
                for ir_out in ir * ir_filter:
                    if ir_out in irreps_out:
                        instructions.append((i, j, len(outputs), "uvu", True))
                        outputs.append((mul, ir_out))
        outputs, order, _ = Irreps(outputs).sort()
        instructions = sorted(((i, j, order[k], *rest) for i, j, k, *rest in instructions), key=lambda one: one[2])
        self.convolution_kwargs = {
            "irreps_in1": irreps_x,
            "irreps_in2": irreps_filter,
            "irreps_out": outputs,
            "instructions": instructions,
            "shared_weights": False,
            "internal_weights": False,
        }
        self.convolution = TensorProduct(**self.convolution_kwargs)
        self.weight_nn = FullyConnectedNet([*hidden, self.convolution.weight_numel], torch.nn.functional.silu)

    def forward(self, data):
        weight = self.weight_nn(data[self.key_weight_input])
        target, source = data[self.key_edge_idx]
        x = data[self.key_x]
        message = self.convolution(x[source], data[self.key_filter], weight)
        data[self.key_x] = (
            torch.zeros(len(x), message.shape[1], dtype=x.dtype).index_add(0, target, message) / self.denominator
        )
        return data
