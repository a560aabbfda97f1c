"""The ``equivariant`` predictor and its configurations."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch

from hybridcsp.predictors.equivariant.network import Architecture, EquivariantNetwork
from hybridcsp.predictors.graphs import Neighbourhood, SmoothNeighbours
from hybridcsp.predictors.regression import RegressionEnsemble
from hybridcsp.predictors.scales import Scale, composition_scale, standard_scale
from hybridcsp.training.configurations import CORRECTED, PUBLISHED


class EquivariantPredictor(RegressionEnsemble):
    """Network of scalars, vectors and tensors on e3nn, with messages as in NequIP (doi:10.1038/s41467-022-29939-5).

    Both configurations have NequIP's messages, tensor products of the features of neighbours with spherical harmonics,
    whose weights depend on the distance, and its gates. Unlike in NequIP, which sums energies of atoms, the features of
    atoms are averaged, because the properties are those of a material and not of a cell; and messages come from the
    smooth neighbourhood of CGCNN's configuration *corrected*, which has a third of the neighbours of a sphere of 5 Å.

    The configuration *published* has features up to degree 2, learns the squared error, and the property itself.

    The configuration *corrected*, the default, has scalars and vectors, which is half as expensive, learns the absolute
    error (near 0 the squared one), and learns only what a linear function of the composition does not explain.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the network.
    neighbourhood
        Rule for the neighbours of an atom.
    loss
        Loss of a prediction.
    scale
        Function that returns the scale on which the property is learned.

    Raises
    ------
    InputError
        If e3nn is not installed, when a network is made.
    """

    name = "equivariant"
    sizes = Architecture
    defaults = MappingProxyType({"learning_rate": 3e-3, "patience": 30, "epochs": 50})

    def __init__(
        self,
        configuration: str,
        *,
        architecture: Architecture | None = None,
        neighbourhood: Neighbourhood,
        loss: torch.nn.Module,
        scale: Callable[..., Scale],
    ) -> None:
        super().__init__(configuration, architecture or Architecture(), scale)
        self._neighbourhood = neighbourhood
        self._loss = loss

    def parameters_of_network(self) -> int:
        """Return a lower bound of the number of parameters, as e3nn cannot make networks without memory."""
        sizes = self.architecture
        of_layer = sizes.channels**2 + sizes.hidden * (sizes.radial + sizes.channels * (sizes.degree + 1))
        return int(sizes.layers * of_layer + sizes.hidden * (sizes.hidden + sizes.channels))

    def network(self) -> EquivariantNetwork:
        """Return a network with random weights."""
        return EquivariantNetwork(self.architecture, self._neighbourhood, self._loss)


def published() -> EquivariantPredictor:
    """Return an untrained predictor of the configuration *published*."""
    return EquivariantPredictor(
        PUBLISHED,
        architecture=Architecture(degree=2),
        neighbourhood=SmoothNeighbours(),
        loss=torch.nn.MSELoss(reduction="none"),
        scale=standard_scale,
    )


def corrected() -> EquivariantPredictor:
    """Return an untrained predictor of the configuration *corrected*."""
    return EquivariantPredictor(
        CORRECTED,
        neighbourhood=SmoothNeighbours(),
        loss=torch.nn.SmoothL1Loss(reduction="none", beta=0.1),
        scale=composition_scale,
    )


EquivariantPredictor.configurations = MappingProxyType({CORRECTED: corrected, PUBLISHED: published})
