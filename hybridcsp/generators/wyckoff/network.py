"""The transformer: contents, then space group, sites, cell and coordinates, each given all before.

After CrystalFormer (doi:10.48550/arXiv.2403.15734) and WyckoffTransformer (doi:10.48550/arXiv.2503.02407); new here are
that all letters come before the coordinates, and that remembered crystals are evidence
(:mod:`hybridcsp.generators.wyckoff.memory`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridcsp.generators.wyckoff.memory import CHANNELS
from hybridcsp.generators.wyckoff.positions import N_FEATURES, N_GROUPS, N_LETTERS, Positions
from hybridcsp.prototypes.chemistry import properties

Batch = Mapping[str, Tensor]
Cache = list[tuple[Tensor, Tensor]]

# Components of a mixture that do not start from a remembered crystal.
_COMPONENTS = 8

# Concentrations of von Mises components, and spreads of the normal components of the (scaled) cell. The upper bound
# of the concentration, a standard deviation of 0.7 % of a cell vector, keeps likelihoods from being all about decimals.
_CONCENTRATIONS = (0.3, 500.0)
_SPREADS = (0.02, 1.5)

# Sites after this one share one embedding of their place in the sequence.
_PLACES = 48


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width of the tokens, blocks, heads, and dropout while training."""

    width: int = 128
    blocks: int = 3
    heads: int = 4
    dropout: float = 0.05


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm; keys and values can be kept for the next tokens."""

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
        """Return the tokens and all keys and values; the mask says what each query may see."""
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


class Network(nn.Module):
    """Embeddings, blocks and heads.

    Parameters
    ----------
    positions
        Tables of the Wyckoff positions; kept as buffers beside the weights.
    size
        Of the blocks.
    """

    def __init__(self, positions: Positions, size: Size) -> None:
        super().__init__()
        width = size.width
        for name, array in positions.arrays().items():
            self.register_buffer(f"positions_{name}", torch.as_tensor(np.asarray(array)))
        used = np.flatnonzero(positions.multiplicity.ravel())
        index = np.zeros(N_GROUPS * N_LETTERS, dtype=np.int64)
        index[used] = 1 + np.arange(len(used))
        self.register_buffer("position_index", torch.as_tensor(index.astype(np.int32)))
        self.register_buffer("chemistry", torch.as_tensor(_chemistry()))

        self.element = nn.Embedding(119, width)
        self.alike = _perceptron(_chemistry().shape[1], width)
        self.amount = _perceptron(5, width)
        self.whole = _perceptron(3 + 2 * CHANNELS + 1 + 3, width)
        self.group = nn.Embedding(N_GROUPS, width)
        self.group_features = nn.Linear(9, width)
        self.position = nn.Embedding(1 + len(used), width)
        self.position_features = _perceptron(N_FEATURES, width)
        self.place = nn.Embedding(_PLACES, width)
        self.kind = nn.Embedding(5, width)
        self.occupant, self.following = nn.Linear(width, width), nn.Linear(width, width)
        self.progress = nn.Linear(3, width)
        self.cell_value = _perceptron(6, width)
        self.site_value = _perceptron(15, width)
        self.earlier = nn.Linear(width, width)

        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.norm = nn.LayerNorm(width)
        self.to_group, self.trust_group = nn.Linear(width, N_GROUPS), nn.Linear(width, CHANNELS)
        self.to_letter, self.trust_letter = nn.Linear(width, width), nn.Linear(width, CHANNELS)
        self.to_cell = nn.Linear(width, _COMPONENTS * 13)
        self.to_site = nn.Linear(width, _COMPONENTS * 7)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02 if "trust" not in name else 1e-3)
        for module in self.modules():
            if isinstance(module, nn.Sequential):
                for layer in module:
                    if isinstance(layer, nn.Linear):
                        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        for trust in (self.trust_group, self.trust_letter):
            # At first the prediction is what is remembered of crystals of like elements.
            trust.bias.data = torch.eye(CHANNELS)[0]
        with torch.no_grad():
            own = self.to_site.bias.view(_COMPONENTS, 7)
            own.zero_()
            own[:, 1:4] = torch.rand(_COMPONENTS, 3)
            self.to_cell.bias.zero_()

    @property
    def positions(self) -> Positions:
        """The tables that it was made with."""
        names = [name for name, _ in self.named_buffers() if name.startswith("positions_")]
        arrays = {name.removeprefix("positions_"): getattr(self, name).cpu().numpy() for name in names}
        return Positions.from_arrays(**arrays)

    # Embeddings: each makes the tokens of one kind.

    def elements(self, numbers: Tensor) -> Tensor:
        """Embed atomic numbers: what is particular to them, and what they share with others."""
        return self.element(numbers) + self.alike(self.chemistry[numbers].float())

    def contents(self, batch: Batch) -> Tensor:
        """One token for each element and one for the whole, shape ``(batch, n_elements + 1, width)``."""
        counts = batch["counts"].float()
        total = counts.sum(1, keepdim=True)
        divisor = batch["divisor"].float()[:, None]
        each = torch.stack(
            [counts / total, counts.log1p() / 3, (counts / divisor).log1p() / 3, counts % 2, counts % 3 / 2], dim=-1
        )
        tokens = self.elements(batch["elements"]) + self.amount(each) + self.kind.weight[0]
        about = torch.cat(
            [total.log() / 3, divisor.log(), (counts > 0).sum(1, keepdim=True) / 4, batch["summary"], batch["energy"]],
            1,
        )
        whole = self.whole(about) + self.kind.weight[1]
        return torch.cat([tokens, whole[:, None]], dim=1)

    def groups(self, group: Tensor, following: Tensor) -> Tensor:
        """Token of the space group; ``following`` is the element that is placed next. Shape ``(batch, 1, width)``."""
        features = torch.cat([self.positions_free_cell[group], self.positions_polar[group]], dim=-1).float()
        token = self.group(group) + self.group_features(features) + self.kind.weight[2]
        return (token + self.following(self.elements(following)))[:, None]

    def letters(self, group: Tensor) -> Tensor:
        """Embed all Wyckoff positions of space groups, shape ``(batch, 27, width)``."""
        index = self.position_index.view(N_GROUPS, N_LETTERS)[group].long()
        return self.position(index) + self.position_features(self.positions_features[group].float())

    def identities(self, letters: Tensor, letter: Tensor, element: Tensor) -> Tensor:
        """Which position sites are on, and by what they are occupied, shape ``(batch, n_sites, width)``."""
        chosen = letters.gather(1, letter[..., None].expand(-1, -1, letters.shape[-1]))
        return chosen + self.occupant(self.elements(element))

    def sites(self, identities: Tensor, place: Tensor, following: Tensor, progress: Tensor) -> Tensor:
        """Tokens of occupied positions, shape ``(batch, n_sites, width)``."""
        following = self.following(self.elements(following))
        token = identities + following + self.progress(progress) + self.place(place.clamp(max=_PLACES - 1))
        return token + self.kind.weight[3]

    def cells(self, n: int) -> Tensor:
        """Tokens from which the cells of ``n`` crystals are predicted, shape ``(n, 1, width)``."""
        return self.kind.weight[4].expand(n, 1, -1)

    def points(self, identities: Tensor, place: Tensor, earlier: Tensor) -> Tensor:
        """Tokens from which coordinates are predicted; ``earlier`` is the token's memory of what came before it."""
        return identities + self.place(place.clamp(max=_PLACES - 1)) + self.earlier(earlier)

    def placed(self, identities: Tensor, coordinates: Tensor, free: Tensor) -> Tensor:
        """Embed what the next token is told of a site and its coordinates."""
        return identities + self.site_value(torch.cat([_waves(coordinates) * free.repeat(1, 1, 4), free], dim=-1))

    # Blocks and heads.

    def run(self, tokens: Tensor, mask: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Send tokens through the blocks, behind those whose keys and values are in the cache."""
        kept: Cache = []
        for index, block in enumerate(self.blocks):
            tokens, pair = block(tokens, mask, None if cache is None else cache[index])
            kept.append(pair)
        return self.norm(tokens), kept

    def group_logits(self, hidden: Tensor, evidence: Tensor, allowed: Tensor) -> Tensor:
        """Log-probabilities of the space groups, shape ``(batch, 231)``."""
        logits = self.to_group(hidden) + (evidence @ self.trust_group(hidden)[..., None])[..., 0]
        return logits.float().masked_fill(~allowed, -math.inf).log_softmax(-1)

    def letter_logits(self, hidden: Tensor, letters: Tensor, evidence: Tensor, allowed: Tensor) -> Tensor:
        """Log-probabilities of the letters at sites, shape ``(batch, n_sites, 27)``."""
        logits = self.to_letter(hidden) @ letters.transpose(1, 2) / math.sqrt(hidden.shape[-1])
        logits = logits + (evidence @ self.trust_letter(hidden)[..., None])[..., 0]
        return logits.float().masked_fill(~allowed, -math.inf).log_softmax(-1)

    def cell_mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and spreads of normal components, shapes ``(batch, n)`` and twice ``(batch, n, 6)``."""
        raw = self.to_cell(hidden).float().view(*hidden.shape[:-1], _COMPONENTS, 13)
        return raw[..., 0].log_softmax(-1), raw[..., 1:7], _between(raw[..., 7:], *_SPREADS)

    def point_mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and concentrations of von Mises components, ``(..., n)`` and twice ``(..., n, 3)``."""
        raw = self.to_site(hidden).float().view(*hidden.shape[:-1], _COMPONENTS, 7)
        return raw[..., 0].log_softmax(-1), raw[..., 1:4], _between(raw[..., 4:], *_CONCENTRATIONS)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihoods (nats) of space group, letters, cell and coordinates, each of shape ``(batch,)``."""
        contents = self.contents(batch)
        letters = self.letters(batch["group"])
        element = batch["elements"].gather(1, batch["slots"])
        site_valid = batch["letters"] >= 0
        identities = self.identities(letters, batch["letters"].clamp(min=0), element)
        place = torch.arange(element.shape[1], device=element.device).expand_as(element)
        following = torch.cat([element[:, 1:], torch.zeros_like(element[:, :1])], dim=1)
        sites = self.sites(identities, place, following, batch["progress"])
        cell = self.cells(len(element))
        # Sites with something to predict, moved to the front.
        free = batch["free"].float()
        open_ = free.any(-1)
        count = max(1, int(open_.sum(1).max()))
        order = (~open_).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
        open_ = open_.gather(1, order)

        def chosen(values: Tensor) -> Tensor:
            index = order.view(*order.shape, *([1] * (values.ndim - 2)))
            return values.gather(1, index.expand(*order.shape, *values.shape[2:]))

        free, identities_open, coordinates = chosen(free), chosen(identities), chosen(batch["coordinates"])
        placed = self.placed(identities_open, coordinates, free)
        earlier = torch.cat([self.cell_value(batch["cell"])[:, None], placed[:, :-1]], dim=1)
        points = self.points(identities_open, chosen(place), earlier)

        tokens = torch.cat([contents, self.groups(batch["group"], element[:, 0]), sites, cell, points], dim=1)
        here = torch.ones_like(open_[:, :1])
        valid = torch.cat([batch["counts"] > 0, here, here, site_valid, here, open_], dim=1)
        prefix, length = contents.shape[1], tokens.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask[:prefix, :prefix] = True
        hidden, _ = self.run(tokens, mask & valid[:, None])

        n_sites = element.shape[1]
        groups = self.group_logits(hidden[:, prefix - 1], batch["group_evidence"], batch["group_allowed"])
        allowed = batch["letter_allowed"] | ~site_valid[..., None]
        at = self.letter_logits(hidden[:, prefix : prefix + n_sites], letters, batch["letter_evidence"], allowed)
        said = at.gather(2, batch["letters"].clamp(min=0)[..., None])[..., 0]
        mixture = self.cell_mixture(hidden[:, prefix + 1 + n_sites])
        free_cell = self.positions_free_cell[batch["group"]].float()
        spots = self.point_mixture(hidden[:, prefix + 2 + n_sites :])
        return {
            "group": -groups.gather(1, batch["group"][:, None])[:, 0],
            "letters": -torch.where(site_valid, said, 0.0).sum(1),
            "cell": -normal_log_density(batch["cell"], free_cell, *mixture),
            "coordinates": -torch.where(open_, von_mises_log_density(coordinates, free, *spots), 0.0).sum(1),
        }


def normal_log_density(values: Tensor, free: Tensor, weights: Tensor, means: Tensor, spreads: Tensor) -> Tensor:
    """Log-density of cells under a mixture of normal distributions, over the parameters that are free."""
    apart = (values[..., None, :] - means) / spreads
    each = -0.5 * apart**2 - spreads.log() - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(weights + (each * free[..., None, :]).sum(-1), dim=-1)


def von_mises_log_density(
    values: Tensor, free: Tensor, weights: Tensor, means: Tensor, concentrations: Tensor
) -> Tensor:
    """Log-density of coordinates in [0, 1) under a mixture of von Mises distributions, over those that are free."""
    turn = torch.cos(2 * math.pi * (values[..., None, :] - means)) - 1
    each = concentrations * turn - torch.special.i0e(concentrations).log()
    return torch.logsumexp(weights + (each * free[..., None, :]).sum(-1), dim=-1)


def _between(raw: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * raw.sigmoid())


def _waves(coordinates: Tensor) -> Tensor:
    turn = 2 * math.pi * coordinates
    return torch.cat([turn.sin(), turn.cos(), (2 * turn).sin(), (2 * turn).cos()], dim=-1)


def _perceptron(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))


def _chemistry() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Properties of the elements, scaled; with one column each for the blocks of the periodic table."""
    raw = properties()
    scaled = (raw - raw[1:100].mean(0)) / raw[1:100].std(0)
    number = np.arange(119)
    group, row = raw[:, 3], raw[:, 4]
    f_block = ((number >= 57) & (number <= 70)) | ((number >= 89) & (number <= 102))
    blocks = np.column_stack([group <= 2, (group > 2) & (group <= 12) & ~f_block, group > 12, f_block])
    table = np.column_stack([scaled, blocks, np.eye(19)[group.astype(int) % 19], np.eye(10)[row.astype(int) % 10]])
    return table.astype(np.float32)
