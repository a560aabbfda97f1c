"""The two configurations of the diffusion, which consist of different components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hybridcsp.generators.diffusion.coordinates import Ancestral, CoordinateNoise, CoordinatePredictor, ProbabilityFlow
from hybridcsp.generators.diffusion.lattices import LatticeMatrices, LatticeNoise, LogLattices
from hybridcsp.generators.diffusion.model import ConditionedDiffusion, DiffusionModel
from hybridcsp.generators.diffusion.sampling import Sampling
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.optimisation import AdamWCosine, ConstantAdam, Optimisation

#: Number of levels of the noise.
LEVELS = 1000


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Represent the components of a configuration.

    Attributes
    ----------
    coordinates, lattices
        Noise of coordinates and lattices.
    model
        Network and its conditions.
    predictor
        Step of the coordinates from one level to a lower one.
    sampling
        Default settings of the steps.
    optimisation
        Optimiser and course of the learning rate.
    settings
        Settings of the training that differ from their defaults.
    """

    coordinates: CoordinateNoise
    lattices: LatticeNoise
    model: type[DiffusionModel]
    predictor: CoordinatePredictor
    sampling: Sampling
    optimisation: Optimisation
    settings: Mapping[str, Any]


#: Components of the configurations by name, the default first.
CONFIGURATIONS: Mapping[str, Configuration] = MappingProxyType(
    {
        CORRECTED: Configuration(
            coordinates=CoordinateNoise(LEVELS, smallest=0.01),
            lattices=LogLattices(LEVELS),
            model=ConditionedDiffusion,
            predictor=ProbabilityFlow(),
            sampling=Sampling(steps=50, correction=0.0),
            optimisation=AdamWCosine(),
            settings={},
        ),
        PUBLISHED: Configuration(
            coordinates=CoordinateNoise(LEVELS),
            lattices=LatticeMatrices(LEVELS),
            model=DiffusionModel,
            predictor=Ancestral(),
            sampling=Sampling(steps=LEVELS, correction=1e-5),
            optimisation=ConstantAdam(),
            settings={
                "epochs": 1000,
                "batch_size": 256,
                "learning_rate": 1e-3,
                "averaging": 0.0,
                "patience": 100_000,
            },
        ),
    }
)
