"""Training data of the networks that compete, and of the constraint: codes, contents and values of properties."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.generators.images.codes import Codes
from hybridcsp.generators.properties import PropertyTable


class PropertyData:
    """Training data of the constraint.

    Parameters
    ----------
    codes
        Codes of the images.
    contents
        Number of atoms of each element, shape ``(n, n_elements)``.
    values
        Values of properties in the units of the networks, NaN where unknown, shape ``(n, n_properties)``.
    weights
        Weights in the loss, shape ``(n,)``.
    """

    def __init__(
        self,
        codes: Codes,
        contents: NDArray[np.int_],
        values: NDArray[np.float64],
        weights: NDArray[np.float64],
    ) -> None:
        self.weights = weights
        self.sizes = np.ones(len(weights), dtype=int)
        self._given = codes, contents, values
        self._tensors = {
            "cell": codes.cell,
            "sites": codes.sites,
            "contents": torch.as_tensor(contents, dtype=torch.float32),
            "values": torch.as_tensor(np.nan_to_num(values), dtype=torch.float32),
            "known": torch.as_tensor(~np.isnan(values), dtype=torch.float32),
        }

    def with_known_values(self) -> PropertyData | None:
        """Return the crystals of which a property is known, and which count; ``None`` if there are none."""
        codes, contents, values = self._given
        there = ~np.isnan(values).all(axis=1) & (self.weights > 0) if values.shape[1] else np.zeros(len(values), bool)
        if not there.any():
            return None
        kept = torch.from_numpy(there)
        return PropertyData(
            Codes(codes.cell[kept], codes.sites[kept]), contents[there], values[there], self.weights[there]
        )

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return the tensors of examples."""
        return {name: tensor[torch.from_numpy(indices)] for name, tensor in self._tensors.items()}


class CodeData:
    """Training data of the networks that compete: crystals several times in each epoch, with noise.

    Parameters
    ----------
    data
        Crystals.
    table
        Features of the values of their properties, which are hidden now and then; ``None`` without properties.
    n_noise
        Number of random numbers from which a crystal is made.
    least
        Number of presentations that an epoch has at least, so that measures of samples take little of the time.
    """

    def __init__(self, data: PropertyData, table: PropertyTable | None, n_noise: int, least: int) -> None:
        times = max(1, -(-least // len(data.weights)))
        self.weights = np.tile(data.weights, times)
        self.sizes = np.ones(len(self.weights), dtype=int)
        self._data, self._table, self._n_noise = data, table, n_noise

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return the tensors of examples with ``features``, ``noise``, and which values are ``wanted``."""
        own = indices % len(self._data.weights)
        tensors = dict(self._data.batch(own, rng))
        features = np.zeros((len(own), 0), dtype=np.float32)
        if self._table is not None:
            features = self._table.partly_hidden(own, rng)
            # The first feature of a property is 1 where its value is known and shown.
            firsts = np.concatenate([[0], self._table.ends[:-1]]).astype(int)
            tensors["wanted"] = torch.from_numpy(np.ascontiguousarray(features[:, firsts]))
        noise = rng.standard_normal((len(own), self._n_noise)).astype(np.float32)
        return {**tensors, "features": torch.from_numpy(features), "noise": torch.from_numpy(noise)}
