"""Properties on which generators are conditioned: their scales, the features of their values, and draws of targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from hybridcsp.generators.base import Example

Floats = NDArray[np.float32]

#: Probability that a property is hidden in training, so that it is optional in sampling.
PROPERTY_DROPOUT = 0.25

#: Probability that all properties are hidden together if there are several. Guidance compares with samples without any
#: property, of which independent hiding would show few.
ALL_DROPOUT = 0.1

#: Number of quantiles of a property that are kept, and number of intervals between them for the features.
N_QUANTILES, N_INTERVALS = 65, 8

# Number of values among which a target is drawn.
_N_DRAWN = 4097

# How far the first and the last feature may be below 0 and above 1: for values beyond those of the training set.
_BEYOND = 2.0


@dataclass(frozen=True)
class PropertyScale:
    """Distribution of a property over a training set, and the features of its values.

    The features are whether the value is known, and its position in each interval between quantiles of the training
    set, 0 below and 1 above it (piecewise linear encoding, doi:10.48550/arXiv.2203.05556). The features of an unknown
    value are 0.

    Attributes
    ----------
    quantiles
        Quantiles of the values at evenly spaced levels, the smallest and the largest value included.
    crystals
        Number of crystals with a value.

    Raises
    ------
    InputError
        If the quantiles are not increasing finite numbers.
    """

    quantiles: tuple[float, ...]
    crystals: int

    def __post_init__(self) -> None:
        values = np.asarray(self.quantiles, dtype=float)
        if values.ndim != 1 or len(values) != N_QUANTILES or not np.isfinite(values).all():
            raise InputError("quantiles", list(self.quantiles), f"{N_QUANTILES} finite numbers")
        if (np.diff(values) < 0).any() or values[0] == values[-1]:
            raise InputError(
                "quantiles", list(self.quantiles), f"{N_QUANTILES} increasing numbers, not all of them equal"
            )

    @classmethod
    def from_values(cls, name: str, values: Sequence[float]) -> Self:
        """Return the scale of the values of a property.

        Raises
        ------
        InputError
            If a value is not finite, or all are equal.
        """
        array = np.asarray(values, dtype=float)
        if not np.isfinite(array).all():
            wrong = int(np.count_nonzero(~np.isfinite(array)))
            reason = f"{wrong} of its {len(array)} values are not finite; leave them out"
            raise InputError("property", name, reason=reason)
        if len(array) == 0 or np.ptp(array) == 0:
            one = f"its only value is {array[0]:g}" if len(array) else "no crystal has it"
            raise InputError("property", name, reason=f"{one}, so that there is nothing to learn")
        quantiles = np.quantile(array, np.linspace(0, 1, N_QUANTILES))
        return cls(quantiles=tuple(np.maximum.accumulate(quantiles).tolist()), crystals=len(array))

    @property
    def edges(self) -> NDArray[np.float64]:
        """Ends of the intervals in increasing order."""
        return np.unique(self.quantiles[:: (N_QUANTILES - 1) // N_INTERVALS])

    @property
    def n_features(self) -> int:
        """Number of features of a value."""
        return len(self.edges)

    def features(self, value: float | None) -> Floats:
        """Return the features of a value, or of an unknown one for ``None``, shape ``(n_features,)``."""
        edges = self.edges
        if value is None:
            return np.zeros(len(edges), dtype=np.float32)
        positions = (value - edges[:-1]) / np.diff(edges)
        low, high = np.zeros(len(positions)), np.ones(len(positions))
        low[0], high[-1] = -_BEYOND, 1 + _BEYOND
        return np.concatenate([[1.0], np.clip(positions, low, high)]).astype(np.float32)

    def draw(self, low: float, high: float, rng: np.random.Generator) -> float:
        """Draw a value from the part of the distribution within a target.

        If no value of the training set is within it, the value of the target is returned that is nearest to one.
        """
        values = np.interp(
            np.linspace(0, 1, _N_DRAWN), np.linspace(0, 1, len(self.quantiles)), np.asarray(self.quantiles)
        )
        inside = values[(values >= low) & (values <= high)]
        if len(inside):
            return float(rng.choice(inside))
        near = np.clip(values, low, high)
        return float(near[np.argmin(np.abs(near - values))])


@dataclass(frozen=True)
class LearnedProperties:
    """Properties that a generator has learned to be conditioned on, in the order of their features.

    Attributes
    ----------
    scales
        Scales of the properties by name.
    """

    scales: Mapping[str, PropertyScale] = field(default_factory=dict)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        """Return the properties that the card of a generator names.

        Raises
        ------
        InputError
            If the entry of the card cannot be used.
        """
        entry = card.get("properties", {})
        try:
            return cls(
                {str(name): PropertyScale(tuple(one["quantiles"]), one["crystals"]) for name, one in entry.items()}
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"its entry properties must hold the quantiles of each property ({error})"
            raise InputError("card", None, reason=reason) from error

    def card(self) -> dict[str, Any]:
        """Return the entries of a card; none without properties."""
        if not self.scales:
            return {}
        about = {
            name: {"crystals": one.crystals, "quantiles": list(one.quantiles)} for name, one in self.scales.items()
        }
        return {"properties": about}

    @property
    def names(self) -> frozenset[str]:
        """Names of the properties."""
        return frozenset(self.scales)

    @property
    def n_features(self) -> int:
        """Number of features of all properties."""
        return sum(scale.n_features for scale in self.scales.values())

    def extended(self, examples: Iterable[Example]) -> LearnedProperties:
        """Return these properties and those of examples that are not among them.

        Scales of properties that are known already stay, because the weights of a network belong to them.

        Raises
        ------
        InputError
            If a new property cannot be learned from the examples.
        """
        values: dict[str, list[float]] = {}
        for example in examples:
            for name, value in example.properties.items():
                values.setdefault(name, []).append(value)
        new = {
            name: PropertyScale.from_values(name, values[name]) for name in sorted(values) if name not in self.scales
        }
        return LearnedProperties({**self.scales, **new})

    def features(self, values: Mapping[str, float]) -> Floats:
        """Return the features of the values of properties by name, shape ``(n_features,)``."""
        return np.concatenate([scale.features(values.get(name)) for name, scale in self.scales.items()])

    def features_of_targets(self, targets: Mapping[str, tuple[float, float]], rng: np.random.Generator) -> Floats:
        """Draw values within the targets of a request, and return their features, shape ``(n_features,)``.

        Targets of properties that are not learned are ignored.
        """
        return self.features(
            {name: scale.draw(*targets[name], rng) for name, scale in self.scales.items() if name in targets}
        )

    def table(self, examples: Sequence[Example]) -> PropertyTable | None:
        """Return the features of examples; ``None`` without properties."""
        if not self.scales:
            return None
        rows = np.array([self.features(example.properties) for example in examples], dtype=np.float32)
        ends = np.cumsum([scale.n_features for scale in self.scales.values()])
        return PropertyTable(rows.reshape(len(examples), self.n_features), tuple(int(end) for end in ends))


@dataclass(frozen=True, eq=False)
class PropertyTable:
    """Features of the properties of training examples.

    Attributes
    ----------
    rows
        Features, shape ``(n_examples, n_features)``.
    ends
        Number of features up to the end of each property.
    """

    rows: Floats
    ends: tuple[int, ...]

    def partly_hidden(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Floats:
        """Return the features of examples, those of some properties 0.

        Each property is hidden with a probability of a quarter, and several are hidden together in a tenth of the
        examples.
        """
        shown = rng.random((len(indices), len(self.ends))) >= PROPERTY_DROPOUT
        if len(self.ends) > 1:
            shown &= rng.random((len(indices), 1)) >= ALL_DROPOUT
        lengths = np.diff(self.ends, prepend=0)
        return np.asarray(self.rows[indices] * np.repeat(shown, lengths, axis=1), dtype=np.float32)


def is_within(value: float, target: tuple[float, float]) -> bool:
    """Return whether a value is finite and not outside of a target."""
    return math.isfinite(value) and target[0] <= value <= target[1]
