"""The ``flow`` generator: flow matching as training, and integration as sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch

from hybridcsp.generators.base import Example
from hybridcsp.generators.flow.data import FlowData
from hybridcsp.generators.flow.matching import FlowModel, Integration, integrate
from hybridcsp.generators.joint.data import Array, Scale
from hybridcsp.generators.joint.generator import InitialBatch, JointGenerator
from hybridcsp.generators.joint.model import JointModel
from hybridcsp.generators.joint.network import SIZES, Architecture


class FlowGenerator(JointGenerator):
    """Generator that integrates learned velocities from noise to crystals.

    Fractional coordinates are distributed uniformly at first and the log-lattice normally; both follow velocities that
    a message-passing network has learned by flow matching, as in FlowMM (arXiv:2406.04713) and CrystalFlow
    (arXiv:2412.11693). Unlike in both, each crystal is learned along the shortest path from the noise among its
    translations and permutations of equal atoms, and the velocities are conditioned on a space group: the requested one
    or one drawn from a learned distribution. Samples that are not close to a requested space group are rejected, the
    others are symmetrised.

    Parameters
    ----------
    architecture
        Sizes of the network.
    integration
        Settings of the integration.
    """

    name = "flow"
    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES

    def __init__(self, architecture: Architecture | None = None, integration: Integration | None = None) -> None:
        super().__init__(architecture or Architecture())
        self.integration = integration or Integration()

    @classmethod
    def from_scratch(cls) -> Self:
        """Return an untrained generator with a small network, which learns a few hundred crystals in half the time."""
        return cls(Architecture(width=64, message=48, pair=32, layers=3))

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        """Return an untrained generator with the sizes and settings in a card."""
        return cls(Architecture(**card["architecture"]), Integration(**card["integration"]))

    def about(self) -> dict[str, Any]:
        """Return the entries of a card from which :meth:`from_card` makes the generator."""
        return {"architecture": asdict(self.architecture), "integration": asdict(self.integration)}

    def _model_of(self, architecture: Architecture) -> JointModel:
        return FlowModel(architecture)

    def _data_of(self, examples: Sequence[Example], scale: Scale | None) -> FlowData:
        return FlowData.from_examples(examples, scale, self._properties)

    @torch.no_grad()
    def _drawn(
        self, model: JointModel, scale: Scale, batch: InitialBatch, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        positions, lattices = integrate(
            model.network,
            self.integration,
            batch.conditions,
            numbers=batch.numbers,
            positions=batch.positions,
            lattice=batch.lattice,
            scale=scale.tensors(),
            lengths=batch.lengths,
        )
        return positions.double().numpy(), lattices.double().numpy() * scale.spread + scale.mean
