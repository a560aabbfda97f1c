"""Completion of partial crystals by the networks: first the remaining orbits, then cell and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from hybridcsp.generators.base import Request
from hybridcsp.generators.growing import PartialCrystal
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.generators.wyckoff.geometry_network import GeometryNetwork
from hybridcsp.generators.wyckoff.geometry_sampling import draw_geometries
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.occupation_sampling import Decoder, OccupationState
from hybridcsp.generators.wyckoff.representation import decode_wyckoff
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.sampler import GEOMETRY_TEMPERATURE, initial_state
from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.generators.wyckoff.tokens import detokenize
from hybridcsp.structure.validity import is_plausible
from hybridcsp.structure.wyckoff import LETTERS


@torch.no_grad()
def complete_orbits(
    network: OccupationNetwork,
    positions: WyckoffTables,
    store: PrototypeStore,
    properties: LearnedProperties,
    partial: Sequence[PartialCrystal],
    rng: np.random.Generator,
    temperature: float,
) -> list[PartialCrystal | None]:
    """Return partial crystals with all orbits; see :meth:`hybridcsp.generators.growing.GrowingGenerator.complete`."""
    states = [_state(one, positions, store, properties, rng) for one in partial]
    possible = [state for state in states if state is not None]
    if possible:
        decoder = Decoder(network, positions, possible)
        temperatures = np.full(len(possible), temperature)
        decoder.draw_groups(rng, temperatures)
        decoder.draw_letters(rng, temperatures)
    return [
        None if state is None else replace(one, spacegroup=state.spacegroup, sites=_sites(state))
        for one, state in zip(partial, states, strict=True)
    ]


@torch.no_grad()
def build_crystals(
    network: GeometryNetwork,
    positions: WyckoffTables,
    store: PrototypeStore,
    properties: LearnedProperties,
    complete: Sequence[PartialCrystal],
    rng: np.random.Generator,
    temperature: float,
) -> list[Atoms | None]:
    """Return complete crystals with geometries; see :meth:`hybridcsp.generators.growing.GrowingGenerator.build`."""
    states = [_state(one, positions, store, properties, rng) for one in complete]
    possible = [state for state in states if state is not None]
    for begun in possible:
        begun.letters = list(begun.wanted)
        begun.slots = _slots(begun, begun.wanted, positions)
    cold = temperature * GEOMETRY_TEMPERATURE
    drawn = iter(draw_geometries(network, positions, store, possible, rng, cold) if possible else [])
    found: list[Atoms | None] = []
    for one, state in zip(complete, states, strict=True):
        crystal = None if state is None else detokenize(next(drawn)[0], positions)
        atoms = None if crystal is None else decode_wyckoff(crystal)
        found.append(atoms if atoms is not None and is_plausible(atoms, one.pressure_gpa) else None)
    return found


def _state(
    partial: PartialCrystal,
    positions: WyckoffTables,
    store: PrototypeStore,
    properties: LearnedProperties,
    rng: np.random.Generator,
) -> OccupationState | None:
    request = Request(
        contents=partial.contents,
        spacegroup=partial.spacegroup,
        energy_quantile=partial.energy_quantile,
        pressure_gpa=partial.pressure_gpa,
    )
    state = initial_state(request, positions, store)
    if isinstance(state, str):
        return None
    holding = positions.groups(state.counts)
    groups = tuple(number for number in partial.spacegroups if holding[number])
    if partial.spacegroups and not state.spacegroup and not groups:
        return None
    state.groups = groups
    state.wanted = tuple(LETTERS.index(letter) for _, letter in partial.sites)
    if properties.scales:
        state.properties = properties.features_of_targets({}, rng)
    return state


def _slots(state: OccupationState, letters: Sequence[int], positions: WyckoffTables) -> list[int]:
    """Return the index of the element of each site: the elements follow one another."""
    slots: list[int] = []
    slot, left = 0, state.counts[0]
    for letter in letters:
        if not left:
            slot += 1
            left = state.counts[slot]
        slots.append(slot)
        left -= int(positions.multiplicity[state.spacegroup, letter])
    return slots


def _sites(state: OccupationState) -> tuple[tuple[str, str], ...]:
    symbols = [chemical_symbols[number] for number in state.elements]
    return tuple((symbols[slot], LETTERS[letter]) for slot, letter in zip(state.slots, state.letters, strict=True))
