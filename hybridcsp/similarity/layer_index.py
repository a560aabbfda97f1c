"""An index of layered crystals that finds one with the same layers."""

from __future__ import annotations

import numpy as np

from hybridcsp.similarity.layers import NEIGHBOURS, Layers, layer_distance
from hybridcsp.similarity.sorted_rows import SortedRows


class LayerIndex:
    """Index of the layers of crystals that finds the nearest within an energy window.

    The atoms of two layers are paired only if the means of their environments are similar, because these never differ
    by more than the environments do on average.

    Parameters
    ----------
    window
        Largest difference of the energies in eV/atom.
    limit
        Largest distance of layers in Å.
    """

    def __init__(self, window: float, limit: float) -> None:
        self._window = window
        self._limit = limit
        self._layers: list[Layers] = []
        self._keys: list[int] = []
        self._row_of: dict[int, int] = {}
        self._energies = np.empty(16)
        self._means = np.empty((16, NEIGHBOURS))
        self._sorted = SortedRows()

    def any_near(self, energy: float) -> bool:
        """Return whether there are layers of similar energy (eV/atom)."""
        return len(self._near(energy)) > 0

    def find(self, layers: Layers, energy: float) -> int | None:
        """Return the key of the nearest layers of similar energy (eV/atom), the lowest of equally near ones."""
        rows = self._near(energy)
        bounds = np.abs(self._means[rows] - _mean(layers)).max(axis=1)
        rows = rows[bounds <= self._limit + 1e-9]  # of rounding
        distances = ((layer_distance(layers, self._layers[row]), self._keys[row]) for row in rows.tolist())
        return min(((distance, key) for distance, key in distances if distance <= self._limit), default=(0.0, None))[1]

    def add(self, key: int, layers: Layers, energy: float) -> None:
        """Add layers with their energy in eV/atom under a new key."""
        row = len(self._layers)
        if row == len(self._energies):
            self._energies = np.concatenate([self._energies, np.empty_like(self._energies)])
            self._means = np.concatenate([self._means, np.empty_like(self._means)])
        self._layers.append(layers)
        self._keys.append(key)
        self._row_of[key] = row
        self._energies[row], self._means[row] = energy, _mean(layers)
        self._sorted.add(row, energy)

    def remove(self, key: int) -> None:
        """Remove the layers of a key; an unknown one is ignored."""
        row = self._row_of.pop(key, None)
        if row is None:
            return
        self._sorted.remove(row, float(self._energies[row]))
        layers, moved, last = self._layers.pop(), self._keys.pop(), len(self._layers)
        if row != last:
            self._sorted.renumber(last, float(self._energies[last]), row)
            self._layers[row], self._keys[row], self._row_of[moved] = layers, moved, row
            self._energies[row], self._means[row] = self._energies[last], self._means[last]

    def _near(self, energy: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        # A little wider than the window, which decides: rounding must not exclude its ends.
        rows = self._sorted.between(energy - 1.001 * self._window, energy + 1.001 * self._window)
        return rows[np.abs(self._energies[rows] - energy) <= self._window]


def _mean(layers: Layers) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the mean environment of the atoms, without what layers of other elements do not have."""
    mean: np.ndarray[tuple[int], np.dtype[np.float64]] = layers.environments[:, :NEIGHBOURS].mean(axis=0)
    return mean
