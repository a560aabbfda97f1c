"""The ``diffusion`` generator: training by score matching, and sampling by predictor and corrector steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from hybridcsp.errors import UnknownNameError
from hybridcsp.generators import weights_io
from hybridcsp.generators.base import Condition, Example
from hybridcsp.generators.diffusion.configurations import CONFIGURATIONS
from hybridcsp.generators.diffusion.data import DiffusionData
from hybridcsp.generators.diffusion.lattices import LatticeContext
from hybridcsp.generators.diffusion.model import ConditionedDiffusion
from hybridcsp.generators.diffusion.sampling import Reversal, Sampling
from hybridcsp.generators.joint.data import Array, Scale
from hybridcsp.generators.joint.generator import InitialBatch, JointGenerator
from hybridcsp.generators.joint.model import JointModel
from hybridcsp.generators.joint.network import SIZES, Architecture
from hybridcsp.training.configurations import CORRECTED


class DiffusionGenerator(JointGenerator):
    """Generator that removes noise from fractional coordinates and lattice along learned scores.

    DiffCSP (Jiao et al., NeurIPS 2023, arXiv:2309.04475): the score of wrapped normal noise of the coordinates is
    learned, with standard deviations from 0.005 to 0.5 that grow exponentially over 1000 levels, and the noise of the
    lattice, whose variance follows a cosine. The network is that of ``flow``: unlike the authors' network, it reads
    the distances to nearest images, and the logarithm of the metric in place of the metric. The mean square of the
    score, by which the error of each level is divided, is integrated instead of estimated from 10,000 random numbers.

    The configuration *published* adds noise to the matrix of cell vectors in Å, samples in 1000 steps, each with a
    Langevin step (of size 1e-5, DiffCSP's for its data set MP-20), and reads no conditions. Its optimiser is theirs
    without the reduction of the learning rate on plateaus, and gradients are clipped by their norm, not one by one.

    In the configuration *corrected*, the default, the noise is added to the standardised log-lattice, because noisy
    matrices tend to cells of 1 Å, in which distances between atoms mean nothing. The network predicts a mixture of
    lattice and noise from which both follow at all levels (arXiv:2202.00512), and coordinates follow the ordinary
    differential equation with the same distributions, so that 50 steps are enough. Scores are conditioned on a space
    group, energy and pressure, as the velocities of ``flow`` are.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the network.
    sampling
        Settings of the steps from noise to crystals; by default those of the configuration.

    Raises
    ------
    InputError
        If there is no such configuration, or a setting is out of its range.
    """

    name = "diffusion"
    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES

    def __init__(
        self,
        configuration: str = CORRECTED,
        architecture: Architecture | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        if configuration not in CONFIGURATIONS:
            raise UnknownNameError("configuration", configuration, list(CONFIGURATIONS))
        super().__init__(architecture or Architecture())
        self.configuration = configuration
        self._components = CONFIGURATIONS[configuration]
        self.sampling = sampling or self._components.sampling
        self.sampling.check(self._components.lattices.levels)
        self.lattice_shape = self._components.lattices.shape
        self.optimisation = self._components.optimisation
        self.training_settings = self._components.settings

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with a small network, which learns a few hundred crystals in half the time."""
        return cls(architecture=Architecture(width=64, message=48, pair=32, layers=3))

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        """Return an untrained generator with the sizes and settings in a card."""
        return cls(card["configuration"], Architecture(**card["architecture"]), Sampling(**card["sampling"]))

    def about(self) -> dict[str, Any]:
        """Return the entries of a card from which :meth:`from_card` makes the generator."""
        return {
            "configuration": self.configuration,
            "architecture": asdict(self.architecture),
            "sampling": asdict(self.sampling),
        }

    @property
    def conditions(self) -> frozenset[Condition]:  # type: ignore[override]
        """Supported conditions: those of ``flow``, and none in the published configuration."""
        conditioned = issubclass(self._components.model, ConditionedDiffusion)
        return weights_io.conditions_of(self.card) if conditioned else frozenset()

    def _model_of(self, architecture: Architecture) -> JointModel:
        return self._components.model(architecture, self._components.lattices)

    def _data_of(self, examples: Sequence[Example], scale: Scale | None) -> DiffusionData:
        components = self._components
        return DiffusionData.from_examples(
            examples, scale, self._properties, coordinates=components.coordinates, lattices=components.lattices
        )

    def _drawn(
        self, model: JointModel, scale: Scale, batch: InitialBatch, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        mean, spread = scale.tensors()
        reversal = Reversal(
            coordinates=self._components.coordinates,
            lattices=self._components.lattices,
            predictor=self._components.predictor,
            settings=self.sampling,
        )
        positions, lattices = reversal.denoise(
            model.network,
            batch.conditions,
            LatticeContext(mean=mean, spread=spread, lengths=batch.lengths),
            numbers=batch.numbers,
            positions=batch.positions,
            lattice=batch.lattice,
            rng=rng,
        )
        return positions.double().numpy(), lattices.double().numpy() * scale.spread + scale.mean


DiffusionGenerator.configurations = MappingProxyType(
    {name: partial(DiffusionGenerator, name) for name in CONFIGURATIONS}
)
