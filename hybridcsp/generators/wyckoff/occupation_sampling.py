"""Sampling of occupied Wyckoff positions from the occupation network, token after token for batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridcsp.generators.wyckoff.collation import conditions, contents_row, pad_and_stack, progress_of, retrieved_row
from hybridcsp.generators.wyckoff.occupation_network import OccupationNetwork
from hybridcsp.generators.wyckoff.retrieval import RetrievedPrototypes
from hybridcsp.generators.wyckoff.tables import N_CHANNELS, N_LETTERS, WyckoffTables
from hybridcsp.structure.wyckoff import LETTERS

#: Smallest temperature by which logits are divided.
COLD = 1e-3


@dataclass(eq=False)
class OccupationState:
    """Contents, space group and occupied positions of a crystal during sampling.

    Attributes
    ----------
    elements, counts
        Atomic numbers and numbers of atoms in the order of placement.
    retrieved
        Prototypes retrieved for these contents.
    quantile, pressure
        Requested energy quantile and pressure (GPa), or ``None``.
    properties
        Features of the requested properties, shape ``(n_features,)``; without features if none are learned.
    spacegroup
        Number of the space group; 0 until it is drawn.
    requested
        Whether the space group was requested: then it does not contribute to the likelihood.
    wanted
        Indices of the letters of the first sites, or of all, that are used instead of drawn ones; then the space group
        is given as well.
    groups
        Numbers of the space groups from which one is drawn; empty for all that hold the contents.
    slots, letters
        Indices of element and letter of the sites so far.
    log_likelihood
        Log-likelihood of the tokens so far at a temperature of 1.
    turn
        Number of geometries that have been drawn for this prototype and equal requests before.
    """

    elements: tuple[int, ...]
    counts: tuple[int, ...]
    retrieved: RetrievedPrototypes
    quantile: float | None = None
    pressure: float | None = None
    spacegroup: int = 0
    requested: bool = False
    wanted: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    slots: list[int] = field(default_factory=list)
    letters: list[int] = field(default_factory=list)
    log_likelihood: float = 0.0
    turn: int = 0
    properties: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    @property
    def prototype(self) -> tuple[int, tuple[int, ...]]:
        """Space group and indices of the letters, site after site."""
        return self.spacegroup, tuple(self.letters)

    @property
    def prototype_by_element(self) -> tuple[int, tuple[str, ...]]:
        """Space group and letters of each element."""
        own = ["" for _ in self.elements]
        for slot, letter in zip(self.slots, self.letters, strict=True):
            own[slot] += LETTERS[letter]
        return self.spacegroup, tuple(own)


class Decoder:
    """Samples token after token for a batch with cached keys and values.

    Parameters
    ----------
    network, positions
        Occupation network and tables of the Wyckoff positions.
    states
        States to be completed; they are changed in place.
    """

    def __init__(self, network: OccupationNetwork, positions: WyckoffTables, states: Sequence[OccupationState]) -> None:
        self.network, self.positions, self.states = network, positions, states
        self.batch = pad_and_stack(
            [{**contents_row(s.elements, s.counts), **retrieved_row(s.retrieved)} for s in states]
        )
        asked = conditions([s.quantile for s in states], [s.pressure for s in states])
        self.batch["conditions"] = torch.as_tensor(asked)
        self.batch["properties"] = torch.as_tensor(np.array([s.properties for s in states]))
        tokens = network.beginning(self.batch)
        here = torch.ones(len(states), 1, dtype=torch.bool)
        self.valid = torch.cat([self.batch["counts"] > 0, here], dim=1)
        hidden, self.cache = network.run(tokens, self.valid[:, None].expand(-1, tokens.shape[1], -1))
        self.hidden = hidden[:, -1]

    def draw_groups(self, rng: np.random.Generator, temperatures: NDArray[np.float64]) -> None:
        """Draw space groups of states without one, with one temperature for each state."""
        allowed = torch.as_tensor(np.array([self._groups(state) for state in self.states]))
        logits = self.network.group_logits(self.hidden, self.batch["group_evidence"], allowed).numpy()
        drawn = draw_index(logits, rng, temperatures[:, None])
        for row, (state, group) in enumerate(zip(self.states, drawn.tolist(), strict=True)):
            state.spacegroup = state.spacegroup or group
            if not state.requested:
                state.log_likelihood += float(logits[row, state.spacegroup])
        self._write_groups()

    def _groups(self, state: OccupationState) -> NDArray[np.bool_]:
        """Return the mask of the space groups that a state may have, shape ``(231,)``."""
        holding = self.positions.groups(state.counts)
        return holding & np.isin(np.arange(len(holding)), state.groups) if state.groups else holding

    def draw_letters(self, rng: np.random.Generator, temperatures: NDArray[np.float64]) -> None:
        """Draw sites, or use given ones, until all atoms are placed."""
        left = [list(s.counts) for s in self.states]
        consistent = [s.retrieved.consistent(s.spacegroup) for s in self.states]
        while any(any(rest) for rest in left):
            allowed = np.zeros((len(left), 1, N_LETTERS), dtype=bool)
            evidence = np.zeros((len(left), 1, N_LETTERS, N_CHANNELS), dtype=np.float32)
            for row, (state, rest) in enumerate(zip(self.states, left, strict=True)):
                slot = _current(rest)
                if slot is None:
                    allowed[row] = True  # this state is complete
                    continue
                lowest = state.letters[-1] if state.slots and state.slots[-1] == slot else 0
                taken = frozenset(i for i in state.letters if self.positions.is_fixed(state.spacegroup, i))
                allowed[row, 0] = self.positions.next_letters(state.spacegroup, rest[slot:], lowest, taken)
                evidence[row, 0] = state.retrieved.letter_evidence(consistent[row], len(state.letters))
            logits = self.network.letter_logits(
                self.hidden[:, None], self.letters, torch.as_tensor(evidence), torch.as_tensor(allowed)
            )[:, 0].numpy()
            drawn = draw_index(logits, rng, temperatures[:, None]).tolist()
            written = []
            for row, (state, rest) in enumerate(zip(self.states, left, strict=True)):
                slot = _current(rest)
                written.append(slot is not None)
                if slot is None:
                    continue
                step = len(state.letters)
                letter = state.wanted[step] if step < len(state.wanted) else drawn[row]
                state.slots.append(slot)
                state.letters.append(letter)
                state.log_likelihood += float(logits[row, letter])
                rest[slot] -= int(self.positions.multiplicity[state.spacegroup, letter])
                if step < state.retrieved.letters.shape[1]:
                    consistent[row] = consistent[row] & (state.retrieved.letters[:, step] == letter)
            self._write_sites(left, written)

    def _write(self, tokens: Tensor, written: Tensor) -> Tensor:
        """Append one token to each crystal, masked where nothing is written; return the network's output."""
        self.valid = torch.cat([self.valid, written[:, None]], dim=1)
        hidden, self.cache = self.network.run(tokens, self.valid[:, None], self.cache)
        return hidden[:, 0]

    def _write_groups(self) -> None:
        group = torch.as_tensor([s.spacegroup for s in self.states])
        first = torch.as_tensor([s.elements[0] for s in self.states])
        self.letters = self.network.letters(group)
        self.hidden = self._write(self.network.group_tokens(group, first), torch.ones(len(group), dtype=torch.bool))

    def _write_sites(self, left: Sequence[Sequence[int]], written: Sequence[bool]) -> None:
        states = self.states
        slots = [s.slots[-1] for s in states]
        element = torch.as_tensor([[s.elements[slot]] for s, slot in zip(states, slots, strict=True)])
        letter = torch.as_tensor([[s.letters[-1]] for s in states])
        following = torch.as_tensor(
            [
                [0 if (slot := _current(rest)) is None else s.elements[slot]]
                for s, rest in zip(states, left, strict=True)
            ]
        )
        progress = torch.as_tensor(
            [[progress_of(rest, s.counts, slot)] for s, rest, slot in zip(states, left, slots, strict=True)],
            dtype=torch.float32,
        )
        place = torch.as_tensor([[len(s.letters) - 1] for s in states])
        identities = self.network.identities(self.letters, letter, element)
        hidden = self._write(self.network.sites(identities, place, following, progress), torch.as_tensor(list(written)))
        keep = torch.as_tensor(list(written))[:, None]
        self.hidden = torch.where(keep, hidden, self.hidden)


def _current(left: Sequence[int]) -> int | None:
    return next((slot for slot, n in enumerate(left) if n), None)


def draw_index(
    logits: NDArray[np.float32], rng: np.random.Generator, temperature: float | NDArray[np.float64]
) -> NDArray[np.int_]:
    """Draw one index per row by the Gumbel-max trick."""
    return np.asarray((logits / np.maximum(temperature, COLD) + rng.gumbel(size=logits.shape)).argmax(axis=-1))
