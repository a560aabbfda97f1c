"""Networks of the composition-conditioned GAN as published: rows of the point cloud, pooled by element.

Widths are multiples of one number, 128 in the paper. Three properties of the authors' code are kept although they look
unintended: the constant of the batch norms is 0.8, a probability goes through another softmax in the cross-entropies,
and the Q head is also trained with generated point clouds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from hybridcsp.generators.cccgan.model import CloudModel, Sizes
from hybridcsp.training.adversarial import Turn
from hybridcsp.training.adversarial_losses import Wasserstein

# Constant in the denominator of the batch norms.
_EPS = 0.8
# Weight of the cross-entropy of the numbers of atoms.
_CLASSES = 0.3
# Mean and standard deviation of the noise in empty slots that the Q head sees.
_NOISE = (10**-3, 10**-2.5)


class SlotNetworks(CloudModel):
    """Generator, critic and Q head, which reads from point clouds which slots are occupied and how many."""

    def __init__(self, slots: Mapping[str, int], sizes: Sizes) -> None:
        super().__init__(slots, sizes)
        numbers = list(self.slots.values())
        self.generator = _Generator(numbers, sizes)
        self.critic = _Critic(numbers, sizes.width)
        self.head = _Head(numbers, sizes.width)
        self.loss = Wasserstein()
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def n_noise(self) -> int:
        """Number of standard normal random numbers of a sample."""
        return self.sizes.noise

    def generate(self, noise: Tensor, counts: Tensor) -> Tensor:
        """Return point clouds; coordinates near 0 are those of empty slots."""
        found: Tensor = self.generator(noise, counts)
        return found

    def occupied(self, clouds: Tensor, counts: Tensor) -> Tensor:
        """Return whether the Q head sees an atom in each slot."""
        existence, _ = self.head(clouds)
        return torch.cat([probabilities[:, 1] > 0.5 for probabilities in existence], dim=1)

    def turns(self) -> Sequence[Turn]:
        """Return the updates of the critic and of the generator, both together with the Q head."""
        head = list(self.head.parameters())
        return [
            Turn(name="critic", parameters=[*self.critic.parameters(), *head], losses=self._critic_losses),
            Turn(
                name="generator",
                parameters=[*self.generator.parameters(), *head],
                losses=self._generator_losses,
                every=self.critic_steps,
            ),
        ]

    def _critic_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        real, counts = batch["cloud"], batch["counts"]
        with torch.no_grad():
            fake = self._sampled(len(real), real.device)[0]
        empty = (real < 0.01) * torch.normal(*_NOISE, real.shape, device=real.device).abs()
        existence, classes = self.head(real + empty)
        there = (real[:, 2:].sum(-1) > 0).long()
        terms = self.loss.of_critic(self.critic, real, fake)
        start = 0
        terms["slots"] = terms["contents"] = torch.zeros(len(real), device=real.device)
        for kind, number in enumerate(self.slots.values()):
            labels = there[:, start : start + number]
            terms["slots"] = terms["slots"] + cross_entropy(existence[kind], labels, reduction="none").mean(1)
            terms["contents"] = terms["contents"] + _CLASSES * cross_entropy(
                classes[kind], counts[:, kind] - 1, reduction="none"
            )
            start += number
        return terms

    def _generator_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        fake, counts = self._sampled(len(batch["cloud"]), batch["cloud"].device)
        _, classes = self.head(fake)
        contents = [
            cross_entropy(classes[kind], counts[:, kind] - 1, reduction="none") for kind in range(len(self.slots))
        ]
        return {
            "score": self.loss.of_generator(self.critic(fake)),
            "contents": _CLASSES * torch.stack(contents).sum(0),
        }

    def _sampled(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return point clouds of contents that are drawn from all combinations, and these contents."""
        counts = torch.stack([torch.randint(1, k + 1, (n,), device=device) for k in self.slots.values()], dim=1)
        return self.generate(torch.randn(n, self.n_noise, device=device), counts), counts


class _Generator(nn.Module):
    def __init__(self, numbers: Sequence[int], sizes: Sizes) -> None:
        super().__init__()
        self.numbers = list(numbers)
        total, width = sum(numbers), sizes.width
        self.start = nn.Sequential(nn.Linear(sizes.noise + total + 1, width * total), nn.ReLU())
        self.rows = nn.Sequential(
            nn.ConvTranspose2d(width, 2 * width, (1, 3)),
            nn.BatchNorm2d(2 * width, _EPS),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.BatchNorm2d(4 * width, _EPS),
            nn.ReLU(),
            nn.Conv2d(4 * width, 2 * width, 1),
            nn.BatchNorm2d(2 * width, _EPS),
            nn.ReLU(),
            nn.Conv2d(2 * width, 1, 1),
        )
        self.cell = nn.Sequential(nn.Linear(3 * total, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 6))

    def forward(self, noise: Tensor, counts: Tensor) -> Tensor:
        wanted = [one_hot(counts[:, kind] - 1, number) for kind, number in enumerate(self.numbers)]
        share = counts.sum(1, keepdim=True) / sum(self.numbers)
        hidden = self.start(torch.cat([noise, share, *wanted], dim=1))
        rows = self.rows(hidden.view(len(noise), -1, sum(self.numbers), 1))[:, 0]
        cell = torch.sigmoid(self.cell(rows.flatten(1))).view(-1, 2, 3)
        return torch.cat([cell, torch.sigmoid(rows)], dim=1)


class _Critic(nn.Module):
    def __init__(self, numbers: Sequence[int], width: int) -> None:
        super().__init__()
        self.numbers = list(numbers)
        self.rows = nn.Sequential(
            nn.Conv2d(1, 4 * width, (1, 3)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 4 * width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 2 * width, 1),
            nn.LeakyReLU(0.2),
        )
        pooled, wide, narrow = 2 * width * (2 + len(self.numbers)), max(2, 8 * width), max(2, 3 * width // 2)
        self.read = nn.Sequential(
            nn.Linear(pooled, wide),
            nn.LeakyReLU(0.2),
            nn.Linear(wide, narrow),
            nn.LeakyReLU(0.2),
            nn.Linear(narrow, 10),
        )

    def forward(self, clouds: Tensor) -> Tensor:
        rows = self.rows(clouds[:, None])[..., 0]
        parts = [rows[..., :2], *(part.mean(-1, keepdim=True) for part in rows[..., 2:].split(self.numbers, dim=-1))]
        scores: Tensor = self.read(torch.cat(parts, dim=-1).flatten(1)).mean(1)
        return scores


class _Head(nn.Module):
    """Q head: for each element, probabilities that slots are occupied, and of the numbers of atoms."""

    def __init__(self, numbers: Sequence[int], width: int) -> None:
        super().__init__()
        self.numbers = list(numbers)
        self.slots = nn.ModuleList(self._slots(width) for _ in numbers)
        self.classes = nn.ModuleList(self._classes(number, width) for number in numbers)

    def forward(self, clouds: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        existence, classes = [], []
        for kind, rows in enumerate(clouds[:, 2:].split(self.numbers, dim=1)):
            logits = self.slots[kind](rows[:, None])[..., 0]  # (batch, 2, slots)
            existence.append(logits.softmax(1))
            classes.append(self.classes[kind](logits.flatten(1)).softmax(1))
        return existence, classes

    def _slots(self, width: int) -> nn.Module:
        layers: list[nn.Module] = []
        for before, after, kernel in ((1, 4 * width, (1, 3)), (4 * width, 2 * width, 1), (2 * width, 2 * width, 1)):
            layers += [nn.Conv2d(before, after, kernel), nn.BatchNorm2d(after, _EPS), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.Conv2d(2 * width, 2, 1))

    def _classes(self, number: int, width: int) -> nn.Module:
        layers: list[nn.Module] = []
        wide, narrow = max(2, 75 * width // 32), max(2, 25 * width // 32)
        for before, after in ((2 * number, wide), (wide, narrow)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after, _EPS), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.Linear(narrow, number))
