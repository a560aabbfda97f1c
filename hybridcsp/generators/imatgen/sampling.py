"""Sampling and reconstruction of crystals by trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.imatgen.crystal_images import CrystalImages, decode_images, encode_images
from hybridcsp.generators.imatgen.drawing import KnownMaterials
from hybridcsp.generators.imatgen.recipes import CELLS, MATERIALS, SITES, Recipe
from hybridcsp.structure.representations.base import BeyondLimitsError, DecodingError
from hybridcsp.structure.representations.voxels import VoxelGrid
from hybridcsp.structure.validity import is_finite_crystal, is_too_close

#: Number of points of the latent space that are drawn for a request before it is rejected.
DRAWS = 16

# Reasons for rejection are recorded in event logs and must not change.
_NO_CONTENTS = "not the contents of a cell"
_TOO_CLOSE = "atoms of the decoded crystal are too close"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """Sampler of crystals.

    Attributes
    ----------
    recipe
        Components.
    grid
        Sizes of the images.
    networks
        Trained networks by part.
    known
        Encoded training set.
    elements
        Atomic numbers of the elements.
    """

    recipe: Recipe
    grid: VoxelGrid
    networks: torch.nn.ModuleDict
    known: KnownMaterials
    elements: Sequence[int]

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Answer requests; those that are not answered by a crystal are repeated up to :data:`DRAWS` times."""
        answers: list[Sample | Reject] = []
        for number, request in enumerate(requests):
            answers.append(Reject(request=number, reason=self._refusal(request.contents)))
        left = [answer.request for answer in answers if isinstance(answer, Reject) and not answer.reason]
        contents = {number: self._contents(requests[number].contents) for number in left}
        low = {n: (quantile := requests[n].energy_quantile) is not None and quantile <= 0.5 for n in left}
        for _ in range(DRAWS):
            if not left:
                break
            wanted = np.array([contents[number] for number in left])
            points = self.recipe.draws.draw(
                self.networks[MATERIALS], self.known, wanted, np.array([low[number] for number in left]), rng
            )
            for number, found in zip(left, self._decoded(points, wanted), strict=True):
                answers[number] = (
                    Sample(request=number, atoms=found)
                    if isinstance(found, Atoms)
                    else Reject(request=number, reason=found.reason)
                )
            left = [number for number in left if isinstance(answers[number], Reject)]
        return answers

    def reconstruct(self, crystals: Sequence[Atoms]) -> list[Atoms | DecodingError]:
        """Encode crystals and decode the means of their latent points."""
        voxels = self.recipe.voxels(self.grid)
        turned = [self.recipe.axes(atoms) if is_finite_crystal(atoms) else atoms for atoms in crystals]
        found: list[Atoms | DecodingError] = [BeyondLimitsError(self._limit(atoms)) for atoms in turned]
        good = [number for number, error in enumerate(found) if isinstance(error, DecodingError) and not error.reason]
        if not good:
            return found
        images = CrystalImages.of([turned[number] for number in good], self.elements, voxels)
        network = self.networks[MATERIALS]
        with torch.no_grad():
            contents = torch.as_tensor(images.contents, dtype=torch.float32)
            mean, log_variance = network.encode(
                encode_images(images, self.networks[SITES], self.networks[CELLS]), contents
            )
            points = network.perturb(mean, log_variance, torch.zeros_like(mean))
        for number, decoded in zip(good, self._decoded(points, images.contents), strict=True):
            found[number] = decoded
        return found

    @torch.no_grad()
    def _decoded(self, points: torch.Tensor, contents: NDArray[np.int_]) -> list[Atoms | DecodingError]:
        """Return the crystals at points of the latent space, or the errors."""
        codes = self.networks[MATERIALS].decode(points, torch.as_tensor(contents, dtype=torch.float32))
        found: list[Atoms | DecodingError] = []
        drawn = decode_images(codes, contents, self.elements, self.networks[SITES], self.networks[CELLS])
        for images, row in zip(drawn, contents, strict=True):
            wanted = {number: int(n) for number, n in zip(self.elements, row, strict=True) if n}
            try:
                atoms = self.recipe.reading.read(images, self.grid, wanted)
            except DecodingError as error:
                found.append(error)
                continue
            usable = is_finite_crystal(atoms) and not is_too_close(atoms)
            found.append(atoms if usable else DecodingError(_TOO_CLOSE))
        return found

    def _limit(self, atoms: Atoms) -> str:
        others = sorted({chemical_symbols[n] for n in atoms.numbers if n not in self.elements})
        return self._other_elements() if others else self.recipe.voxels(self.grid).limit(atoms)

    def _refusal(self, contents: Mapping[str, int]) -> str:
        """Return why no crystal of these contents can be sampled, or an empty string."""
        counts = list(contents.values())
        if not counts or min(counts) < 0 or sum(counts) < 1 or any(symbol not in atomic_numbers for symbol in contents):
            return _NO_CONTENTS
        if any(n and atomic_numbers[symbol] not in self.elements for symbol, n in contents.items()):
            return self._other_elements()
        if sum(counts) > self.grid.atoms:
            return f"the images hold at most {self.grid.atoms} atoms"
        return ""

    def _other_elements(self) -> str:
        return f"the model knows only {' and '.join(chemical_symbols[number] for number in self.elements)}"

    def _contents(self, contents: Mapping[str, int]) -> NDArray[np.int_]:
        return np.array([contents.get(chemical_symbols[number], 0) for number in self.elements])
