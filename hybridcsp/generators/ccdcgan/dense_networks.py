"""Dense networks on the codes of images that know contents and wanted properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hybridcsp.generators.ccdcgan.model import CodeModel, PropertyNetwork, Shape, codes_of
from hybridcsp.generators.ccdcgan.sizes import Sizes
from hybridcsp.generators.images.codes import Codes
from hybridcsp.training.adversarial import Turn
from hybridcsp.training.adversarial_losses import CrossEntropy

#: Number of atoms in the unit of the networks.
ATOMS = 10.0
#: Smallest standard deviation of a number of a code.
_LEAST = 0.02


class _Standardised(nn.Module):
    """Scale of the numbers of codes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        super().__init__()
        self._cell, self._elements, self._site = sizes.cell_code, shape.n_elements, sizes.site_code
        self.flat = sizes.cell_code + shape.n_elements * sizes.site_code
        self.register_buffer("mean", torch.zeros(self.flat))
        self.register_buffer("deviation", torch.ones(self.flat))

    def adapt(self, codes: Codes) -> None:
        flat = torch.cat([codes.cell, codes.sites.flatten(1)], 1)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(flat.std(0, unbiased=False).clamp(min=_LEAST))

    def forward(self, codes: Codes) -> Tensor:
        return (torch.cat([codes.cell, codes.sites.flatten(1)], 1) - self.mean) / self.deviation

    def back(self, numbers: Tensor) -> Codes:
        cell, sites = (numbers * self.deviation + self.mean).split([self._cell, self._elements * self._site], 1)
        return Codes(cell, sites.unflatten(1, (self._elements, self._site)))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.layers(hidden)


class DensePropertyNetwork(PropertyNetwork):
    """Dense layers that predict properties, in the units of the networks, from codes and contents.

    Noise is added to the codes in training, because those of samples are less exact than those of crystals.

    Parameters
    ----------
    shape
        What the shapes depend on.
    sizes
        Sizes.
    """

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        super().__init__()
        self.scale = _Standardised(shape, sizes)
        width = sizes.dense // 2
        self.layers = nn.Sequential(
            nn.Linear(self.scale.flat + shape.n_elements, width),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(width, shape.n_properties),
        )

    def predict(self, codes: Codes, contents: Tensor) -> Tensor:
        """Return the properties."""
        numbers = self.scale(codes)
        if self.training:
            numbers = numbers + _NOISE * torch.randn_like(numbers)
        found: Tensor = self.layers(torch.cat([numbers, contents / ATOMS], 1))
        return found

    def freeze(self) -> None:
        """Let the weights stay."""
        self.requires_grad_(False)


class DenseNetworks(CodeModel):
    """Conditional GAN (arXiv:1411.1784) of codes with a constraint.

    The numbers in a code have no order that convolutions could use. Generator and critic are given the contents and the
    wanted values of properties; the loss of the generator contains the squared difference of the predicted values from
    the wanted ones, where any are wanted, times :attr:`strength`. The critic's gradient is penalised.

    Parameters
    ----------
    shape
        What the shapes depend on.
    sizes
        Sizes.
    """

    won = 0.0

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        super().__init__(shape, sizes)
        self.scale = _Standardised(shape, sizes)
        width, told = sizes.dense, shape.n_elements + shape.n_features
        self.generator = nn.Sequential(
            nn.Linear(sizes.noise + told, width),
            _Residual(width),
            _Residual(width),
            nn.LayerNorm(width),
            nn.Linear(width, self.scale.flat),
        )
        self.critic = nn.Sequential(
            nn.Linear(self.scale.flat + told, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
            nn.Flatten(0),
        )
        self.constraint = DensePropertyNetwork(shape, sizes) if shape.n_properties else None
        self._loss = CrossEntropy(penalty=_PENALTY)

    def adapt(self, codes: Codes) -> None:
        """Standardise the numbers of codes."""
        self.scale.adapt(codes)
        if isinstance(self.constraint, DensePropertyNetwork):
            self.constraint.scale.adapt(codes)

    def generate(self, noise: Tensor, contents: Tensor, features: Tensor) -> Codes:
        """Return the codes of crystals."""
        return self.scale.back(self._drawn(noise, contents, features))

    def turns(self) -> Sequence[Turn]:
        """Return the updates of the critic and of the generator."""
        return [
            Turn(name="critic", parameters=list(self.critic.parameters()), losses=self._of_critic),
            Turn(name="generator", parameters=list(self.generator.parameters()), losses=self._of_generator),
        ]

    def _of_critic(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            drawn = self._drawn(batch["noise"], batch["contents"], batch["features"])
        told = torch.cat([batch["contents"] / ATOMS, batch["features"]], 1)
        return self._loss.of_critic(
            lambda numbers: self.critic(torch.cat([numbers, told], 1)), self.scale(codes_of(batch)), drawn
        )

    def _of_generator(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        contents, features = batch["contents"], batch["features"]
        drawn = self._drawn(batch["noise"], contents, features)
        scores = self.critic(torch.cat([drawn, contents / ATOMS, features], 1))
        terms = {"samples": self._loss.of_generator(scores)}
        if self.constraint is not None:
            wrong = self.constraint.predict(self.scale.back(drawn), contents) - batch["values"]
            terms["constraint"] = self.strength * (wrong.square() * batch["wanted"]).sum(1)
        return terms

    def _drawn(self, noise: Tensor, contents: Tensor, features: Tensor) -> Tensor:
        drawn: Tensor = self.generator(torch.cat([noise, contents / ATOMS, features], 1))
        return drawn

    def train(self, mode: bool = True) -> DenseNetworks:
        """Set the mode of the networks that compete; the constraint is in training only while it is trained alone."""
        super().train(mode)
        if self.constraint is not None:
            self.constraint.eval()
        return self


# Standard deviation of the noise. For formation energies of 176 crystals of Bi-Se, in five-fold cross-validation, it
# lowers the mean squared error from 0.46 to 0.39, of a variance of 0.83.
_NOISE = 0.6
# Factor of the squared gradient of the critic at the crystals.
_PENALTY = 0.5
