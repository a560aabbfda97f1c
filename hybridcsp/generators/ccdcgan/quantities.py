"""Properties that a constraint learns, and their values in the units of the networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Request
from hybridcsp.generators.properties import LearnedProperties
from hybridcsp.predictors.base import Predictor

#: Name of the energy quantile among the properties.
ENERGY = "energy_quantile"
# Largest value of a property whose exponential function is a loss, and largest magnitude that is learned with it.
_LARGEST = 20.0


class Units(ABC):
    """Abstract base class of the units of properties in networks.

    Attributes
    ----------
    largest
        Largest magnitude of a value in these units; others are cut off, because they would decide the loss alone.
    """

    largest: float

    @abstractmethod
    def scales(self, properties: LearnedProperties) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the value of each property that is zero in the networks, and the one that is a unit above it."""

    @abstractmethod
    def told(self, examples: Sequence[Example]) -> list[Example]:
        """Return examples with all that is learned among their properties."""

    @abstractmethod
    def check(self, properties: LearnedProperties) -> None:
        """Check which properties are learned.

        Raises
        ------
        InputError
            If they cannot be.
        """


class OwnUnit(Units):
    """The unit of the one property that is learned, as published."""

    largest = _LARGEST

    def scales(self, properties: LearnedProperties) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return 0 and 1."""
        n = len(properties.scales)
        return np.zeros(n), np.ones(n)

    def told(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples with their own properties."""
        return list(examples)

    def check(self, properties: LearnedProperties) -> None:
        """Check that there is one property whose values have exponential functions."""
        names = sorted(properties.scales)
        if len(names) != 1:
            reason = (
                "the published configuration minimises one property, the formation energy in eV/atom; name the one "
                "that holds it (--property formation_energy_per_atom)"
            )
            raise InputError("property", ", ".join(names) or None, reason=reason)
        largest = max(properties.scales[names[0]].quantiles)
        if largest > _LARGEST:
            reason = (
                f"its largest value is {largest:g}, and the published configuration minimises the exponential function "
                f"of the property, which must be at most {_LARGEST:g}; use the configuration corrected"
            )
            raise InputError("property", names[0], reason=reason)


class StandardUnits(Units):
    """Standard deviations from the mean of each property."""

    largest = 4.0

    def scales(self, properties: LearnedProperties) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return means, and standard deviations of the quantiles."""
        if not properties.scales:
            return np.zeros(0), np.ones(0)
        quantiles = np.array([scale.quantiles for scale in properties.scales.values()])
        # Rare extreme values would make all others equal.
        inner = np.clip(quantiles, *np.quantile(quantiles, (0.02, 0.98), axis=1)[:, :, None])
        return inner.mean(axis=1), np.maximum(inner.std(axis=1), 1e-6 * np.abs(inner).max(axis=1) + 1e-12)

    def told(self, examples: Sequence[Example]) -> list[Example]:
        """Return examples with the energy quantile among their properties, if it differs among them."""
        known = {example.energy_quantile for example in examples} - {None}
        return [
            example
            if example.energy_quantile is None or len(known) < 2
            else replace(example, properties={**example.properties, ENERGY: example.energy_quantile})
            for example in examples
        ]

    def check(self, properties: LearnedProperties) -> None:
        """Accept all properties."""


@dataclass(frozen=True, eq=False)
class Quantities:
    """Represent the properties that are constrained, the energy quantile among them.

    Attributes
    ----------
    properties
        Their scales.
    units
        Their units in the networks.
    """

    properties: LearnedProperties
    units: Units

    @property
    def names(self) -> list[str]:
        """Names of the properties in the order of the networks."""
        return list(self.properties.scales)

    def values(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Return values in the units of the networks, NaN where unknown, shape ``(n, n_properties)``."""
        rows = [[example.properties.get(name, np.nan) for name in self.names] for example in examples]
        zero, one = self.units.scales(self.properties)
        values: NDArray[np.float64] = (np.array(rows, dtype=float).reshape(len(examples), len(zero)) - zero) / one
        return np.clip(values, -self.units.largest, self.units.largest)

    def in_own_units(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return values in the units of the networks, shape ``(n, n_properties)``, in those of the properties."""
        zero, one = self.units.scales(self.properties)
        return np.asarray(values * one + zero, dtype=float)

    def features(self, request: Request, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return features of the values that a request wants, shape ``(n_features,)``."""
        targets = dict(request.targets)
        if request.energy_quantile is not None:
            targets[ENERGY] = (request.energy_quantile, request.energy_quantile)
        if not self.names:
            return np.zeros(0, dtype=np.float32)
        return self.properties.features_of_targets(targets, rng)


def with_predictions(examples: Sequence[Example], predictor: Predictor) -> tuple[list[Example], int]:
    """Return examples with predicted values where the property is unknown, and the number of these.

    Crystals that are outside of what the predictor has learned from stay without a value.

    Parameters
    ----------
    examples
        Examples.
    predictor
        Trained predictor.

    Raises
    ------
    InputError
        If it has learned none of the crystals' kind.
    """
    name = predictor.quantity
    missing = [number for number, example in enumerate(examples) if name not in example.properties]
    found = list(examples)
    if not missing:
        return found, 0
    prediction = predictor.predict([examples[number].atoms for number in missing])
    n = 0
    for number, value, outside in zip(missing, prediction.mean.tolist(), prediction.outside, strict=True):
        if not outside and np.isfinite(value):
            found[number] = replace(found[number], properties={**found[number].properties, name: value})
            n += 1
    if not n and len(missing) == len(found):
        reason = f"no crystal is within what it has learned from ({prediction.outside[0]})"
        raise InputError("predictor", name, reason=reason)
    return found, n


def within_targets(
    quantities: Quantities, predicted: Mapping[str, float], targets: Mapping[str, tuple[float, float]]
) -> str:
    """Return the name of a property that is predicted outside of its target, or an empty string."""
    for name in quantities.names:
        low, high = targets.get(name, (-np.inf, np.inf))
        if not low <= predicted[name] <= high:
            return name
    return ""
