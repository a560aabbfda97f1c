"""Training data of both networks: encoding of crystals as arrays, and collation into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd, log
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridcsp.generators.base import HALF_PRESSURE
from hybridcsp.generators.rows import Row
from hybridcsp.generators.wyckoff.tables import N_CHANNELS, N_LETTERS, WyckoffTables
from hybridcsp.structure.elements import element_order, similar_elements

if TYPE_CHECKING:
    from hybridcsp.generators.properties import PropertyTable
    from hybridcsp.generators.wyckoff.retrieval import PrototypeStore, RetrievedPrototypes
    from hybridcsp.generators.wyckoff.tokens import CrystalTokens

# Probability that energy and pressure are hidden in training, so that they are optional in sampling.
_CONDITION_DROPOUT = 0.5

# Probability that elements of a crystal are substituted by similar ones in training of the geometry network: geometries
# depend less on the elements than a network learns from ten thousand crystals. The volume is not learned then.
_SUBSTITUTION = 0.5

# Probability that the prototype of a crystal is hidden in training, so that it is optional in sampling.
_PROTOTYPE_DROPOUT = 0.15

# Mask of the volume among the parameters of the cell.
_VOLUME = np.arange(6) == 0

_FILL = {"letters": -1}


class OccupationData:
    """Training data of the occupation network: crystals with the evidence of similar ones.

    Parameters
    ----------
    rows
        Crystals as :func:`occupation_row` encodes them.
    weights
        Weight of each crystal in the loss, shape ``(n,)``.
    conditions
        Energies and pressures as :func:`conditions` encodes them, shape ``(n, 5)``.
    properties
        Features of the properties of the crystals, if any are learned.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        properties: PropertyTable | None = None,
    ) -> None:
        self.rows = rows
        self.weights = np.array(weights, dtype=float)
        self.sizes = np.array([len(row["slots"]) + len(row["elements"]) for row in rows])
        self.conditions = conditions
        self.properties = properties

    @classmethod
    def from_tokens(
        cls,
        sequences: Sequence[CrystalTokens],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        store: PrototypeStore,
        positions: WyckoffTables,
        properties: PropertyTable | None = None,
    ) -> Self:
        """Encode crystals with evidence from the store, without crystals of the same formula."""
        found = (store.retrieve(s.elements, s.counts, same_formula=False) for s in sequences)
        rows = [occupation_row(s, retrieved, positions) for s, retrieved in zip(sequences, found, strict=True)]
        return cls(rows, weights, conditions, properties)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return a padded batch; conditions are hidden at random."""
        shown = rng.random(len(indices)) >= _CONDITION_DROPOUT
        conditions = self.conditions[indices] * shown[:, None]
        return {
            **pad_and_stack([self.rows[i] for i in indices]),
            "conditions": torch.as_tensor(conditions),
            **_properties(self.properties, indices, rng),
        }


class GeometryData:
    """Training data of the geometry network.

    Parameters
    ----------
    rows
        Crystals as :func:`geometry_row` encodes them.
    weights, conditions, properties
        Weights, conditions and properties as in :class:`OccupationData`.
    learning
        Whether elements are substituted and prototypes hidden at random; false for held-out data.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        properties: PropertyTable | None = None,
        *,
        learning: bool = True,
    ) -> None:
        self.rows = rows
        self.weights = np.array(weights, dtype=float)
        self.sizes = np.array([2 * len(row["slots"]) + len(row["elements"]) for row in rows])
        self.conditions = conditions
        self.properties = properties
        self._learning = learning

    @classmethod
    def from_tokens(
        cls,
        sequences: Sequence[CrystalTokens],
        weights: Sequence[float],
        conditions: NDArray[np.float32],
        store: PrototypeStore,
        positions: WyckoffTables,
        properties: PropertyTable | None = None,
        *,
        learning: bool = True,
    ) -> Self:
        """Encode crystals with the numbers of their prototypes in the store."""
        rows = [geometry_row(s, store, positions) for s in sequences]
        return cls(rows, weights, conditions, properties, learning=learning)

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return a padded batch; elements are substituted and conditions hidden at random."""
        shown = rng.random(len(indices)) >= _CONDITION_DROPOUT
        rows = [self.rows[i] for i in indices]
        if self._learning:
            for place in np.flatnonzero(rng.random(len(indices)) < _SUBSTITUTION).tolist():
                rows[place] = substituted(rows[place], rng)
            for place in np.flatnonzero(rng.random(len(indices)) < _PROTOTYPE_DROPOUT).tolist():
                rows[place] = {**rows[place], "prototype": np.array(0)}
        conditions = self.conditions[indices] * shown[:, None]
        return {
            **pad_and_stack(rows),
            "conditions": torch.as_tensor(conditions),
            **_properties(self.properties, indices, rng),
        }


def conditions(quantiles: Sequence[float | None], pressures: Sequence[float | None]) -> NDArray[np.float32]:
    """Return energy quantiles and pressures as arrays.

    Parameters
    ----------
    quantiles
        Energy quantiles, ``None`` where unknown.
    pressures
        Pressures in GPa, ``None`` where unknown.

    Returns
    -------
    ndarray
        Whether the quantile is known, whether it is the lowest, the quantile, whether the pressure is known, and the
        pressure on a scale from 0 to 1, shape ``(n, 5)``.
    """
    energy, pressure = (np.array([np.nan if v is None else v for v in values]) for values in (quantiles, pressures))
    has_energy, has_pressure = np.isfinite(energy), np.isfinite(pressure)
    quantile, gpa = np.where(has_energy, energy, 0.0), np.maximum(np.where(has_pressure, pressure, 0.0), 0.0)
    columns = [has_energy, has_energy & (quantile <= 0), quantile, has_pressure, gpa / (gpa + HALF_PRESSURE)]
    return np.column_stack(columns).astype(np.float32)


def _properties(table: PropertyTable | None, indices: NDArray[np.int_], rng: np.random.Generator) -> dict[str, Tensor]:
    """Return the entry of a batch with the features of properties, hidden at random; none without properties."""
    return {} if table is None else {"properties": torch.as_tensor(table.partly_hidden(indices, rng))}


def contents_row(elements: tuple[int, ...], counts: tuple[int, ...]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of requested contents."""
    return {"elements": np.array(elements), "counts": np.array(counts), "divisor": np.array(gcd(*counts))}


def retrieved_row(retrieved: RetrievedPrototypes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the retrieved prototypes."""
    return {"summary": retrieved.summary, "group_evidence": retrieved.group_evidence().astype(np.float16)}


def occupied_row(
    group: int, slots: Sequence[int] | NDArray[np.int_], letters: Sequence[int] | NDArray[np.int_]
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the occupied positions."""
    return {
        "group": np.array(group),
        "slots": np.array(slots).astype(np.int16),
        "letters": np.array(letters).astype(np.int16),
    }


def occupation_row(
    sequence: CrystalTokens, retrieved: RetrievedPrototypes, positions: WyckoffTables
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a crystal for the occupation network."""
    number, n_sites = sequence.spacegroup, len(sequence.slots)
    left = list(sequence.counts)
    taken: frozenset[int] = frozenset()
    consistent = retrieved.consistent(number)
    allowed = np.zeros((n_sites, N_LETTERS), dtype=bool)
    evidence = np.zeros((n_sites, N_LETTERS, N_CHANNELS), dtype=np.float16)
    progress = np.zeros((n_sites, 3), dtype=np.float16)
    lowest = previous = 0
    for site, (slot, letter) in enumerate(zip(sequence.slots.tolist(), sequence.letters.tolist(), strict=True)):
        lowest = lowest if slot == previous else 0
        allowed[site] = positions.next_letters(number, left[slot:], lowest, taken)
        evidence[site] = retrieved.letter_evidence(consistent, site)
        left[slot] -= int(positions.multiplicity[number, letter])
        progress[site] = progress_of(left, sequence.counts, slot)
        if positions.is_fixed(number, letter):
            taken |= {letter}
        if site < retrieved.letters.shape[1]:
            consistent = consistent & (retrieved.letters[:, site] == letter)
        lowest, previous = letter, slot
    return {
        **contents_row(sequence.elements, sequence.counts),
        **retrieved_row(retrieved),
        **occupied_row(number, sequence.slots, sequence.letters),
        "group_allowed": positions.groups(sequence.counts),
        "letter_allowed": allowed,
        "letter_evidence": evidence,
        "progress": progress,
    }


def geometry_row(
    sequence: CrystalTokens, store: PrototypeStore, positions: WyckoffTables
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a crystal for the geometry network."""
    return {
        **contents_row(sequence.elements, sequence.counts),
        **occupied_row(sequence.spacegroup, sequence.slots, sequence.letters),
        "prototype": np.array(store.number_of(sequence.prototype)),
        "free": free_coordinates(sequence.spacegroup, sequence.letters, positions),
        "free_cell": positions.free_cell[sequence.spacegroup].astype(np.float32),
        "coordinates": sequence.coordinates.astype(np.float32),
        "cell": sequence.cell.astype(np.float32),
    }


def substituted(row: Row, rng: np.random.Generator) -> Row:
    """Substitute elements by similar ones that keep their order; the volume is marked as unknown."""
    elements, counts = row["elements"].tolist(), row["counts"].tolist()
    chosen = list(elements)
    for slot, element in enumerate(elements):
        others, chances = similar_elements(element)
        trial = [*chosen[:slot], int(others[rng.choice(len(others), p=chances)]), *chosen[slot + 1 :]]
        if len(set(trial)) == len(trial) and list(element_order(dict(zip(trial, counts, strict=True)))) == trial:
            chosen = trial
    if chosen == elements:
        return row
    return {**row, "elements": np.array(chosen), "free_cell": np.where(_VOLUME, 0, row["free_cell"]).astype(np.float32)}


def pad_and_stack(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return the arrays of rows, padded to the longest and stacked."""
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
    """Return the mask of predicted coordinates: the free ones, without the first site's along polar axes."""
    free = positions.free[group, letters] > 0
    free[0] &= positions.polar[group] == 0
    return np.asarray(free)


def progress_of(left: Sequence[int], counts: Sequence[int], slot: int) -> tuple[float, float, float]:
    """Return the remaining fractions of the current element and of all atoms after a site."""
    return left[slot] / counts[slot], log(1 + left[slot]) / 3, sum(left) / sum(counts)
