"""Sampling of FTCP: latent vectors of known crystals, noise, and crystals decoded from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hybridcsp.generators.base import Reject, Request, Sample, equal_requests
from hybridcsp.generators.ftcp.configurations import Configuration
from hybridcsp.generators.ftcp.data import Scale
from hybridcsp.generators.ftcp.known import KnownCrystals
from hybridcsp.generators.ftcp.network import FourierAutoencoder
from hybridcsp.generators.ftcp.steering import Targets
from hybridcsp.structure.representations.base import DecodingError
from hybridcsp.structure.representations.fourier import ELEMENTS, FourierProperties
from hybridcsp.structure.validity import is_finite_crystal, is_too_close

#: Number of times that a sample is drawn again if it is no crystal of the request.
REDRAWS = 7


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """Represent everything that encoding and sampling need.

    Attributes
    ----------
    network
        Trained network.
    representation
        Representation of its matrices.
    scale
        Scale of its matrices and properties.
    known
        Crystals around which samples are drawn.
    configuration
        Components of the method.
    """

    network: FourierAutoencoder
    representation: FourierProperties
    scale: Scale
    known: KnownCrystals
    configuration: Configuration

    @torch.no_grad()
    def encode(self, crystals: Sequence[Atoms]) -> torch.Tensor:
        """Return the means of the latent vectors of crystals within the limits, shape ``(n, latent)``."""
        prepared = [self.configuration.prepare(atoms) for atoms in crystals]
        matrices = np.stack([self.scale.encode(self.representation.encode(atoms)) for atoms in prepared])
        return self.network.encode(torch.from_numpy(matrices))[0]

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> list[NDArray[np.float64]]:
        """Return the matrices that are decoded from latent vectors."""
        return [self.scale.decode(scaled) for scaled in self.network.decode(latent).numpy()]

    @torch.no_grad()
    def predict(self, latent: torch.Tensor) -> NDArray[np.float64]:
        """Return the scaled properties that are predicted for latent vectors, shape ``(n, n_properties)``."""
        return np.asarray(self.network.predict(latent).numpy(), dtype=float)


def sample(model: TrainedModel, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
    """Sample one crystal for each request; what is no crystal of the request is drawn again :data:`REDRAWS` times.

    Equal requests are answered with samples around one start after the other, the most promising first.
    """
    answers: dict[int, Sample | Reject] = {}
    for group in equal_requests(requests):
        starts = _starts(model, requests[group[0]])
        if isinstance(starts, str):
            answers |= {number: Reject(request=number, reason=starts) for number in group}
        else:
            answers |= _around(model, starts, requests[group[0]], group, rng)
    return [answers[number] for number in range(len(requests))]


def _starts(model: TrainedModel, request: Request) -> torch.Tensor | str:
    """Return the latent vectors around which samples are drawn, or the reason why there are none."""
    wanted = _contents(request)
    if not wanted or min(wanted) < 1 or min(wanted.values()) < 1:
        return "not the contents of a cell"
    representation = model.representation
    if len(wanted) > representation.elements or sum(wanted.values()) > representation.sites or max(wanted) > ELEMENTS:
        return "more elements or sites than the model has learned"
    targets = Targets.of(request.targets, model.scale)
    if not targets.reachable:
        return "wanted value of a property beyond those of the training set"
    crystals, positions = model.configuration.starts.choose(model.known, wanted)
    if not crystals:
        return "no known crystal with these numbers of atoms"
    latent = model.encode(crystals)
    if not targets.any:
        return latent
    return model.configuration.steering.starts(model.network, latent, model.known.properties[positions], targets)


def _around(
    model: TrainedModel, starts: torch.Tensor, request: Request, numbers: Sequence[int], rng: np.random.Generator
) -> dict[int, Sample | Reject]:
    """Return answers to equal requests, in turn around one start after the other."""
    wanted, targets = _contents(request), Targets.of(request.targets, model.scale)
    answers: dict[int, Sample | Reject] = {}
    pending, turn = list(numbers), 0
    for _ in range(1 + REDRAWS):
        centres = starts[(turn + torch.arange(len(pending))) % len(starts)]
        turn += len(pending)
        noise = torch.as_tensor(rng.normal(size=tuple(centres.shape)), dtype=torch.float32)
        matrices = model.decode(centres + model.configuration.noise * noise)
        drawn = [_crystal(model, matrix, wanted) for matrix in matrices]
        if targets.any:
            drawn = _with_wanted_values(model, drawn, targets)
        for number, found in zip(pending, drawn, strict=True):
            if isinstance(found, Atoms):
                answers[number] = Sample(atoms=found, request=number)
            else:
                answers[number] = Reject(request=number, reason=found)
        pending = [number for number in pending if isinstance(answers[number], Reject)]
        if not pending:
            break
    return answers


def _crystal(model: TrainedModel, matrix: NDArray[np.float64], wanted: Mapping[int, int]) -> Atoms | str:
    """Return the crystal of the contents that a matrix describes, or the reason why there is none."""
    try:
        atoms = model.configuration.decoding.crystal(matrix, model.representation, wanted)
    except DecodingError as error:
        return error.reason
    if not is_finite_crystal(atoms):
        return "not a crystal"
    return "atoms too close" if is_too_close(atoms) else atoms


def _with_wanted_values(model: TrainedModel, drawn: Sequence[Atoms | str], targets: Targets) -> list[Atoms | str]:
    """Return the crystals that the steering accepts, and the reasons against the others."""
    crystals = [found for found in drawn if isinstance(found, Atoms)]
    if not crystals:
        return list(drawn)
    accepted = iter(model.configuration.steering.accepts(model.predict(model.encode(crystals)), targets))
    reason = "predicted value of a property not as wanted"
    return [found if isinstance(found, str) or next(accepted) else reason for found in drawn]


def _contents(request: Request) -> dict[int, int]:
    """Return the number of atoms by atomic number, 0 for an unknown element."""
    return {atomic_numbers.get(symbol, 0): count for symbol, count in request.contents.items()}
