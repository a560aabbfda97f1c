"""Training data of FTCP: crystals as scaled matrices, and scaled properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators.ftcp.network import ROWS
from hybridcsp.structure.representations.fourier import FourierProperties, reciprocal_vectors

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.generators.base import Example

Array = NDArray[np.float64]


#: Largest number of examples whose matrices, of 0.1 MB each, are kept in memory during a training.
KEPT = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """Represent the map of matrices and properties to numbers from 0 to 1.

    Attributes
    ----------
    low, high
        Smallest and largest number of each row over all crystals and columns, shape ``(rows,)``.
    properties
        Smallest and largest value of each property by name.
    """

    low: Array
    high: Array
    properties: Mapping[str, tuple[float, float]]

    def __post_init__(self) -> None:
        ranges = np.array([*self.properties.values()], dtype=float).reshape(-1, 2)
        if not all(np.isfinite(values).all() for values in (self.low, self.high, ranges)):
            raise ValueError("the smallest and largest numbers of rows and properties must be finite")
        if (self.low > self.high).any() or (ranges[:, 0] >= ranges[:, 1]).any():
            raise ValueError("the smallest number of a row or property must not be above the largest one")

    @classmethod
    def of(cls, crystals: FourierCrystals, properties: Mapping[str, Array]) -> Self:
        """Return the scale of crystals and of their properties.

        Parameters
        ----------
        crystals
            Crystals to learn from.
        properties
            Values of each property by name, as :func:`property_table` returns them.
        """
        low = np.full(crystals.representation.shape[0], np.inf)
        high = -low
        for index in range(len(crystals)):
            matrix = crystals.matrix(index)
            np.minimum(low, matrix.min(axis=1), out=low)
            np.maximum(high, matrix.max(axis=1), out=high)
        ranges = {name: (float(np.nanmin(values)), float(np.nanmax(values))) for name, values in properties.items()}
        return cls(low=low, high=high, properties=ranges)

    @classmethod
    def from_card(cls, stored: Mapping[str, Any]) -> Self:
        """Build the scale from the entry of a card that :meth:`to_card` returned."""
        low, high = np.array(stored["low"], dtype=float), np.array(stored["high"], dtype=float)
        if low.ndim != 1 or low.shape != high.shape:
            raise ValueError("there must be as many smallest as largest numbers of rows")
        properties = {str(name): (float(least), float(most)) for name, (least, most) in stored["properties"].items()}
        return cls(low=low, high=high, properties=properties)

    def to_card(self) -> dict[str, Any]:
        """Return the scale in a form that can be written as JSON."""
        properties = {name: list(limits) for name, limits in self.properties.items()}
        return {"low": self.low.tolist(), "high": self.high.tolist(), "properties": properties}

    def encode(self, matrix: Array) -> NDArray[np.float32]:
        """Return a scaled matrix, padded with rows of zeros to a multiple of :data:`ROWS`."""
        scaled = np.zeros((len(matrix) + -len(matrix) % ROWS, matrix.shape[1]), dtype=np.float32)
        scaled[: len(matrix)] = (matrix - self.low[:, None]) / self._spread[:, None]
        return scaled

    def decode(self, scaled: NDArray[np.float32]) -> Array:
        """Return the matrix of a scaled one."""
        return np.asarray(scaled[: len(self.low)] * self._spread[:, None] + self.low[:, None], dtype=float)

    def encode_property(self, name: str, values: Array | float) -> Array:
        """Return scaled values of a property; infinite and unknown ones stay so."""
        low, high = self.properties[name]
        return np.asarray((np.asarray(values) - low) / (high - low))

    @property
    def _spread(self) -> Array:
        spread = self.high - self.low
        return np.where(spread > 0, spread, 1.0)


class FourierCrystals:
    """Crystals and their reciprocal lattice vectors, whose matrices are made when they are needed.

    The matrices of all crystals would take a hundred times the memory.

    Parameters
    ----------
    representation
        Representation, within whose limits the crystals are.
    crystals
        Crystals.
    """

    def __init__(self, representation: FourierProperties, crystals: Sequence[Atoms]) -> None:
        self.representation = representation
        self._crystals = crystals
        self._vectors = [reciprocal_vectors(atoms.cell.array) for atoms in crystals]

    def __len__(self) -> int:
        return len(self._crystals)

    def matrix(self, index: int) -> Array:
        """Return the matrix of one crystal."""
        return self.representation.encode_with(self._crystals[index], self._vectors[index])


class FourierData:
    """Training examples as scaled matrices and properties.

    Up to :data:`KEPT` matrices are kept in memory; of more examples they are made again for each batch.

    Parameters
    ----------
    crystals
        Crystals in the form in which they are learned.
    weights
        Weights of the crystals in the loss, shape ``(n,)``.
    properties
        Values of each property by name, NaN where unknown, shape ``(n,)``.
    scale
        Scale of matrices and properties.
    """

    def __init__(
        self, crystals: FourierCrystals, weights: Array, properties: Mapping[str, Array], scale: Scale
    ) -> None:
        self.weights = weights
        self.sizes = np.ones(len(crystals), dtype=int)  # all matrices are of one size
        self._crystals = crystals
        self._scale = scale
        self._kept = [self._matrix(i) for i in range(len(crystals))] if len(crystals) <= KEPT else []
        self._values = scaled_properties(scale, properties, len(crystals))

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return ``matrices``, ``properties`` and ``known``, as the network takes them; nothing is drawn."""
        values = self._values[indices]
        known = np.isfinite(values)
        matrices = np.stack([self._kept[i] if self._kept else self._matrix(i) for i in map(int, indices)])
        return {
            "matrices": torch.from_numpy(matrices),
            "properties": torch.as_tensor(np.where(known, values, 0.0), dtype=torch.float32),
            "known": torch.as_tensor(known, dtype=torch.float32),
        }

    def _matrix(self, index: int) -> NDArray[np.float32]:
        return self._scale.encode(self._crystals.matrix(index))


def scaled_properties(scale: Scale, properties: Mapping[str, Array], count: int) -> Array:
    """Return the scaled properties of crystals in the order of the scale, shape ``(count, n_properties)``."""
    columns = [scale.encode_property(name, properties[name]) for name in scale.properties]
    return np.array(columns).reshape(len(columns), count).T


def property_table(examples: Sequence[Example], names: Sequence[str]) -> dict[str, Array]:
    """Return the values of properties of examples by name, NaN where unknown, shape ``(n,)`` each."""
    table: dict[str, Array] = {}
    for name in names:
        values = np.array([float(example.properties.get(name, np.nan)) for example in examples])
        table[name] = np.where(np.isfinite(values), values, np.nan)
    return table


def names_of_properties(examples: Sequence[Example]) -> list[str]:
    """Return the names of the properties that examples have."""
    return sorted({name for example in examples for name in example.properties})


def check_learnable(properties: Mapping[str, Array]) -> None:
    """Check that properties can be learned.

    Parameters
    ----------
    properties
        Values of each property by name, as :func:`property_table` returns them.

    Raises
    ------
    InputError
        If fewer than two crystals have a value of a property, or all values are equal.
    """
    for name, values in properties.items():
        known = values[np.isfinite(values)]
        if len(known) < 2:
            reason = f"{len(known)} of the {len(values)} crystals to learn from have a finite value; 2 are needed"
            raise InputError("property", name, reason=reason)
        if np.ptp(known) == 0:
            reason = f"all {len(known)} crystals with a value have {known[0]:g}, so that there is nothing to learn"
            raise InputError("property", name, reason=reason)
