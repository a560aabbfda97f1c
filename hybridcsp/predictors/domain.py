"""Crystals that are outside of what a predictor has learned from.

They have other elements, a geometry that no known crystal has, or features in the network that are far from those of
all known crystals. The last alone is not enough: networks normalise their features, so that a crystal of eight times
the volume may have usual ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.volumes import additive_volume

if TYPE_CHECKING:
    from hybridcsp.predictors.graphs import CrystalGraph

Array = NDArray[np.float64]

#: Share of held-out crystals that are nearer to the known ones than the limit.
QUANTILE = 0.99

# Share of the known crystals below the upper end of a range, and above its lower end; and the tolerance of the ends.
_INSIDE = 0.995
_MARGIN = 0.05

# Distance of an atom without neighbours in units of radii.
_WITHOUT_NEIGHBOURS = 1000.0

#: Largest number of crystals that are kept as known ones.
MOST_KNOWN = 2000


def unseen_elements(crystals: Sequence[Atoms], known: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the symbols of the elements of each crystal that are not among the known ones."""
    there = set(known)
    return tuple(tuple(sorted(set(crystal.symbols) - there)) for crystal in crystals)


def reason_of_elements(unseen: Sequence[str]) -> str:
    """Return why a crystal with these unseen elements is outside, or an empty text if there are none."""
    return f"there is no {' and no '.join(unseen)} in the training set" if unseen else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownRegion:
    """Represent the region of feature space in which a predictor has learned.

    The distance of a crystal is the root mean square of the differences of its features to those of the nearest known
    crystal, each in units of its standard deviation among the known crystals.

    Attributes
    ----------
    known
        Features of known crystals, shape ``(n_known, n_features)``.
    limit
        Largest distance inside.
    """

    known: Array
    limit: float

    def __post_init__(self) -> None:
        if self.known.ndim != 2 or not len(self.known) or not np.isfinite(self.known).all():
            raise ValueError("the features of known crystals must be a table of finite numbers")
        if not math.isfinite(self.limit) or self.limit < 0:
            raise ValueError("the largest distance to known crystals must be a finite number that is not negative")

    @classmethod
    def fitted(cls, features: Array, others: Array, seed: int) -> Self:
        """Return the region around crystals, with the limit that :data:`QUANTILE` of others respect.

        Parameters
        ----------
        features
            Features of the crystals that were learned, shape ``(n, n_features)``; at most :data:`MOST_KNOWN` of them,
            drawn at random, are kept.
        others
            Features of similar crystals that were not learned, shape ``(n_others, n_features)``.
        seed
            Random seed.
        """
        if len(features) > MOST_KNOWN:
            features = features[np.sort(np.random.default_rng(seed).choice(len(features), MOST_KNOWN, replace=False))]
        # Features are stored in single precision, and distances must not differ after saving and loading.
        known = features.astype(np.float32).astype(float)
        return cls(known=known, limit=float(np.quantile(cls(known=known, limit=0.0).distances(others), QUANTILE)))

    def distances(self, features: Array) -> Array:
        """Return the distances of crystals to the nearest known one, shape ``(n,)``, for features of their shape."""
        from scipy.spatial import KDTree

        widths = self.known.std(0)
        scale = np.where(widths > 1e-6, widths, 1.0) * np.sqrt(self.known.shape[1])
        return np.asarray(KDTree(self.known / scale).query(features / scale)[0])

    def reasons(self, features: Array) -> list[str]:
        """Return why crystals are outside, an empty text for one inside."""
        return [
            f"it is {distance / self.limit:.1f} times as far from all known crystals as 99 % of similar ones are"
            if self.limit > 0 and distance > self.limit
            else ""
            for distance in self.distances(features)
        ]


#: Quantities that describe the geometry of a crystal whatever its elements, in words.
QUANTITIES: Mapping[str, str] = {
    "volume": "volume, in units of that expected for its elements,",
    "shortest": "shortest distance of atoms, in units of the sum of their covalent radii,",
    "loneliest": "distance of the loneliest atom to its nearest neighbour, in units of the sum of their radii,",
}


@dataclass(frozen=True, kw_only=True)
class GeometryRanges:
    """Represent the ranges of the quantities of known crystals.

    Attributes
    ----------
    ranges
        Lowest and highest value by the name of the quantity.
    """

    ranges: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        if set(self.ranges) != set(QUANTITIES):
            raise ValueError(f"the ranges of known crystals must be those of {', '.join(QUANTITIES)}")
        for low, high in self.ranges.values():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError("the ranges of known crystals must be finite numbers in ascending order")

    @classmethod
    def fitted(cls, crystals: Sequence[Atoms], graphs: Sequence[CrystalGraph]) -> Self:
        """Return the ranges that all but the strangest crystals are within: one of two hundred at either end."""
        table = geometry(crystals, graphs)
        ends = np.quantile(table, [1 - _INSIDE, _INSIDE], axis=0)
        return cls(ranges={name: [float(low), float(high)] for name, low, high in zip(QUANTITIES, *ends, strict=True)})

    def reasons(self, crystals: Sequence[Atoms], graphs: Sequence[CrystalGraph]) -> list[str]:
        """Return why the geometry of crystals is outside, an empty text for one inside."""
        return [
            "; ".join(
                f"its {QUANTITIES[name]} is {value:.2f}, and known crystals have {self.ranges[name][0]:.2f} to "
                f"{self.ranges[name][1]:.2f}"
                for name, value in zip(QUANTITIES, row, strict=True)
                if not self.ranges[name][0] * (1 - _MARGIN) <= value <= self.ranges[name][1] * (1 + _MARGIN)
            )
            for row in geometry(crystals, graphs)
        ]

    def record(self) -> dict[str, Any]:
        """Return the ranges in a form that can be written as JSON."""
        return {name: list(ends) for name, ends in self.ranges.items()}


def geometry(crystals: Sequence[Atoms], graphs: Sequence[CrystalGraph]) -> Array:
    """Return the quantities of :data:`QUANTITIES` of crystals, shape ``(n, 3)``; 1000 without neighbours."""
    from ase.data import covalent_radii

    rows = []
    for atoms, graph in zip(crystals, graphs, strict=True):
        expected = additive_volume(Counter(atoms.get_chemical_symbols()))
        radii = covalent_radii[graph.numbers]
        bonds = np.linalg.norm(graph.vectors.astype(float), axis=1) / (radii[graph.centre] + radii[graph.neighbour])
        nearest = np.full(len(atoms), _WITHOUT_NEIGHBOURS)
        np.minimum.at(nearest, graph.centre, bonds)
        rows.append([atoms.get_volume() / len(atoms) / expected, nearest.min(), nearest.max()])
    return np.array(rows).reshape(len(rows), len(QUANTITIES))
