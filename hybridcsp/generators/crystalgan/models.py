"""The competitions of CrystalGAN: between two binary systems, and for joined, ternary crystals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hybridcsp.generators.periodic_pairs import shortest_distances
from hybridcsp.training.adversarial import AdversarialModel, Turn
from hybridcsp.training.adversarial_losses import AdversarialLoss, CrossEntropy

Terms = dict[str, Tensor]
#: Function that makes a network of a number of layers.
Make = Callable[[int], nn.Module]


class PublishedBounds:
    """Bounds of nearest distances as published: 1.8 and 3.0 Å, among atoms of the shared element and among others.

    The penalty has no gradient there: it is computed from crystals in files.
    """

    shortest, longest = 1.8, 3.0

    def __init__(self, shared: Tensor) -> None:
        self._alike = shared[:, None] == shared[None]

    def __call__(self, rows: Tensor, fractions: Tensor) -> Tensor:
        """Return the penalty of crystals, shape ``(batch,)``, without gradients."""
        present = rows[:, 3:, 3].detach()
        distances = shortest_distances(fractions.detach(), rows[:, :3, :3].detach())
        seen = self._alike.to(rows.device) & (present[:, None] > 0) & (present[:, :, None] > 0)
        nearest = distances.masked_fill(~seen, torch.inf).amin(-1)
        nearest = torch.where(nearest.isfinite() & (present > 0), nearest, self.shortest)
        return ((nearest - self.shortest).square() + (self.longest - nearest).square()).mean(1)


class DistanceBounds:
    """Bounds of the distances of all pairs of atoms of a periodic crystal, with gradients.

    Parameters
    ----------
    lowest
        Smallest distance (Å) of the elements of two slots, shape ``(n_slots, n_slots)``.
    highest
        Largest distance (Å) of an atom to its nearest neighbour, for the elements of both.
    """

    def __init__(self, lowest: Tensor, highest: Tensor) -> None:
        self._lowest, self._highest = lowest, highest

    def __call__(self, rows: Tensor, fractions: Tensor) -> Tensor:
        """Return the sum of the squared deviations (Å²) from the bounds, shape ``(batch,)``."""
        present = rows[:, 3:, 3]
        both = present[:, None] * present[:, :, None]
        distances = shortest_distances(fractions, rows[:, :3, :3])
        lowest, highest = self._lowest.to(distances), self._highest.to(distances)
        close = ((lowest - distances).clamp(min=0).square() * both).sum((1, 2))
        beyond = (distances - highest).masked_fill(both == 0, torch.inf).amin(-1)
        far = (beyond.clamp(min=0, max=10).square() * present).sum(1)
        return close + far


class CrossDomain(AdversarialModel):
    """Transfers between two domains and a critic of each, with the reconstruction of twice transferred crystals.

    Parameters
    ----------
    transfer, critic
        Functions that make networks.
    layers
        Number of layers.
    loss
        Losses of critics and transfers.
    generator_steps
        Number of updates of the transfers in a step.
    geometry
        Penalty of distances, or ``None``.
    """

    def __init__(
        self,
        transfer: Make,
        critic: Make,
        layers: int,
        loss: AdversarialLoss,
        generator_steps: int,
        geometry: PublishedBounds | None = None,
    ) -> None:
        super().__init__()
        self.to_first, self.to_second = transfer(layers), transfer(layers)
        self.first, self.second = critic(layers), critic(layers)
        self._loss, self._steps, self._geometry = loss, generator_steps, geometry
        self.won = loss.won

    def turns(self) -> Sequence[Turn]:
        """Return the updates of both critics, and of both transfers."""
        return [
            Turn(name="critic", parameters=_parameters(self.first, self.second), losses=self._critic_losses),
            Turn(
                name="generator",
                parameters=_parameters(self.to_first, self.to_second),
                losses=self._transfer_losses,
                times=self._steps,
            ),
        ]

    def transferred(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the second crystals in the first domain, and the first ones in the second."""
        return self.to_first(second), self.to_second(first)

    def _critic_losses(self, batch: Mapping[str, Tensor]) -> Terms:
        first, second = batch["first"], batch["second"]
        with torch.no_grad():
            like_first, like_second = self.transferred(first, second)
        return _both(
            self._loss.of_critic(self.first, first, like_first), self._loss.of_critic(self.second, second, like_second)
        )

    def _transfer_losses(self, batch: Mapping[str, Tensor]) -> Terms:
        first, second = batch["first"], batch["second"]
        like_first, like_second = self.transferred(first, second)
        scores = self._loss.of_generator(self.first(like_first)) + self._loss.of_generator(self.second(like_second))
        back = (self.to_second(like_first) - second).square() + (self.to_first(like_second) - first).square()
        terms = {"score": scores, "reconstruction": back[..., :3].mean((1, 2))}
        if self._geometry is not None:
            for rows in (like_first, like_second):
                fractions = rows[:, 3:, :3].detach() @ torch.linalg.pinv(rows[:, :3, :3].detach())
                terms["geometry"] = terms.get("geometry", torch.zeros_like(scores)) + self._geometry(rows, fractions)
        return terms


class Refinement(AdversarialModel):
    """A generator of ternary crystals from joined ones, whose parts must be like the binary crystals of both domains.

    The critics see the atoms of the shared element together with those of one domain, and the distances between all
    atoms are bounded.

    Parameters
    ----------
    transfer, critic
        Functions that make networks.
    layers
        Number of layers.
    kinds
        Position of the element of each slot: the shared, the first and the second, shape ``(n_slots,)``.
    geometry
        Penalty of distances.
    weight
        Factor of the penalty.
    """

    def __init__(
        self, transfer: Make, critic: Make, layers: int, kinds: Tensor, geometry: DistanceBounds, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.refine = transfer(layers)
        self.first, self.second = critic(layers), critic(layers)
        self._kinds, self._geometry, self._weight = kinds, geometry, weight
        self._loss = CrossEntropy(penalty=1.0)
        self.won = self._loss.won

    def turns(self) -> Sequence[Turn]:
        """Return the updates of both critics, and of the generator."""
        return [
            Turn(name="critic", parameters=_parameters(self.first, self.second), losses=self._critic_losses),
            Turn(name="generator", parameters=_parameters(self.refine), losses=self._generator_losses),
        ]

    def _critic_losses(self, batch: Mapping[str, Tensor]) -> Terms:
        with torch.no_grad():
            made = self.refine(batch["joined"])
        return _both(
            self._loss.of_critic(self.first, batch["first"], self._without(made, 2)),
            self._loss.of_critic(self.second, batch["second"], self._without(made, 1)),
        )

    def _generator_losses(self, batch: Mapping[str, Tensor]) -> Terms:
        made = self.refine(batch["joined"])
        scores = [
            self._loss.of_generator(self.first(self._without(made, 2))),
            self._loss.of_generator(self.second(self._without(made, 1))),
        ]
        return {"score": scores[0] + scores[1], "geometry": self._weight * self._geometry(made, made[:, 3:, :3])}

    def _without(self, rows: Tensor, kind: int) -> Tensor:
        """Return crystals without the atoms of one element."""
        kept = torch.cat([torch.ones(3, dtype=torch.bool), self._kinds != kind]).to(rows)
        return torch.cat([rows[..., :3], rows[..., 3:] * kept[:, None]], dim=-1)


def _both(first: Terms, second: Terms) -> Terms:
    return {name: value + second[name] for name, value in first.items()}


def _parameters(*networks: nn.Module) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters()]
