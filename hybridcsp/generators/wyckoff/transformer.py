"""Common parts of both networks: embeddings of contents, space groups and Wyckoff positions, and attention blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridcsp.generators.property_terms import PropertyTerms, widened, with_terms
from hybridcsp.generators.wyckoff.tables import N_FEATURES, N_GROUPS, N_LETTERS, WyckoffTables
from hybridcsp.structure.elements import properties

Batch = Mapping[str, Tensor]
Cache = list[tuple[Tensor, Tensor]]

#: Number of components of the conditions: energy and pressure, and whether they are known.
N_CONDITIONS = 5

# Number of embeddings of positions in the sequence; all later sites share the last one.
_PLACES = 48


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a network.

    Attributes
    ----------
    width
        Number of features of a token.
    blocks
        Number of attention blocks.
    heads
        Number of attention heads.
    dropout
        Probability of dropout in training.
    """

    width: int = 128
    blocks: int = 3
    heads: int = 4
    dropout: float = 0.05


#: Sizes of both networks by name, as the constructor of the generator takes them: ``cpu`` has those of the shipped
#: weights, and ``gpu`` those that a GPU trains in ten minutes, whose file stays below 15 MB.
SIZES: Mapping[str, Mapping[str, Size]] = MappingProxyType(
    {
        "cpu": {"occupation": Size(dropout=0.15), "geometry": Size(width=192, blocks=4, heads=6)},
        "gpu": {
            "occupation": Size(width=160, blocks=4, heads=5, dropout=0.2),
            "geometry": Size(width=208, blocks=5, heads=8, dropout=0.15),
        },
    }
)


class Block(nn.Module):
    """Attention block with layer norms and a perceptron; keys and values can be cached for the next tokens."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.heads, self.dropout = size.heads, size.dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, mask: Tensor, kept: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the tokens and all keys and values; the mask gives the keys visible to each query."""
        batch, length, width = x.shape
        joint = self.joint(self.before(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        if kept is not None:
            key, value = torch.cat([kept[0], key], dim=2), torch.cat([kept[1], value], dim=2)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(query, key, value, mask[:, None], dropout)
        x = x + self._drop(self.out(seen.transpose(1, 2).reshape(batch, length, width)))
        return x + self._drop(self.narrow(functional.gelu(self.wide(self.between(x))))), (key, value)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class Transformer(nn.Module):
    """Base of the networks: embeddings of discrete tokens, and attention blocks.

    Parameters
    ----------
    positions
        Tables of the Wyckoff positions; they are not part of the weights.
    size
        Size of the blocks.
    told
        Number of additional features of the whole crystal.
    kinds
        Number of kinds of tokens: element, crystal, space group, site, and those of a subclass.
    """

    def __init__(self, positions: WyckoffTables, size: Size, *, told: int, kinds: int) -> None:
        super().__init__()
        width = size.width
        for name, array in positions.arrays().items():
            self.register_buffer(f"positions_{name}", torch.as_tensor(np.asarray(array)), persistent=False)
        used = np.flatnonzero(positions.multiplicity.ravel())
        index = np.zeros(N_GROUPS * N_LETTERS, dtype=np.int64)
        index[used] = 1 + np.arange(len(used))
        self.register_buffer("position_index", torch.as_tensor(index.astype(np.int32)), persistent=False)
        self.register_buffer("chemistry", torch.as_tensor(_chemistry()), persistent=False)

        self.element = nn.Embedding(119, width)
        self.alike = perceptron(_chemistry().shape[1], width)
        self.amount = perceptron(5, width)
        self.whole = perceptron(3 + told, width)
        self.group = nn.Embedding(N_GROUPS, width)
        self.group_features = nn.Linear(9, width)
        self.position = nn.Embedding(1 + len(used), width)
        self.position_features = perceptron(N_FEATURES, width)
        self.place = nn.Embedding(_PLACES, width)
        self.kind = nn.Embedding(kinds, width)
        self.occupant = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.norm = nn.LayerNorm(width)
        self.properties: PropertyTerms | None = None

    def learn_properties(self, n_features: int) -> None:
        """Make the network read features of properties, ``batch["properties"]``; new ones have no effect at first."""
        self.properties = widened(self.properties, self.norm.weight.shape[0], n_features)

    def initialise(self) -> None:
        """Draw the initial weights; to be called once all modules are defined."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Sequential):
                for layer in module:
                    if isinstance(layer, nn.Linear):
                        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        with torch.no_grad():  # a condition without training data must have no effect at first
            self.whole[0].weight[:, -N_CONDITIONS:] = 0.0

    def elements(self, numbers: Tensor) -> Tensor:
        """Embed atomic numbers by their own embeddings and by chemical properties."""
        return self.element(numbers) + self.alike(self.chemistry[numbers].float())

    def contents(self, batch: Batch, told: Tensor) -> Tensor:
        """Return one token for each element and one for the crystal, shape ``(batch, n_elements + 1, width)``."""
        counts = batch["counts"].float()
        total = counts.sum(1, keepdim=True)
        divisor = batch["divisor"].float()[:, None]
        each = torch.stack(
            [counts / total, counts.log1p() / 3, (counts / divisor).log1p() / 3, counts % 2, counts % 3 / 2], dim=-1
        )
        tokens = self.elements(batch["elements"]) + self.amount(each) + self.kind.weight[0]
        about = torch.cat([total.log() / 3, divisor.log(), (counts > 0).sum(1, keepdim=True) / 4, told], 1)
        whole = self.whole[1:](with_terms(self.properties, self.whole[0](about), batch.get("properties")))
        whole = whole + self.kind.weight[1]
        return torch.cat([tokens, whole[:, None]], dim=1)

    def groups(self, group: Tensor) -> Tensor:
        """Return the tokens of the space groups, shape ``(batch, 1, width)``."""
        features = torch.cat([self.positions_free_cell[group], self.positions_polar[group]], dim=-1).float()
        return (self.group(group) + self.group_features(features) + self.kind.weight[2])[:, None]

    def letters(self, group: Tensor) -> Tensor:
        """Embed all Wyckoff positions of space groups, shape ``(batch, 27, width)``."""
        index = self.position_index.view(N_GROUPS, N_LETTERS)[group].long()
        return self.position(index) + self.position_features(self.positions_features[group].float())

    def identities(self, letters: Tensor, letter: Tensor, element: Tensor) -> Tensor:
        """Embed the Wyckoff positions and elements of sites, shape ``(batch, n_sites, width)``."""
        chosen = letters.gather(1, letter[..., None].expand(-1, -1, letters.shape[-1]))
        return chosen + self.occupant(self.elements(element))

    def placed(self, place: Tensor) -> Tensor:
        """Embed the positions of sites in the sequence, shape ``(batch, n_sites, width)``."""
        return self.place(place.clamp(max=_PLACES - 1))

    def run(self, tokens: Tensor, mask: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Return the output of the blocks for tokens that follow those in the cache, and the extended cache."""
        kept: Cache = []
        for index, block in enumerate(self.blocks):
            tokens, pair = block(tokens, mask, None if cache is None else cache[index])
            kept.append(pair)
        return self.norm(tokens), kept


def perceptron(inputs: int, width: int) -> nn.Sequential:
    """Return a perceptron of two layers."""
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))


def _chemistry() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the scaled properties of the elements with indicators of block, group and row."""
    raw = properties()
    scaled = (raw - raw[1:100].mean(0)) / raw[1:100].std(0)
    number = np.arange(119)
    group, row = raw[:, 3], raw[:, 4]
    f_block = ((number >= 57) & (number <= 70)) | ((number >= 89) & (number <= 102))
    blocks = np.column_stack([group <= 2, (group > 2) & (group <= 12) & ~f_block, group > 12, f_block])
    table = np.column_stack([scaled, blocks, np.eye(19)[group.astype(int) % 19], np.eye(10)[row.astype(int) % 10]])
    return table.astype(np.float32)
