"""Sampling and reconstruction of crystals by trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.images.coder import ImageCoder
from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.imatgen.drawing import KnownMaterials, LatentDraws
from hybridcsp.generators.imatgen.materials_network import MaterialsAutoencoder
from hybridcsp.structure.representations.base import DecodingError

#: Number of points of the latent space that are drawn for a request before it is rejected.
DRAWS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """Sampler of crystals.

    Attributes
    ----------
    coder
        Autoencoders of images.
    materials
        Trained materials autoencoder.
    draws
        How latent points are drawn.
    known
        Encoded training set.
    """

    coder: ImageCoder
    materials: MaterialsAutoencoder
    draws: LatentDraws
    known: KnownMaterials

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Answer requests; those that are not answered by a crystal are repeated up to :data:`DRAWS` times."""
        answers: list[Sample | Reject] = []
        for number, request in enumerate(requests):
            answers.append(Reject(request=number, reason=self.coder.refusal(request.contents)))
        left = [answer.request for answer in answers if isinstance(answer, Reject) and not answer.reason]
        contents = {number: self.coder.counts(requests[number].contents) for number in left}
        low = {n: (quantile := requests[n].energy_quantile) is not None and quantile <= 0.5 for n in left}
        for _ in range(DRAWS):
            if not left:
                break
            wanted = np.array([contents[number] for number in left])
            points = self.draws.draw(
                self.materials, self.known, wanted, np.array([low[number] for number in left]), rng
            )
            decoded = self.coder.decode(self._codes(points, wanted), wanted)
            for number, found in zip(left, decoded, strict=True):
                answers[number] = (
                    Sample(request=number, atoms=found)
                    if isinstance(found, Atoms)
                    else Reject(request=number, reason=found.reason)
                )
            left = [number for number in left if isinstance(answers[number], Reject)]
        return answers

    def reconstruct(self, crystals: Sequence[Atoms]) -> list[Atoms | DecodingError]:
        """Encode crystals and decode the means of their latent points."""
        return self.coder.reconstruct(crystals, self._most_likely)

    def _most_likely(self, codes: Codes, contents: NDArray[np.int_]) -> Codes:
        """Return the codes that the means of the latent points are decoded to."""
        with torch.no_grad():
            mean, log_variance = self.materials.encode(codes, torch.as_tensor(contents, dtype=torch.float32))
            points = self.materials.perturb(mean, log_variance, torch.zeros_like(mean))
        return self._codes(points, contents)

    def _codes(self, points: torch.Tensor, contents: NDArray[np.int_]) -> Codes:
        with torch.no_grad():
            return self.materials.decode(points, torch.as_tensor(contents, dtype=torch.float32))
