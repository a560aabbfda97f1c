"""Sequences into batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from math import gcd, log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridcsp.generators.wyckoff.memory import CHANNELS, Memory, Recall
from hybridcsp.generators.wyckoff.positions import N_LETTERS, Positions
from hybridcsp.generators.wyckoff.sequences import Sequence

# How often a network in training is not told the energy, so that it can be asked without.
_ENERGY_HIDDEN = 0.5

_FILL = {"letters": -1}


class Sequences:
    """What :func:`hybridcsp.generators.training.train` learns from: crystals with what is remembered of like ones.

    Parameters
    ----------
    sequences, weights, energies
        Crystals, how much they count, and quantiles of their energies (NaN where unknown).
    memory
        What is remembered; crystals of the same formula are left out.
    positions
        Tables.
    progress
        Told how many crystals are done: recalling takes minutes for 10⁴.
    """

    def __init__(
        self,
        sequences: SequenceOf[Sequence],
        weights: SequenceOf[float],
        energies: SequenceOf[float],
        memory: Memory,
        positions: Positions,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.weights = np.array(weights, dtype=float)
        self.sizes = np.array([2 * len(s.slots) + len(s.elements) for s in sequences])
        self._energies = np.array(energies, dtype=float)
        self._rows = []
        for index, sequence in enumerate(sequences):
            recall = memory.recall(sequence.elements, sequence.counts, same_formula=False)
            self._rows.append(_row(sequence, recall, positions))
            if progress is not None:
                progress(index + 1)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Pad and stack; whether the energy is told is drawn."""
        batch = stack([self._rows[i] for i in indices])
        told = rng.random(len(indices)) >= _ENERGY_HIDDEN
        energies = np.where(told, self._energies[indices], np.nan)
        return {**batch, "energy": torch.as_tensor(energy_features(energies))}


def energy_features(quantiles: NDArray[np.float64]) -> NDArray[np.float32]:
    """Whether a quantile is told, whether it is the lowest, and the quantile; shape ``(n, 3)``."""
    told = np.isfinite(quantiles)
    values = np.where(told, quantiles, 0.0)
    return np.column_stack([told, told & (values <= 0), values]).astype(np.float32)


def contents_row(elements: tuple[int, ...], counts: tuple[int, ...], recall: Recall) -> dict[str, NDArray[np.generic]]:
    """Describe what is known before anything is predicted."""
    return {
        "elements": np.array(elements),
        "counts": np.array(counts),
        "divisor": np.array(gcd(*counts)),
        "summary": recall.summary,
        "group_evidence": recall.of_groups().astype(np.float16),
    }


def stack(rows: SequenceOf[Mapping[str, NDArray[np.generic]]]) -> dict[str, Tensor]:
    """Pad arrays to the longest and stack them."""
    batch = {}
    for name in rows[0]:
        arrays = [row[name] for row in rows]
        shape = np.array([array.shape for array in arrays]).max(axis=0)
        stacked = np.full((len(arrays), *shape), _FILL.get(name, 0), dtype=arrays[0].dtype)
        for row, array in enumerate(arrays):
            within: tuple[Any, ...] = (row, *map(slice, array.shape))
            stacked[within] = array
        tensor = torch.as_tensor(stacked)
        if tensor.is_floating_point():
            tensor = tensor.float()
        elif tensor.dtype != torch.bool:
            tensor = tensor.long()
        batch[name] = tensor
    return batch


def free_coordinates(sequence: Sequence, positions: Positions) -> NDArray[np.bool_]:
    """Which coordinates are predicted: those free, without the first site's along polar axes, the origin there."""
    free = positions.free[sequence.spacegroup, sequence.letters] > 0
    free[0] &= positions.polar[sequence.spacegroup] == 0
    return np.asarray(free)


def _row(sequence: Sequence, recall: Recall, positions: Positions) -> dict[str, NDArray[np.generic]]:
    number, n_sites = sequence.spacegroup, len(sequence.slots)
    left = list(sequence.counts)
    taken: frozenset[int] = frozenset()
    consistent = recall.consistent(number)
    allowed = np.zeros((n_sites, N_LETTERS), dtype=bool)
    evidence = np.zeros((n_sites, N_LETTERS, CHANNELS), dtype=np.float16)
    progress = np.zeros((n_sites, 3), dtype=np.float16)
    lowest = previous = 0
    for site, (slot, letter) in enumerate(zip(sequence.slots.tolist(), sequence.letters.tolist(), strict=True)):
        lowest = lowest if slot == previous else 0
        allowed[site] = positions.next_letters(number, left[slot:], lowest, taken)
        evidence[site] = recall.of_letters(consistent, site)
        left[slot] -= int(positions.multiplicity[number, letter])
        progress[site] = progress_of(left, sequence.counts, slot)
        if positions.is_fixed(number, letter):
            taken |= {letter}
        if site < recall.letters.shape[1]:
            consistent = consistent & (recall.letters[:, site] == letter)
        lowest, previous = letter, slot
    return {
        **contents_row(sequence.elements, sequence.counts, recall),
        "group_allowed": positions.groups(sequence.counts),
        "group": np.array(number),
        "slots": sequence.slots.astype(np.int16),
        "letters": sequence.letters.astype(np.int16),
        "letter_allowed": allowed,
        "letter_evidence": evidence,
        "progress": progress,
        "free": free_coordinates(sequence, positions),
        "coordinates": sequence.coordinates.astype(np.float32),
        "cell": sequence.cell.astype(np.float32),
    }


def progress_of(left: SequenceOf[int], counts: SequenceOf[int], slot: int) -> tuple[float, float, float]:
    """How much is left of the present element and of all, after a site."""
    return left[slot] / counts[slot], log(1 + left[slot]) / 3, sum(left) / sum(counts)
