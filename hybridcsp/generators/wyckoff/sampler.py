"""Sampling of crystals for requests: choice of prototypes, and geometries without close atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase.data import atomic_numbers

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Reject, Request, Sample, equal_requests
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork
from hybridcsp.generators.wyckoff.geometry_sampling import draw_geometries
from hybridcsp.generators.wyckoff.geometry_statistics import MeanGeometry
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.occupation_sampling import Decoder, OccupationState
from hybridcsp.generators.wyckoff.representation import decode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.tables import N_GROUPS, WyckoffTables
from hybridcsp.generators.wyckoff.tokens import contents_in_order, detokenize
from hybridcsp.structure.normalizer import ENANTIOMORPHS
from hybridcsp.structure.symmetry import in_group
from hybridcsp.structure.validity import is_plausible

#: Number of crystals that are sampled at the same time.
BATCH = 64

#: Number of geometries drawn for one request before it is rejected: two of its own prototype, then of others.
GEOMETRIES = 6

# Candidates for several equal requests: retrieved prototypes and draws per request, and a number of additional draws.
_RETRIEVED, _DRAWN, _ADDITIONAL = 1.0, 1.0, 8

# Largest temperature of the draws of prototypes, which start at zero: improbable prototypes are found as well.
_MAX_TEMPERATURE = 2.5

# Number of spare candidates per request for geometries that fail.
_SPARE = 1.0

# Spread of the noise (nats) on the score of a prototype, by which other calls choose other prototypes.
_NOISE = 0.3

# Assumed probability that a geometry of a prototype is right, a number times another for each free parameter: of
# prototypes with a mean geometry, of other retrieved ones, and of all others. It decides between another draw of a
# prototype and one of the next.
_SUCCESS = ((0.95, 0.99), (0.95, 0.96), (0.8, 0.8))

# Number of free parameters from which the mean geometry of a prototype comes before a draw of the network. With fewer
# the network, which is given the elements, is closer. The number comes from 420 crystals that are not held out, each
# with the mean geometries of the other formulas.
_MANY_PARAMETERS = 6

#: Factor of the temperature of geometries, which have about one mode for each prototype.
GEOMETRY_TEMPERATURE = 0.3


_TOO_CLOSE = "atoms too close, or too far apart, in every geometry drawn"


@torch.no_grad()
def sample_crystals(
    occupation: OccupationNetwork,
    geometry: GeometryNetwork,
    positions: WyckoffTables,
    store: PrototypeStore,
    requests: Sequence[Request],
    rng: np.random.Generator,
    temperature: float,
    properties: LearnedProperties,
) -> list[Sample | Reject]:
    """Return an answer to each request in order; see :class:`hybridcsp.generators.wyckoff.WyckoffGenerator`."""
    answers: list[Sample | Reject | None] = [None] * len(requests)
    waiting: list[tuple[int, OccupationState, list[OccupationState]]] = []
    for indices, chosen in _choose_occupations(
        occupation, positions, store, requests, equal_requests(requests), rng, temperature, properties
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
            given = [_mean_geometry(state, positions, store) for state in states]
            written = draw_geometries(geometry, positions, store, states, rng, cold, given)
            for (index, state, spare), (sequence, likelihood) in zip(part, written, strict=True):
                crystal = detokenize(sequence, positions)
                atoms = None if crystal is None else decode_wyckoff(crystal)
                state.turn += 1
                if atoms is None or not is_plausible(atoms, requests[index].pressure_gpa):
                    another = spare.pop(0) if attempt and spare else state
                    left.append((index, another, spare))
                    continue
                group = requests[index].spacegroup
                if group in ENANTIOMORPHS:
                    atoms.set_scaled_positions(-atoms.get_scaled_positions() % 1.0)
                if group is not None and in_group(atoms, group) is None:  # coordinates may have higher symmetry
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
    store: PrototypeStore,
    requests: Sequence[Request],
    alike: Sequence[list[int]],
    rng: np.random.Generator,
    temperature: float,
    properties: LearnedProperties,
) -> list[tuple[list[int], list[OccupationState] | str]]:
    """Return occupations for groups of equal requests, followed by spare ones, or the reason why there are none.

    A single request gets a draw. The candidates for several requests are retrieved prototypes and draws, also at higher
    temperatures; the first request gets the most probable one, and each of the others the one whose next geometry has
    the highest expected gain, with a probability of success that decreases with the number of free parameters.
    """
    found: list[tuple[list[int], list[OccupationState] | str]] = []
    drafts: list[OccupationState] = []
    temperatures: list[float] = []
    owners: list[tuple[int, list[OccupationState]]] = []
    for indices in alike:
        start = initial_state(requests[indices[0]], positions, store)
        if isinstance(start, str):
            found.append((indices, start))
            continue
        n = len(indices)
        own = [_copy(start) for _ in range(round(_DRAWN * n) + _ADDITIONAL if n > 1 else 1)]
        temperatures += np.linspace(0, _MAX_TEMPERATURE * temperature, len(own)).tolist() if n > 1 else [temperature]
        if n > 1:
            retrieved = _retrieved_states(start, round(_RETRIEVED * n))
            temperatures += [0.0] * len(retrieved)
            own += retrieved
        if properties.scales:
            for state in own:
                state.properties = properties.features_of_targets(requests[indices[0]].targets, rng)
        drafts += own
        owners.append((len(found), own))
        found.append((indices, []))
    for begin in range(0, len(drafts), BATCH):
        decoder = Decoder(network, positions, drafts[begin : begin + BATCH])
        batch_temperatures = np.array(temperatures[begin : begin + BATCH])
        decoder.draw_groups(rng, batch_temperatures)
        decoder.draw_letters(rng, batch_temperatures)
    for place, own in owners:
        indices = found[place][0]
        distinct = list({state.prototype: state for state in own}.values())
        found[place] = indices, _allocate_requests(distinct, len(indices), positions, store, rng, temperature)
    return found


def _retrieved_states(start: OccupationState, n: int) -> list[OccupationState]:
    """Return states with the prototypes of the most similar stored crystals."""
    retrieved = start.retrieved
    order = np.argsort(-retrieved.weights[:, 0], kind="stable")
    if start.spacegroup:
        order = order[retrieved.groups[order] == start.spacegroup]
    return [
        replace(
            _copy(start),
            spacegroup=int(retrieved.groups[i]),
            wanted=tuple(retrieved.letters[i][retrieved.letters[i] >= 0].tolist()),
        )
        for i in order[:n]
    ]


def _allocate_requests(
    states: Sequence[OccupationState],
    n: int,
    positions: WyckoffTables,
    store: PrototypeStore,
    rng: np.random.Generator,
    temperature: float,
) -> list[OccupationState]:
    success = np.array([_success_probability(state, positions, store) for state in states])
    score = np.array([state.log_likelihood for state in states]) + np.log(success)
    chosen = []
    turns = [0] * len(states)
    for turn in range(n if n == 1 else n + round(_SPARE * n)):
        best = int(score.argmax())
        chosen.append(_copy(states[best], turn=turns[best]))
        turns[best] += 1
        score[best] += np.log1p(-success[best])
        if turn == 0:
            score += _NOISE * temperature * rng.gumbel(size=len(score))
    return chosen


def _success_probability(state: OccupationState, positions: WyckoffTables, store: PrototypeStore) -> float:
    has_mean, is_known, other = _SUCCESS
    known = is_known if state.retrieved.knows(state.prototype_by_element) else other
    first, each = has_mean if store.mean_geometries(state.prototype_by_element) else known
    return float(first * each ** _degrees_of_freedom(state, positions))


def _degrees_of_freedom(state: OccupationState, positions: WyckoffTables) -> int:
    number = state.spacegroup
    coordinates = positions.free[number, state.letters] > 0
    cell = positions.free_cell[number] > 0
    return int(coordinates.sum() - positions.polar[number].sum() + cell.sum() - 1)


def initial_state(request: Request, positions: WyckoffTables, store: PrototypeStore) -> OccupationState | str:
    """Return the initial state of a request, or the reason why it cannot be completed."""
    unknown = sorted(set(request.contents) - set(atomic_numbers) | ({"X"} & set(request.contents)))
    if unknown or not request.contents or min(request.contents.values()) < 1:
        raise InputError("contents", dict(request.contents), "a mapping of elements to their numbers of atoms, from 1")
    elements, counts = contents_in_order({atomic_numbers[s]: int(n) for s, n in request.contents.items()})
    number = request.spacegroup or 0
    if not 0 <= number < N_GROUPS:
        raise InputError("spacegroup", number, "a space group number from 1 to 230")
    number = ENANTIOMORPHS.get(number, number)
    if number and not positions.groups(counts)[number]:
        return f"no Wyckoff positions of space group {number} hold these contents"
    retrieved = store.retrieve(elements, counts)
    return OccupationState(
        elements, counts, retrieved, request.energy_quantile, request.pressure_gpa, number, requested=number > 0
    )


def _mean_geometry(state: OccupationState, positions: WyckoffTables, store: PrototypeStore) -> MeanGeometry | None:
    """Return a mean geometry of the prototype, or ``None`` where it is the turn of the network: they alternate."""
    place, is_second = divmod(state.turn, 2)
    means = store.mean_geometries(state.prototype_by_element)
    of_mean = is_second != (_degrees_of_freedom(state, positions) >= _MANY_PARAMETERS)
    return means[place] if of_mean and place < len(means) else None


def _copy(state: OccupationState, turn: int = 0) -> OccupationState:
    return replace(state, slots=list(state.slots), letters=list(state.letters), turn=turn)
