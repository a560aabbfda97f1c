"""Deep convolutional networks on two-dimensional crystal graphs, as published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hybridcsp.generators.ccdcgan.crystal_graph import PlanarCrystalGraph
from hybridcsp.generators.ccdcgan.model import CodeModel, PropertyNetwork, Shape, codes_of
from hybridcsp.generators.ccdcgan.sizes import Sizes
from hybridcsp.generators.images.codes import Codes
from hybridcsp.training.adversarial import Turn
from hybridcsp.training.adversarial_losses import CrossEntropy

_DROPOUT = 0.25


class GraphPropertyNetwork(PropertyNetwork):
    """Convolutions and seven dense layers on crystal graphs, which predict one property in its unit.

    The last layer is followed by a leaky rectifier, too. The contents are not known to the network.

    Parameters
    ----------
    graph
        Layout of the crystal graphs.
    width
        Largest number of channels but one.
    """

    def __init__(self, graph: PlanarCrystalGraph, width: int) -> None:
        super().__init__()
        self._graph = graph
        convolutions, flat = _convolutions(graph.side, width)
        layers: list[nn.Module] = [*convolutions, nn.Flatten()]
        for features in (8 * width, 2 * width, 2 * width, 2 * width, width // 2, 1):
            layers += [nn.Linear(flat, features), nn.LeakyReLU(0.2)]
            flat = features
        self.layers = nn.Sequential(*layers)
        self.apply(glorot)

    def predict(self, codes: Codes, contents: Tensor) -> Tensor:
        """Return the property; the contents are ignored."""
        found: Tensor = self.layers(self._graph.draw(codes))
        return found

    def freeze(self) -> None:
        """Let weights and running means stay; in training, features are dropped and normalised over a batch still."""
        self.requires_grad_(False)
        self._keep_means(0.0)

    def thaw(self) -> None:
        """Let the weights and the running means be trained."""
        super().thaw()
        self._keep_means(_MOMENTUM)

    def _keep_means(self, momentum: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum


class GraphNetworks(CodeModel):
    """Deep convolutional GAN (DCGAN) of crystal graphs with a constraint, as published.

    The generator maps noise to crystal graphs and knows neither contents nor wanted properties. The critic is updated
    with crystals and with samples in turn; these samples are drawn with running means of the features, those of which
    the generator learns with means over the batch. The loss of the generator is the cross-entropy plus the exponential
    function of the property times :attr:`strength`.

    Parameters
    ----------
    shape
        What the shapes depend on; there is one property at most.
    sizes
        Sizes.
    """

    won = 0.0

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        super().__init__(shape, sizes)
        self._graph = graph = PlanarCrystalGraph(shape.n_elements, sizes.cell_code, sizes.site_code)
        width, quarter = sizes.width, graph.side // 4
        if width % 4:
            raise ValueError("the width must be a multiple of 4")
        self.generator = nn.Sequential(
            nn.Linear(sizes.noise, width * quarter**2),
            nn.ReLU(),
            nn.Unflatten(1, (width, quarter, quarter)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            _normalisation(width),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width // 2, 3, padding=1),
            _normalisation(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, 1, 3, padding=1),
            nn.Tanh(),
        )
        convolutions, flat = _convolutions(graph.side, width)
        self.critic = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(flat, 1), nn.Flatten(0))
        self.constraint = GraphPropertyNetwork(graph, width) if shape.n_properties else None
        for network in (self.generator, self.critic):
            network.apply(glorot)
        self._loss = CrossEntropy()

    def adapt(self, codes: Codes) -> None:
        """Leave the codes, values from -1 to 1, as they are."""

    def generate(self, noise: Tensor, contents: Tensor, features: Tensor) -> Codes:
        """Return the codes of crystals; contents and features are ignored."""
        return self._graph.read(self.generator(noise))

    def turns(self) -> Sequence[Turn]:
        """Return the updates of the critic with crystals and with samples, and of the generator."""
        critic = list(self.critic.parameters())
        return [
            Turn(name="critic", parameters=critic, losses=self._of_crystals),
            Turn(name="critic", parameters=critic, losses=self._of_samples),
            Turn(name="generator", parameters=list(self.generator.parameters()), losses=self._of_generator),
        ]

    def _of_crystals(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"crystals": self._loss.of_generator(self.critic(self._graph.draw(codes_of(batch))))}

    def _of_samples(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.generator.eval()
        with torch.no_grad():
            drawn = self.generator(batch["noise"])
        self.generator.train()
        return {"samples": self._loss.of_generator(-self.critic(drawn))}

    def _of_generator(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        drawn = self.generator(batch["noise"])
        terms = {"samples": self._loss.of_generator(self.critic(drawn))}
        if self.constraint is not None:
            predicted = self.constraint.predict(self._graph.read(drawn), batch["contents"])
            terms["constraint"] = self.strength * predicted[:, 0].exp()
        return terms


# Fraction of the mean over a batch in a running mean of the features.
_MOMENTUM = 0.2


class _SameConvolution(nn.Conv2d):
    """Convolution of 3 x 3 numbers with zeros around the picture as TensorFlow has them: more of them at the end."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__(before, after, 3, stride)
        self._step = stride

    def forward(self, pictures: Tensor) -> Tensor:
        side = pictures.shape[-1]
        missing = max(0, (math.ceil(side / self._step) - 1) * self._step + 3 - side)
        around = (missing // 2, missing - missing // 2)
        return super().forward(pad(pictures, around * 2))


def _convolutions(side: int, width: int) -> tuple[list[nn.Module], int]:
    """Return the convolutions that read a crystal graph, and the number of features at their end."""
    layers: list[nn.Module] = [_SameConvolution(1, width // 4, 2), nn.LeakyReLU(0.2), nn.Dropout(_DROPOUT)]
    layers += [_SameConvolution(width // 4, width // 2, 2), nn.ZeroPad2d((0, 1, 0, 1))]
    layers += _rest(width // 2)
    for before, after, stride in ((width // 2, width, 2), (width, 2 * width, 1)):
        layers += [_SameConvolution(before, after, stride), *_rest(after)]
    end = math.ceil((math.ceil(math.ceil(side / 2) / 2) + 1) / 2)
    return layers, 2 * width * end**2


def _rest(channels: int) -> list[nn.Module]:
    return [_normalisation(channels), nn.LeakyReLU(0.2), nn.Dropout(_DROPOUT)]


def _normalisation(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=_MOMENTUM)


def glorot(module: nn.Module) -> None:
    """Draw the weights of a layer from Glorot's uniform distribution, and set its biases to zero."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
