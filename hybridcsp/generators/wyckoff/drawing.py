"""Requests into crystals: which prototypes, how often each, and geometries that keep atoms apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators import Reject, Request, Sample
from hybridcsp.generators.wyckoff.memory import Memory
from hybridcsp.generators.wyckoff.network import Network
from hybridcsp.generators.wyckoff.positions import N_GROUPS, Positions
from hybridcsp.generators.wyckoff.sampling import Decoder, Skeleton
from hybridcsp.generators.wyckoff.sequences import contents_in_order, from_sequence
from hybridcsp.prototypes.labels import OTHER_HAND
from hybridcsp.representations.wyckoff import decode
from hybridcsp.structure import shortest_violation

#: Crystals that are written at the same time.
BATCH = 64

#: Geometries that are drawn for one request before atoms that are too close make it a reject.
GEOMETRIES = 4

#: Atoms closer than this fraction of their summed covalent radii are too close.
CLOSEST = 0.5

# Prototypes that are drawn for each of several equal requests, and beside that.
_PROTOTYPES = 2, 8

# Spread of the noise (nats) on the worth of a prototype, so that another call chooses others.
_NOISE = 0.3

# A geometry of a prototype without freedom is taken to be right with the first, of one with n free numbers with the
# second to the n-th power: how often another draw of the same prototype is worth more than one of the next.
_RIGHT, _RIGHT_PER_FREEDOM = 0.95, 0.9

#: Geometries are drawn colder than prototypes: a prototype's geometry has one mode, about.
GEOMETRY_TEMPERATURE = 0.3


@torch.no_grad()
def draw(
    network: Network,
    positions: Positions,
    memory: Memory,
    requests: Sequence[Request],
    rng: np.random.Generator,
    temperature: float,
) -> list[Sample | Reject]:
    """Answer each request, in order; see :class:`hybridcsp.generators.wyckoff.WyckoffGenerator`."""
    answers: list[Sample | Reject | None] = [None] * len(requests)
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, request in enumerate(requests):
        key = (tuple(sorted(request.contents.items())), request.spacegroup, request.energy_quantile)
        alike.setdefault(key, []).append(index)
    waiting: list[tuple[int, Skeleton]] = []
    for indices, chosen in _chosen(network, positions, memory, requests, list(alike.values()), rng, temperature):
        if isinstance(chosen, str):
            for index in indices:
                answers[index] = Reject(request=index, reason=chosen)
        else:
            waiting += zip(indices, chosen, strict=True)
    for _ in range(GEOMETRIES):
        left = []
        for start in range(0, len(waiting), BATCH):
            part = waiting[start : start + BATCH]
            decoder = Decoder(network, positions, memory, [skeleton for _, skeleton in part])
            decoder.read()
            written = decoder.draw_geometry(rng, temperature * GEOMETRY_TEMPERATURE)
            for (index, skeleton), (sequence, likelihood) in zip(part, written, strict=True):
                crystal = from_sequence(sequence, positions)
                atoms = None if crystal is None else decode(crystal)
                if atoms is None or shortest_violation(atoms, _closest()) is not None:
                    left.append((index, skeleton))
                    continue
                if requests[index].spacegroup in OTHER_HAND:
                    atoms.set_scaled_positions(-atoms.get_scaled_positions() % 1.0)
                answers[index] = Sample(atoms=atoms, request=index, log_likelihood=likelihood)
        waiting = left
    for index, _ in waiting:
        answers[index] = Reject(request=index, reason="atoms too close in every geometry drawn")
    return [answer for answer in answers if answer is not None]


def _chosen(
    network: Network,
    positions: Positions,
    memory: Memory,
    requests: Sequence[Request],
    alike: Sequence[list[int]],
    rng: np.random.Generator,
    temperature: float,
) -> list[tuple[list[int], list[Skeleton] | str]]:
    """Choose space group and sites for equal requests, or say why there are none.

    A single request gets a draw. Of several, the first gets the most probable of all that were drawn, and the others
    those from which the next draw of a geometry gains most, if a geometry is right with a chance that falls with the
    number of its free parameters.
    """
    found: list[tuple[list[int], list[Skeleton] | str]] = []
    drafts: list[Skeleton] = []
    cold: list[Skeleton] = []
    owners: list[tuple[int, list[Skeleton]]] = []
    for indices in alike:
        start = _start(requests[indices[0]], positions, memory)
        if isinstance(start, str):
            found.append((indices, start))
            continue
        several = len(indices) > 1
        own = [_copy(start) for _ in range(_PROTOTYPES[0] * len(indices) + _PROTOTYPES[1] if several else 1)]
        drafts += own
        if several:
            cold.append(_copy(start))
            own = [*own, cold[-1]]
        owners.append((len(found), own))
        found.append((indices, []))
    for skeletons, heat in ((drafts, temperature), (cold, 0.0)):
        for begin in range(0, len(skeletons), BATCH):
            decoder = Decoder(network, positions, memory, skeletons[begin : begin + BATCH])
            decoder.draw_groups(rng, heat)
            decoder.draw_letters(rng, heat)
    for place, own in owners:
        indices = found[place][0]
        distinct = list({skeleton.prototype: skeleton for skeleton in own}.values())
        found[place] = indices, _allotted(distinct, len(indices), positions, rng, temperature)
    return found


def _allotted(
    skeletons: Sequence[Skeleton], n: int, positions: Positions, rng: np.random.Generator, temperature: float
) -> list[Skeleton]:
    right = np.array([_RIGHT * _RIGHT_PER_FREEDOM ** _freedom(skeleton, positions) for skeleton in skeletons])
    worth = np.array([skeleton.log_likelihood for skeleton in skeletons]) + np.log(right)
    chosen = []
    for turn in range(n):
        best = int(worth.argmax())
        chosen.append(_copy(skeletons[best]))
        worth[best] += np.log1p(-right[best])
        if turn == 0:
            worth += _NOISE * temperature * rng.gumbel(size=len(worth))
    return chosen


def _freedom(skeleton: Skeleton, positions: Positions) -> int:
    number = skeleton.spacegroup
    coordinates = positions.free[number, skeleton.letters] > 0
    cell = positions.free_cell[number] > 0
    return int(coordinates.sum() - positions.polar[number].sum() + cell.sum() - 1)


def _start(request: Request, positions: Positions, memory: Memory) -> Skeleton | str:
    """Begin a skeleton, or say why it can have no end."""
    unknown = sorted(set(request.contents) - set(atomic_numbers) | ({"X"} & set(request.contents)))
    if unknown or not request.contents or min(request.contents.values()) < 1:
        raise InputError("contents", dict(request.contents), "symbols of elements, and at least one atom of each")
    elements, counts = contents_in_order({atomic_numbers[s]: int(n) for s, n in request.contents.items()})
    number = request.spacegroup or 0
    if not 0 <= number < N_GROUPS:
        raise InputError("spacegroup", number, "1 to 230")
    number = OTHER_HAND.get(number, number)
    if number and not positions.groups(counts)[number]:
        return f"no Wyckoff positions of space group {number} hold these contents"
    quantile = np.nan if request.energy_quantile is None else request.energy_quantile
    return Skeleton(elements, counts, memory.recall(elements, counts), quantile, number)


def _copy(skeleton: Skeleton) -> Skeleton:
    return replace(skeleton, slots=list(skeleton.slots), letters=list(skeleton.letters))


@cache
def _closest() -> NDArray[np.float64]:
    return np.asarray(CLOSEST * (covalent_radii[:119, None] + covalent_radii[None, :119]), dtype=float)
