"""The convolution of SevenNet in a small cell: one message for each pair of atoms instead of one for each bond.

In a small cell an atom has many images of the same neighbour within the cutoff. Their bonds carry the same features
of the neighbour, and differ in their radial weights and spherical harmonics alone, on which the message depends
linearly. Therefore the products of these two are added up for all bonds of a pair of atoms, before the tensor product
with the features, which takes most of the time. The results are the same within rounding.

This module imports torch and e3nn; it is imported only when a SevenNet calculator is built.
"""

from __future__ import annotations

from typing import Any

import torch
from e3nn.o3 import Irreps, TensorProduct

#: Keys of the pair of each bond and of the two atoms of each pair in a graph.
PAIR, PAIR_TARGET, PAIR_SOURCE = "pair", "pair_target", "pair_source"

#: Number of bonds for each pair of atoms from which messages of pairs are faster; measured with SevenNet-0 and l3i5.
BONDS_PER_PAIR = 3.0


def add_pairs(data: Any, edges: torch.Tensor, n_atoms: int) -> None:
    """Add the pairs of atoms to a graph if this makes its convolutions faster.

    Parameters
    ----------
    data
        The graph.
    edges
        Indices of target and source of each bond, shape ``(2, n_bonds)``.
    n_atoms
        Number of atoms.
    """
    pairs, pair = torch.unique(edges[0] * n_atoms + edges[1], return_inverse=True)
    if BONDS_PER_PAIR * len(pairs) <= edges.shape[1]:
        data[PAIR] = pair
        data[PAIR_TARGET] = torch.div(pairs, n_atoms, rounding_mode="floor")
        data[PAIR_SOURCE] = pairs % n_atoms


class PairConvolution(torch.nn.Module):  # type: ignore[misc]
    """Convolution with one message for each pair of atoms, or SevenNet's own for a graph without pairs.

    Parameters
    ----------
    convolution
        An ``IrrepsConvolution`` of SevenNet, with its final parameters.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.convolution = convolution
        layout = convolution.convolution_kwargs
        features, harmonics = Irreps(layout["irreps_in1"]), Irreps(layout["irreps_in2"])
        instructions = [tuple(one)[:3] for one in layout["instructions"]]
        *hidden, last = convolution.weight_nn
        self.hidden = torch.nn.Sequential(*hidden)
        # The last layer of the radial network is linear: it acts on the sum over the bonds. Its columns have the order
        # of the instructions.
        parameter = next(convolution.weight_nn.parameters())
        with torch.no_grad():
            identity = torch.eye(len(last.weight), dtype=parameter.dtype, device=parameter.device)
            columns = last(identity).split([features[one[0]].mul for one in instructions], dim=1)
        slots: list[tuple[int, Any]] = []
        new: list[tuple[int, int, int, str, bool]] = []
        self.slices: list[slice] = []
        for part, (_, harmonic) in enumerate(harmonics):
            chosen = [number for number, one in enumerate(instructions) if one[1] == part]
            self.register_buffer(f"radial_{part}", torch.cat([columns[number] for number in chosen], dim=1))
            self.slices.append(harmonics.slices()[part])
            for number in chosen:
                source, _, output = instructions[number]
                new.append((source, len(slots), output, "uuu", False))
                slots.append((features[source].mul, harmonic))
        self.product = TensorProduct(
            features, Irreps(slots), layout["irreps_out"], new, shared_weights=False, internal_weights=False
        ).to(parameter)

    def forward(self, data: Any) -> Any:
        """Replace the features of the atoms in a graph by the sums of their messages."""
        if PAIR not in data:
            return self.convolution(data)
        theirs = self.convolution
        features, harmonics = data[theirs.key_x], data[theirs.key_filter]
        radial = self.hidden(data[theirs.key_weight_input])
        n_pairs = len(data[PAIR_SOURCE])
        of_bonds = (radial[:, :, None] * harmonics[:, None, :]).flatten(1)
        of_pairs = of_bonds.new_zeros(n_pairs, of_bonds.shape[1]).index_add(0, data[PAIR], of_bonds)
        of_pairs = of_pairs.view(n_pairs, radial.shape[1], harmonics.shape[1])
        filters = [
            (of_pairs[:, :, part].transpose(1, 2) @ getattr(self, f"radial_{number}")).transpose(1, 2).flatten(1)
            for number, part in enumerate(self.slices)
        ]
        messages = self.product(features.index_select(0, data[PAIR_SOURCE]), torch.cat(filters, dim=1))
        sums = messages.new_zeros(len(features), messages.shape[1]).index_add(0, data[PAIR_TARGET], messages)
        data[theirs.key_x] = sums / theirs.denominator
        return data
