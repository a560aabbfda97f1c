"""Initial states of samples: contents, noise, and conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.base import Request
from hybridcsp.generators.joint.data import energy_features, pressure_features
from hybridcsp.generators.joint.network import SpacegroupPrior
from hybridcsp.generators.properties import LearnedProperties

# Largest number of pairs of atoms in one batch of samples.
_MAX_PAIRS = 25_600


@dataclass(frozen=True, kw_only=True, eq=False)
class InitialState:
    """Initial state of the crystal for one request.

    Attributes
    ----------
    request
        Number of the request.
    numbers
        Atomic numbers, shape ``(n_atoms,)``.
    positions
        Fractional coordinates, shape ``(n_atoms, 3)``.
    lattice
        Noise of the lattice: a standardised log-lattice, shape ``(6,)``, or a matrix of cell vectors.
    requested_group
        Requested space group or ``None``.
    spacegroup
        Space group on which the network is conditioned, or ``None``.
    energy
        Requested energy quantile and 1, or 0 and 0.
    pressure
        Requested pressure on a scale from 0 to 1 and 1, or 0 and 0.
    properties
        Features of requested properties, shape ``(n_features,)``; without features if none are learned.
    guidance
        Weight of the guidance by the properties, 0 for none.
    """

    request: int
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    lattice: NDArray[np.float64]
    requested_group: int | None
    spacegroup: int | None
    energy: tuple[float, float]
    pressure: tuple[float, float]
    properties: NDArray[np.float32]
    guidance: float

    @classmethod
    def sample(
        cls,
        number: int,
        request: Request,
        numbers: NDArray[np.int64],
        rng: np.random.Generator,
        learned: LearnedProperties | None = None,
        lattice_shape: tuple[int, ...] = (6,),
    ) -> Self:
        """Draw the noise for a request, and values of the learned properties within its targets."""
        positions, lattice = rng.random((len(numbers), 3)), rng.standard_normal(lattice_shape)
        properties = np.zeros(0, dtype=np.float32)
        if learned is not None and learned.scales:
            properties = learned.features_of_targets(request.targets, rng)
        return cls(
            request=number,
            numbers=numbers,
            positions=positions,
            lattice=lattice,
            requested_group=request.spacegroup,
            spacegroup=request.spacegroup,
            energy=energy_features(request.energy_quantile),
            pressure=pressure_features(request.pressure_gpa),
            properties=properties,
            guidance=request.guidance,
        )

    def resampled(self, rng: np.random.Generator) -> Self:
        """Return the same state with new noise."""
        return replace(
            self, positions=rng.random(self.positions.shape), lattice=rng.standard_normal(self.lattice.shape)
        )


def atomic_numbers_of(contents: Mapping[str, int]) -> NDArray[np.int64] | None:
    """Return the atomic numbers of contents, or ``None`` if these are not valid contents of a cell."""
    from ase.data import atomic_numbers  # networks can be trained in environments with torch alone

    if not contents or any(s not in atomic_numbers or s == "X" or n < 1 for s, n in contents.items()):
        return None
    return np.repeat([atomic_numbers[s] for s in contents], list(contents.values())).astype(np.int64)


@torch.no_grad()
def with_space_groups(
    prior: SpacegroupPrior, starts: Sequence[InitialState], rng: np.random.Generator
) -> list[InitialState]:
    """Draw space groups for states that have none, the most probable first.

    Systematic sampling is used: with one uniform number u, the i-th of n equal states gets the group at (i + u) / n of
    the cumulative distribution, so that the count of each group differs from its expectation by less than one.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, start in enumerate(starts):
        if start.spacegroup is None:
            key = start.numbers.tobytes(), start.energy, start.pressure, start.properties.tobytes()
            alike.setdefault(key, []).append(place)
    conditioned = list(starts)
    for places in alike.values():
        numbers = torch.as_tensor(starts[places[0]].numbers)[None]
        properties = torch.as_tensor(starts[places[0]].properties)[None]
        chances = prior(numbers, properties)[0].double().exp().numpy()
        cumulated = np.cumsum(chances) / chances.sum()
        found = np.searchsorted(cumulated, (np.arange(len(places)) + rng.random()) / len(places), side="right")
        groups = np.clip(found, 1, 230)
        for place, group in zip(places, groups[np.argsort(-chances[groups], kind="stable")], strict=True):
            conditioned[place] = replace(starts[place], spacegroup=int(group))
    return conditioned


def batches(starts: Sequence[InitialState]) -> Iterator[Sequence[InitialState]]:
    """Yield batches of states of similar sizes with a bounded number of pairs of atoms."""
    ordered = sorted(starts, key=lambda start: len(start.numbers))
    begin = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered):
            size = len(ordered[end].numbers)
            if size <= 1.2 * len(ordered[begin].numbers) and (end + 1 - begin) * size**2 <= _MAX_PAIRS:
                continue
        yield ordered[begin:end]
        begin = end
