"""The ``cgcnn`` predictor and its configurations."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch

from hybridcsp.predictors.cgcnn.network import Architecture, ConvolutionNetwork
from hybridcsp.predictors.graphs import NearestNeighbours, Neighbourhood, SmoothNeighbours
from hybridcsp.predictors.regression import RegressionEnsemble
from hybridcsp.predictors.scales import Scale, composition_scale, standard_scale
from hybridcsp.training.configurations import CORRECTED, PUBLISHED


class CGCNN(RegressionEnsemble):
    """Crystal graph convolutional neural network (Xie and Grossman, doi:10.1103/PhysRevLett.120.145301).

    Both configurations have the authors' features of atoms and distances, convolutions and sizes, and are trained with
    AdamW and a learning rate that falls to a hundredth.

    The configuration *published* has the authors' graph of the 12 nearest neighbours within 8 Å, batch normalisation
    and the squared error. Its graph depends on which of several equally distant atoms is the twelfth neighbour, so that
    equal crystals in different cells may have different predictions; and batch normalisation makes the prediction of a
    crystal in training depend on the others in its batch.

    The configuration *corrected*, the default, includes neighbours at and shortly beyond the distance of the twelfth
    with weights that fall smoothly to 0, normalises the features of each atom and message by themselves, learns the
    absolute error (near 0 the squared one), and learns only what a linear function of the composition does not explain.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the network.
    neighbourhood
        Rule for the neighbours of an atom.
    norm
        Function that returns the normalisation of a number of features.
    loss
        Loss of a prediction.
    scale
        Function that returns the scale on which the property is learned.
    """

    name = "cgcnn"
    sizes = Architecture
    defaults = MappingProxyType({"learning_rate": 2e-3, "patience": 30})

    def __init__(
        self,
        configuration: str,
        *,
        architecture: Architecture | None = None,
        neighbourhood: Neighbourhood,
        norm: Callable[[int], torch.nn.Module],
        loss: torch.nn.Module,
        scale: Callable[..., Scale],
    ) -> None:
        super().__init__(configuration, architecture or Architecture(), scale)
        self._neighbourhood = neighbourhood
        self._norm = norm
        self._loss = loss

    def network(self) -> ConvolutionNetwork:
        """Return a network with random weights."""
        return ConvolutionNetwork(self.architecture, self._neighbourhood, self._norm, self._loss)


def published() -> CGCNN:
    """Return an untrained predictor of the configuration *published*."""
    return CGCNN(
        PUBLISHED,
        neighbourhood=NearestNeighbours(),
        norm=torch.nn.BatchNorm1d,
        loss=torch.nn.MSELoss(reduction="none"),
        scale=standard_scale,
    )


def corrected() -> CGCNN:
    """Return an untrained predictor of the configuration *corrected*."""
    return CGCNN(
        CORRECTED,
        neighbourhood=SmoothNeighbours(),
        norm=torch.nn.LayerNorm,
        loss=torch.nn.SmoothL1Loss(reduction="none", beta=0.1),
        scale=composition_scale,
    )


CGCNN.configurations = MappingProxyType({CORRECTED: corrected, PUBLISHED: published})
