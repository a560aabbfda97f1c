"""Requests into crystals: which prototypes, how often each, and geometries that keep atoms apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase.data import atomic_numbers

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Reject, Request, Sample, equal_requests
from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork
from hybridcsp.generators.wyckoff.geometry_sampling import draw_geometries
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.occupation_sampling import Decoder, OccupationState
from hybridcsp.generators.wyckoff.representation import decode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.tables import N_GROUPS, WyckoffTables
from hybridcsp.generators.wyckoff.tokens import contents_in_order, detokenize
from hybridcsp.structure.normalizer import ENANTIOMORPHS
from hybridcsp.structure.symmetry import in_group
from hybridcsp.structure.validity import is_plausible

#: Crystals that are written at the same time.
BATCH = 64

#: Geometries that are drawn for one request before it is rejected: twice of its own prototype, then of others.
GEOMETRIES = 6

# Candidates for several equal requests: remembered prototypes and draws for each request, and draws beside that.
_REMEMBERED, _DRAWN, _MORE = 1.0, 1.0, 8

# Draws of prototypes get temperatures from zero to this: what is improbable is found, too.
_HOTTEST = 2.5

# Spare candidates for each request, for geometries that fail.
_SPARE = 1.0

# Spread of the noise (nats) on the worth of a prototype, so that another call chooses others.
_NOISE = 0.3

# A geometry of a prototype is taken to be right with the first of these, times the second for each free number; the
# first pair where crystals of the prototype are remembered. It says how often another draw of a prototype is worth
# more than one of the next.
_RIGHT = ((0.95, 0.98), (0.8, 0.8))

#: Geometries are drawn colder than prototypes: a prototype's geometry has one mode, about.
GEOMETRY_TEMPERATURE = 0.3


_TOO_CLOSE = "atoms too close, or too far apart, in every geometry drawn"


@torch.no_grad()
def sample_crystals(
    occupation: OccupationNetwork,
    geometry: GeometryNetwork,
    positions: WyckoffTables,
    memory: PrototypeStore,
    requests: Sequence[Request],
    rng: np.random.Generator,
    temperature: float,
) -> list[Sample | Reject]:
    """Answer each request, in order; see :class:`hybridcsp.generators.wyckoff.WyckoffGenerator`."""
    answers: list[Sample | Reject | None] = [None] * len(requests)
    waiting: list[tuple[int, OccupationState, list[OccupationState]]] = []
    for indices, chosen in _choose_occupations(
        occupation, positions, memory, requests, equal_requests(requests), rng, temperature
    ):
        if isinstance(chosen, str):
            for index in indices:
                answers[index] = Reject(request=index, reason=chosen)
        else:
            spare = chosen[len(indices) :]
            waiting += [(index, state, spare) for index, state in zip(indices, chosen, strict=False)]
    refused: dict[int, str] = {}
    for attempt in range(GEOMETRIES):
        left = []
        for start in range(0, len(waiting), BATCH):
            part = waiting[start : start + BATCH]
            states = [state for _, state, _ in part]
            cold = temperature * GEOMETRY_TEMPERATURE * (1 + attempt % 2)
            written = draw_geometries(geometry, positions, memory, states, rng, cold)
            for (index, state, spare), (sequence, likelihood) in zip(part, written, strict=True):
                crystal = detokenize(sequence, positions)
                atoms = None if crystal is None else decode_wyckoff(crystal)
                if atoms is None or not is_plausible(atoms, requests[index].pressure_gpa):
                    another = spare.pop(0) if attempt and spare else state
                    left.append((index, another, spare))
                    continue
                group = requests[index].spacegroup
                if group in ENANTIOMORPHS:
                    atoms.set_scaled_positions(-atoms.get_scaled_positions() % 1.0)
                if group is not None and in_group(atoms, group) is None:  # sites may lie where there is more symmetry
                    left.append((index, spare.pop(0) if spare else state, spare))
                    refused[index] = f"more symmetry than group {group}"
                    continue
                answers[index] = Sample(atoms=atoms, request=index, log_likelihood=likelihood)
        waiting = left
    for index, _, _ in waiting:
        answers[index] = Reject(request=index, reason=refused.get(index, _TOO_CLOSE))
    return [answer for answer in answers if answer is not None]


def _choose_occupations(
    network: OccupationNetwork,
    positions: WyckoffTables,
    memory: PrototypeStore,
    requests: Sequence[Request],
    alike: Sequence[list[int]],
    rng: np.random.Generator,
    temperature: float,
) -> list[tuple[list[int], list[OccupationState] | str]]:
    """Choose space group and sites for equal requests, spare ones behind them, or say why there are none.

    A single request gets a draw. For several, candidates are what is remembered and what is drawn, also at higher
    temperatures; the first request gets the most probable one, and the others those from which the next draw of a
    geometry gains most, if a geometry is right with a chance that falls with the number of its free parameters.
    """
    found: list[tuple[list[int], list[OccupationState] | str]] = []
    drafts: list[OccupationState] = []
    heats: list[float] = []
    owners: list[tuple[int, list[OccupationState]]] = []
    for indices in alike:
        start = _initial_state(requests[indices[0]], positions, memory)
        if isinstance(start, str):
            found.append((indices, start))
            continue
        n = len(indices)
        own = [_copy(start) for _ in range(round(_DRAWN * n) + _MORE if n > 1 else 1)]
        heats += np.linspace(0, _HOTTEST * temperature, len(own)).tolist() if n > 1 else [temperature]
        if n > 1:
            remembered = _retrieved_states(start, round(_REMEMBERED * n))
            heats += [0.0] * len(remembered)
            own += remembered
        drafts += own
        owners.append((len(found), own))
        found.append((indices, []))
    for begin in range(0, len(drafts), BATCH):
        decoder = Decoder(network, positions, drafts[begin : begin + BATCH])
        temperatures = np.array(heats[begin : begin + BATCH])
        decoder.draw_groups(rng, temperatures)
        decoder.draw_letters(rng, temperatures)
    for place, own in owners:
        indices = found[place][0]
        distinct = list({state.prototype: state for state in own}.values())
        found[place] = indices, _allocate_requests(distinct, len(indices), positions, rng, temperature)
    return found


def _retrieved_states(start: OccupationState, n: int) -> list[OccupationState]:
    """Begin states that will be the prototypes of the most similar crystals."""
    recall = start.recall
    order = np.argsort(-recall.weights[:, 0], kind="stable")
    if start.spacegroup:
        order = order[recall.groups[order] == start.spacegroup]
    return [
        replace(
            _copy(start),
            spacegroup=int(recall.groups[i]),
            wanted=tuple(recall.letters[i][recall.letters[i] >= 0].tolist()),
        )
        for i in order[:n]
    ]


def _allocate_requests(
    states: Sequence[OccupationState], n: int, positions: WyckoffTables, rng: np.random.Generator, temperature: float
) -> list[OccupationState]:
    right = np.array([_success_probability(state, positions) for state in states])
    worth = np.array([state.log_likelihood for state in states]) + np.log(right)
    chosen = []
    for turn in range(n if n == 1 else n + round(_SPARE * n)):
        best = int(worth.argmax())
        chosen.append(_copy(states[best]))
        worth[best] += np.log1p(-right[best])
        if turn == 0:
            worth += _NOISE * temperature * rng.gumbel(size=len(worth))
    return chosen


def _success_probability(state: OccupationState, positions: WyckoffTables) -> float:
    first, each = _RIGHT[not state.recall.knows(state.named)]
    return float(first * each ** _degrees_of_freedom(state, positions))


def _degrees_of_freedom(state: OccupationState, positions: WyckoffTables) -> int:
    number = state.spacegroup
    coordinates = positions.free[number, state.letters] > 0
    cell = positions.free_cell[number] > 0
    return int(coordinates.sum() - positions.polar[number].sum() + cell.sum() - 1)


def _initial_state(request: Request, positions: WyckoffTables, memory: PrototypeStore) -> OccupationState | str:
    """Begin a state, or say why it can have no end."""
    unknown = sorted(set(request.contents) - set(atomic_numbers) | ({"X"} & set(request.contents)))
    if unknown or not request.contents or min(request.contents.values()) < 1:
        raise InputError("contents", dict(request.contents), "symbols of elements, and at least one atom of each")
    elements, counts = contents_in_order({atomic_numbers[s]: int(n) for s, n in request.contents.items()})
    number = request.spacegroup or 0
    if not 0 <= number < N_GROUPS:
        raise InputError("spacegroup", number, "1 to 230")
    number = ENANTIOMORPHS.get(number, number)
    if number and not positions.groups(counts)[number]:
        return f"no Wyckoff positions of space group {number} hold these contents"
    recall = memory.retrieve(elements, counts)
    return OccupationState(
        elements, counts, recall, request.energy_quantile, request.pressure_gpa, number, asked=number > 0
    )


def _copy(state: OccupationState) -> OccupationState:
    return replace(state, slots=list(state.slots), letters=list(state.letters))
