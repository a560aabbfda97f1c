"""Reading of the sizes and networks of generators over images from their cards and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from hybridcsp.structure.representations.voxel_grid import VoxelGrid

_Sizes = TypeVar("_Sizes")


def sizes_of_card(card: Mapping[str, Any], kind: Callable[..., _Sizes]) -> tuple[VoxelGrid, _Sizes]:
    """Return the grid of the images and the sizes of the networks in a card.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the card has none, or they are not positive numbers.
    """
    numbers = [*card["grid"].values(), *card["sizes"].values()]
    if not all(isinstance(number, int | float) and 0 < number < 1e9 for number in numbers):
        raise ValueError("the sizes of the images and networks must be positive numbers")
    return VoxelGrid(**card["grid"]), kind(**card["sizes"])


def networks_of_weights(
    untrained: Callable[[], torch.nn.ModuleDict], weights: Mapping[str, torch.Tensor]
) -> torch.nn.ModuleDict:
    """Return untrained networks that weights fill.

    Raises
    ------
    ValueError
        If the weights have other names or shapes.
    """
    # Sizes that are damaged may stand for networks beyond the memory, which are never allocated here.
    with torch.device("meta"):
        planned = untrained().state_dict()
    if {name: value.shape for name, value in planned.items()} != {n: v.shape for n, v in weights.items()}:
        raise ValueError("the weights fill no networks of the sizes in the card")
    return untrained()
