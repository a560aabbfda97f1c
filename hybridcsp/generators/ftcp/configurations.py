"""The two configurations of FTCP, which consist of different components."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.ftcp.decoding import Assignment, Decoding, Filtering
from hybridcsp.generators.ftcp.network import (
    ROWS,
    SIZES,
    DirectAutoencoder,
    FourierAutoencoder,
    FtcpArchitecture,
    PublishedDivergence,
    SummedDivergence,
)
from hybridcsp.generators.ftcp.starts import KnownStarts, LatentStarts, SubstitutedStarts
from hybridcsp.generators.ftcp.steering import NearestValues, PredictedValues, Steering
from hybridcsp.structure.elemental_features import elemental_features
from hybridcsp.structure.elements import element_order
from hybridcsp.structure.lattice import canonical_cell
from hybridcsp.structure.representations.fourier import ELEMENTS, FourierProperties
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.optimisation import AdamWCosine, Optimisation, RMSpropSteps

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

# Weights in the loss of the entries of a matrix: elements, cell and sites, and all others.
_ELEMENTS, _CELL_AND_SITES, _OTHERS = 1.0, 10.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Represent the components in which the configurations differ.

    Attributes
    ----------
    representation
        Function that returns the representation, given the largest numbers of elements and sites.
    prepare
        Function that returns a crystal in the axes and order in which it is learned.
    architecture
        Default sizes of the network.
    network
        Function that returns an untrained network, given the representation, the number of properties and the sizes.
    optimisation
        Optimiser and course of the learning rate.
    starts
        Choice of the crystals around which samples are drawn.
    noise
        Standard deviation of the noise that is added to latent vectors.
    steering
        Way to make samples whose properties have wanted values.
    decoding
        Way to read crystals of requested contents from matrices.
    settings
        Settings of the training that differ from their defaults.
    """

    representation: Callable[[int, int], FourierProperties]
    prepare: Callable[[Atoms], Atoms]
    architecture: FtcpArchitecture
    network: Callable[[FourierProperties, int, FtcpArchitecture], FourierAutoencoder]
    optimisation: Optimisation
    starts: LatentStarts
    noise: float
    steering: Steering
    decoding: Decoding
    settings: Mapping[str, Any]


def _with_structure_factors(elements: int, sites: int) -> FourierProperties:
    return FourierProperties(_properties(), elements=elements, sites=sites)


def _with_projections(elements: int, sites: int) -> FourierProperties:
    return FourierProperties.published(_properties(), elements=elements, sites=sites)


def _properties() -> Array:
    return elemental_features()[1 : ELEMENTS + 1].astype(float)


def _sorted_sites(atoms: Atoms) -> Atoms:
    """Return a crystal in Niggli-reduced axes, sites in the order of elements and coordinates.

    The network sees axes and order. Elements are in ascending order of their numbers of atoms and electronegativities,
    so that crystals of one structure type have the same order whatever their elements are.
    """
    cell = canonical_cell(atoms)
    counts = {int(z): int(n) for z, n in zip(*np.unique(cell.numbers, return_counts=True), strict=True)}
    rank = {z: place for place, z in enumerate(element_order(counts))}
    fractions = np.round(cell.get_scaled_positions() % 1.0, 4) % 1.0
    return cell[np.lexsort((*fractions.T[::-1], [rank[int(z)] for z in cell.numbers]))]


def _as_it_is(atoms: Atoms) -> Atoms:
    return atoms


def _convolutions(representation: FourierProperties, properties: int, sizes: FtcpArchitecture) -> FourierAutoencoder:
    weights = _padded(np.ones(representation.shape))
    return FourierAutoencoder(weights, properties, sizes, PublishedDivergence())


def _with_dense_layers(
    representation: FourierProperties, properties: int, sizes: FtcpArchitecture
) -> FourierAutoencoder:
    """Return a network in whose loss the few entries that crystals are decoded from count as much as all others."""
    lattice, _, occupancies, _, _ = representation.rows()
    weights = np.full(representation.shape, _OTHERS)
    weights[: lattice.start, : representation.leading] = _ELEMENTS
    weights[lattice.start : occupancies.stop, : representation.leading] = _CELL_AND_SITES
    real_space = occupancies.stop, representation.leading
    return DirectAutoencoder(_padded(weights), properties, sizes, SummedDivergence(), real_space=real_space)


def _padded(weights: Array) -> torch.Tensor:
    return torch.as_tensor(np.pad(weights, ((0, -len(weights) % ROWS), (0, 0))))


CONFIGURATIONS: Mapping[str, Configuration] = {
    CORRECTED: Configuration(
        representation=_with_structure_factors,
        prepare=_sorted_sites,
        architecture=SIZES["compact"],
        network=_with_dense_layers,
        optimisation=AdamWCosine(),
        starts=SubstitutedStarts(),
        noise=0.3,
        steering=PredictedValues(),
        decoding=Assignment(),
        settings={"epochs": 100, "batch_size": 64, "learning_rate": 1e-3},
    ),
    PUBLISHED: Configuration(
        representation=_with_projections,
        prepare=_as_it_is,
        architecture=SIZES["published"],
        network=_convolutions,
        optimisation=RMSpropSteps({50: 0.2, 100: 0.1}),
        starts=KnownStarts(),
        noise=0.6,
        steering=NearestValues(),
        decoding=Filtering(),
        settings={
            "epochs": 200,
            "batch_size": 256,
            "learning_rate": 5e-4,
            "clip": 1e9,
            "averaging": 0.0,
            "patience": 200,
        },
    ),
}
