"""Network of the geometry: given all occupied Wyckoff positions, it predicts the cell and then site after site.

Cell and coordinates are predicted as in CrystalFormer (doi:10.48550/arXiv.2403.15734). In addition, the network attends
to all occupied positions in both directions before the first number, and has an embedding of each stored prototype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.generators.wyckoff.transformer import N_CONDITIONS, Batch, Size, Transformer, perceptron

# Number of components of the mixtures.
_COMPONENTS = 8

# Bounds of the concentrations of von Mises components and of the spreads of the normal components of the (scaled) cell.
# The largest concentration, a standard deviation of 0.7 % of a cell vector, keeps the last digits of coordinates from
# dominating the likelihood.
_CONCENTRATIONS = (0.3, 500.0)
_SPREADS = (0.02, 1.5)

#: A mixture: log-weights ``(..., n)``, and means and spreads (or concentrations) of its components ``(..., n, d)``.
Mixture = tuple[Tensor, Tensor, Tensor]


class GeometryNetwork(Transformer):
    """Network of the densities of the cell and of the free coordinates.

    Parameters
    ----------
    positions
        Tables of the Wyckoff positions.
    size
        Size of the blocks.
    prototypes
        Number of prototypes with their own embeddings; number 0 stands for all others.
    """

    def __init__(self, positions: WyckoffTables, size: Size, prototypes: int = 0) -> None:
        super().__init__(positions, size, told=N_CONDITIONS, kinds=5)
        width = size.width
        self.prototype = nn.Embedding(1 + prototypes, width)
        self.cell_value = perceptron(6, width)
        self.site_value = perceptron(15, width)
        self.earlier = nn.Linear(width, width)
        self.asked = nn.Linear(N_CONDITIONS, width, bias=False)
        self.to_cell = nn.Linear(width, _COMPONENTS * 13)
        self.to_site = nn.Linear(width, _COMPONENTS * 7)
        self.initialise()
        with torch.no_grad():
            self.asked.weight.zero_()
            self.prototype.weight.zero_()
            self.to_cell.bias.zero_()
            own = self.to_site.bias.view(_COMPONENTS, 7)
            own.zero_()
            own[:, 1:4] = torch.rand(_COMPONENTS, 3)

    def widen(self, prototypes: int) -> None:
        """Add embeddings of more prototypes, initialised by that of unknown ones."""
        more = 1 + prototypes - len(self.prototype.weight)
        if more > 0:
            rows = torch.cat([self.prototype.weight.data, self.prototype.weight.data[:1].expand(more, -1)])
            self.prototype = nn.Embedding.from_pretrained(rows, freeze=False)

    def discrete_tokens(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens of contents, space group and sites, their mask, and the embeddings of the sites."""
        contents = self.contents(batch, batch["conditions"])
        element = batch["elements"].gather(1, batch["slots"])
        site_valid = batch["letters"] >= 0
        identities = self.identities(self.letters(batch["group"]), batch["letters"].clamp(min=0), element)
        place = torch.arange(element.shape[1], device=element.device).expand_as(element)
        sites = identities + self.placed(place) + self.kind.weight[3]
        here = torch.ones_like(site_valid[:, :1])
        valid = torch.cat([batch["counts"] > 0, here, here, site_valid], dim=1)
        return torch.cat([contents, self.groups(batch["group"]), sites], dim=1), valid, identities

    def cells(self, conditions: Tensor, prototype: Tensor) -> Tensor:
        """Return the tokens from which cells are predicted, shape ``(batch, 1, width)``."""
        return (self.kind.weight[4] + self.asked(conditions) + self.prototype(prototype))[:, None]

    def points(self, identities: Tensor, place: Tensor, earlier: Tensor, prototype: Tensor) -> Tensor:
        """Return the tokens from which coordinates are predicted; ``earlier`` embeds the preceding prediction."""
        return identities + self.placed(place) + self.earlier(earlier) + self.prototype(prototype)[:, None]

    def settled(self, identities: Tensor, coordinates: Tensor, free: Tensor) -> Tensor:
        """Embed a site and its coordinates for the next token."""
        return identities + self.site_value(torch.cat([_waves(coordinates) * free.repeat(1, 1, 4), free], dim=-1))

    def cell_mixture(self, hidden: Tensor) -> Mixture:
        """Return the mixture of normal distributions of the cell."""
        raw = self.to_cell(hidden).float().view(*hidden.shape[:-1], _COMPONENTS, 13)
        return raw[..., 0].log_softmax(-1), raw[..., 1:7], _between(raw[..., 7:], *_SPREADS)

    def point_mixture(self, hidden: Tensor) -> Mixture:
        """Return the mixture of von Mises distributions of coordinates."""
        raw = self.to_site(hidden).float().view(*hidden.shape[:-1], _COMPONENTS, 7)
        return raw[..., 0].log_softmax(-1), raw[..., 1:4], _between(raw[..., 4:], *_CONCENTRATIONS)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the negative log-likelihoods (nats) of cell and coordinates, each of shape ``(batch,)``."""
        discrete, there, identities = self.discrete_tokens(batch)
        # Sites with free coordinates are moved to the front.
        free = batch["free"].float()
        open_ = free.any(-1)
        count = max(1, int(open_.sum(1).max()))
        order = (~open_).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]

        def chosen(values: Tensor) -> Tensor:
            index = order.view(*order.shape, *([1] * (values.ndim - 2)))
            return values.gather(1, index.expand(*order.shape, *values.shape[2:]))

        open_, free, identities, coordinates = map(chosen, (open_, free, identities, batch["coordinates"]))
        settled = self.settled(identities, coordinates, free)
        earlier = torch.cat([self.cell_value(batch["cell"])[:, None], settled[:, :-1]], dim=1)
        cell = self.cells(batch["conditions"], batch["prototype"])
        points = self.points(identities, order, earlier, batch["prototype"])
        tokens = torch.cat([discrete, cell, points], dim=1)
        prefix, length = discrete.shape[1], tokens.shape[1]
        valid = torch.cat([there, torch.ones_like(open_[:, :1]), open_], dim=1)
        mask = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask[:prefix, :prefix] = True
        hidden, _ = self.run(tokens, mask & valid[:, None])

        spots = von_mises_log_density(coordinates, free, *self.point_mixture(hidden[:, prefix + 1 :]))
        return {
            "cell": -normal_log_density(batch["cell"], batch["free_cell"], *self.cell_mixture(hidden[:, prefix])),
            "coordinates": -torch.where(open_, spots, 0.0).sum(1),
        }


def normal_log_density(values: Tensor, free: Tensor, weights: Tensor, means: Tensor, spreads: Tensor) -> Tensor:
    """Return the log-density of the free cell parameters under a mixture of normal distributions."""
    apart = (values[..., None, :] - means) / spreads
    each = -0.5 * apart**2 - spreads.log() - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(weights + (each * free[..., None, :]).sum(-1), dim=-1)


def von_mises_log_density(
    values: Tensor, free: Tensor, weights: Tensor, means: Tensor, concentrations: Tensor
) -> Tensor:
    """Return the log-density of the free coordinates in [0, 1) under a mixture of von Mises distributions."""
    turn = torch.cos(2 * math.pi * (values[..., None, :] - means)) - 1
    each = concentrations * turn - torch.special.i0e(concentrations).log()
    return torch.logsumexp(weights + (each * free[..., None, :]).sum(-1), dim=-1)


def _between(raw: Tensor, low: float, high: float) -> Tensor:
    return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * raw.sigmoid())


def _waves(coordinates: Tensor) -> Tensor:
    turn = 2 * math.pi * coordinates
    return torch.cat([turn.sin(), turn.cos(), (2 * turn).sin(), (2 * turn).cos()], dim=-1)
