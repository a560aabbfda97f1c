"""Crystals that are outside of what a predictor has learned from: other elements, or unlike all crystals it knows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Share of held-out crystals that are nearer to the known ones than the limit.
QUANTILE = 0.99

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
