"""Sequences into batches, for either network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import gcd, log
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridcsp.generators.base import HALF_PRESSURE
from hybridcsp.generators.rows import Row
from hybridcsp.generators.wyckoff.tables import N_CHANNELS, N_LETTERS, WyckoffTables
from hybridcsp.structure.elements import KERNEL_EXPONENT, element_order, squared_distances

if TYPE_CHECKING:
    from hybridcsp.generators.wyckoff.retrieval import PrototypeStore, RetrievedPrototypes
    from hybridcsp.generators.wyckoff.tokens import CrystalTokens

# How often a network in training is not told energy and pressure, so that it can be asked without.
_HIDDEN = 0.5

# How often the geometry network is shown a crystal with elements exchanged for like ones: where atoms are depends less
# on which they are than a network concludes from ten thousand crystals. Their volume is not learned from then.
_SUBSTITUTED = 0.5

# How often it is not told which prototype a crystal has, so that it can do without.
_UNKNOWN = 0.15

# Elements that one may be exchanged for: the nearest, weighted by how alike they are.
_ALIKE = 8

# Which parameter of the cell is the volume.
_VOLUME = np.arange(6) == 0

_FILL = {"letters": -1}


class OccupationData:
    """Training data of the occupation network: crystals, each with the evidence of like ones.

    Parameters
    ----------
    rows
        Crystals as :func:`occupation_row` describes them.
    weights
        How much each counts in the loss, shape ``(n,)``.
    conditions
        Energies and pressures (:func:`conditions`), shape ``(n, 5)``.
    """

    def __init__(self, rows: Sequence[Row], weights: Sequence[float], conditions: NDArray[np.float32]) -> None:
        self.rows = rows
        self.weights = np.array(weights, dtype=float)
        self.sizes = np.array([len(row["slots"]) + len(row["elements"]) for row in rows])
        self.conditions = conditions

    @classmethod
    def of(
        cls,
        sequences: Sequence[CrystalTokens],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        memory: PrototypeStore,
        positions: WyckoffTables,
    ) -> Self:
        """Describe crystals; the evidence is the memory's, without crystals of the same formula."""
        recalled = (memory.retrieve(s.elements, s.counts, same_formula=False) for s in sequences)
        rows = [occupation_row(s, recall, positions) for s, recall in zip(sequences, recalled, strict=True)]
        return cls(rows, weights, conditions)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Pad and stack; whether the conditions are told is drawn."""
        told = rng.random(len(indices)) >= _HIDDEN
        conditions = self.conditions[indices] * told[:, None]
        return {**pad_and_stack([self.rows[i] for i in indices]), "conditions": torch.as_tensor(conditions)}


class GeometryData:
    """Training data of the geometry network.

    Parameters
    ----------
    rows
        Crystals as :func:`geometry_row` describes them.
    weights, conditions
        As for :class:`OccupationData`.
    learning
        Whether crystals are also shown with other elements, and as if their prototypes were not known; not to measure.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        *,
        learning: bool = True,
    ) -> None:
        self.rows = rows
        self.weights = np.array(weights, dtype=float)
        self.sizes = np.array([2 * len(row["slots"]) + len(row["elements"]) for row in rows])
        self.conditions = conditions
        self._learning = learning

    @classmethod
    def of(
        cls,
        sequences: Sequence[CrystalTokens],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        memory: PrototypeStore,
        positions: WyckoffTables,
        *,
        learning: bool = True,
    ) -> Self:
        """Describe crystals; the memory numbers their prototypes."""
        rows = [geometry_row(s, memory, positions) for s in sequences]
        return cls(rows, weights, conditions, learning=learning)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Pad and stack; which elements are exchanged, and whether the conditions are told, is drawn."""
        told = rng.random(len(indices)) >= _HIDDEN
        rows = [self.rows[i] for i in indices]
        if self._learning:
            for place in np.flatnonzero(rng.random(len(indices)) < _SUBSTITUTED).tolist():
                rows[place] = substituted(rows[place], rng)
            for place in np.flatnonzero(rng.random(len(indices)) < _UNKNOWN).tolist():
                rows[place] = {**rows[place], "prototype": np.array(0)}
        conditions = self.conditions[indices] * told[:, None]
        return {**pad_and_stack(rows), "conditions": torch.as_tensor(conditions)}


def conditions(quantiles: Sequence[float | None], pressures: Sequence[float | None]) -> NDArray[np.float32]:
    """Whether an energy quantile is told, whether it is the lowest, and the quantile; and the same of pressure (GPa).

    Returns
    -------
    ndarray
        Shape ``(n, 5)``.
    """
    energy, pressure = (np.array([np.nan if v is None else v for v in values]) for values in (quantiles, pressures))
    told, pressed = np.isfinite(energy), np.isfinite(pressure)
    quantile, gpa = np.where(told, energy, 0.0), np.maximum(np.where(pressed, pressure, 0.0), 0.0)
    columns = [told, told & (quantile <= 0), quantile, pressed, gpa / (gpa + HALF_PRESSURE)]
    return np.column_stack(columns).astype(np.float32)


def contents_row(elements: tuple[int, ...], counts: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
    """Describe what is asked for."""
    return {"elements": np.array(elements), "counts": np.array(counts), "divisor": np.array(gcd(*counts))}


def retrieved_row(recall: RetrievedPrototypes) -> dict[str, NDArray[np.generic]]:
    """Describe what is remembered of it."""
    return {"summary": recall.summary, "group_evidence": recall.group_evidence().astype(np.float16)}


def occupied_row(
    group: int, slots: Sequence[int] | NDArray[np.int_], letters: Sequence[int] | NDArray[np.int_]
) -> dict[str, NDArray[np.generic]]:
    """Describe which positions are occupied."""
    return {
        "group": np.array(group),
        "slots": np.array(slots).astype(np.int16),
        "letters": np.array(letters).astype(np.int16),
    }


def occupation_row(
    sequence: CrystalTokens, recall: RetrievedPrototypes, positions: WyckoffTables
) -> dict[str, NDArray[np.generic]]:
    """Describe a crystal to the occupation network."""
    number, n_sites = sequence.spacegroup, len(sequence.slots)
    left = list(sequence.counts)
    taken: frozenset[int] = frozenset()
    consistent = recall.consistent(number)
    allowed = np.zeros((n_sites, N_LETTERS), dtype=bool)
    evidence = np.zeros((n_sites, N_LETTERS, N_CHANNELS), dtype=np.float16)
    progress = np.zeros((n_sites, 3), dtype=np.float16)
    lowest = previous = 0
    for site, (slot, letter) in enumerate(zip(sequence.slots.tolist(), sequence.letters.tolist(), strict=True)):
        lowest = lowest if slot == previous else 0
        allowed[site] = positions.next_letters(number, left[slot:], lowest, taken)
        evidence[site] = recall.letter_evidence(consistent, site)
        left[slot] -= int(positions.multiplicity[number, letter])
        progress[site] = progress_of(left, sequence.counts, slot)
        if positions.is_fixed(number, letter):
            taken |= {letter}
        if site < recall.letters.shape[1]:
            consistent = consistent & (recall.letters[:, site] == letter)
        lowest, previous = letter, slot
    return {
        **contents_row(sequence.elements, sequence.counts),
        **retrieved_row(recall),
        **occupied_row(number, sequence.slots, sequence.letters),
        "group_allowed": positions.groups(sequence.counts),
        "letter_allowed": allowed,
        "letter_evidence": evidence,
        "progress": progress,
    }


def geometry_row(
    sequence: CrystalTokens, memory: PrototypeStore, positions: WyckoffTables
) -> dict[str, NDArray[np.generic]]:
    """Describe a crystal to the geometry network."""
    return {
        **contents_row(sequence.elements, sequence.counts),
        **occupied_row(sequence.spacegroup, sequence.slots, sequence.letters),
        "prototype": np.array(memory.number_of(sequence.prototype)),
        "free": free_coordinates(sequence.spacegroup, sequence.letters, positions),
        "free_cell": positions.free_cell[sequence.spacegroup].astype(np.float32),
        "coordinates": sequence.coordinates.astype(np.float32),
        "cell": sequence.cell.astype(np.float32),
    }


def substituted(row: Row, rng: np.random.Generator) -> Row:
    """Exchange elements for like ones that would be placed in the same order; the volume is not known then."""
    elements, counts = row["elements"].tolist(), row["counts"].tolist()
    chosen = list(elements)
    for slot, element in enumerate(elements):
        others, chances = _like(element)
        trial = [*chosen[:slot], int(others[rng.choice(len(others), p=chances)]), *chosen[slot + 1 :]]
        if len(set(trial)) == len(trial) and list(element_order(dict(zip(trial, counts, strict=True)))) == trial:
            chosen = trial
    if chosen == elements:
        return row
    return {**row, "elements": np.array(chosen), "free_cell": np.where(_VOLUME, 0, row["free_cell"]).astype(np.float32)}


@cache
def _like(element: int) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
    """Elements that are like one, and chances in proportion to how alike they are; up to americium."""
    alike = (1 + squared_distances()[element, :96] / (2 * KERNEL_EXPONENT)) ** -KERNEL_EXPONENT
    alike[[0, *([element] if element < len(alike) else [])]] = 0.0
    nearest = np.argsort(-alike)[:_ALIKE]
    return nearest, alike[nearest] / alike[nearest].sum()


def pad_and_stack(rows: Sequence[Row]) -> dict[str, Tensor]:
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


def free_coordinates(group: int, letters: NDArray[np.int_], positions: WyckoffTables) -> NDArray[np.bool_]:
    """Which coordinates are predicted: those free, without the first site's along polar axes, the origin there."""
    free = positions.free[group, letters] > 0
    free[0] &= positions.polar[group] == 0
    return np.asarray(free)


def progress_of(left: Sequence[int], counts: Sequence[int], slot: int) -> tuple[float, float, float]:
    """How much is left of the present element and of all, after a site."""
    return left[slot] / counts[slot], log(1 + left[slot]) / 3, sum(left) / sum(counts)
