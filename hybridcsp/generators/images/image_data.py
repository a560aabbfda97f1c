"""Training data of the image autoencoders: images as the voxels that are not zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Change of an image of shape ``(n, n, n)`` that keeps its meaning, drawn at random.
Change = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]

_ORDERS = tuple(permutations(range(3)))


def unchanged(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the image."""
    return image


def reoriented(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Exchange and reverse axes at random.

    The result is the image of the same atoms in other Cartesian axes, or of the same lattice in other lattice vectors.
    """
    image = image.transpose(_ORDERS[rng.integers(len(_ORDERS))])
    for axis in np.flatnonzero(rng.integers(2, size=3)).tolist():
        # The centre is the voxel n / 2, so that voxel 0 has no counterpart but itself.
        image = np.roll(np.flip(image, axis), 1, axis)
    return image


class SparseImages:
    """Images of ``(n, n, n)`` voxels, of which those that are not zero are stored.

    Parameters
    ----------
    voxels
        Voxels along an edge.
    """

    def __init__(self, voxels: int) -> None:
        self.voxels = voxels
        self._places: list[NDArray[np.int32]] = []
        self._values: list[NDArray[np.float32]] = []

    def append(self, image: Array) -> None:
        """Add an image."""
        places = np.flatnonzero(image)
        self._places.append(places.astype(np.int32))
        self._values.append(image.reshape(-1)[places].astype(np.float32))

    def __len__(self) -> int:
        return len(self._places)

    def image(self, number: int) -> NDArray[np.float32]:
        """Return one image, shape ``(n, n, n)``."""
        image = np.zeros(self.voxels**3, dtype=np.float32)
        image[self._places[number]] = self._values[number]
        return image.reshape((self.voxels,) * 3)

    def tensor(self, numbers: NDArray[np.int_]) -> torch.Tensor:
        """Return several images, shape ``(batch, 1, n, n, n)``."""
        return torch.from_numpy(np.stack([self.image(int(number)) for number in numbers]))[:, None]


class ImageData:
    """Training data of an image autoencoder.

    Parameters
    ----------
    images
        Images.
    weights
        Weight of each image in the loss, shape ``(n,)``.
    change
        Change that is applied to each image of a batch.
    """

    def __init__(self, images: SparseImages, weights: NDArray[np.float64], change: Change) -> None:
        self.images = images
        self.weights = weights
        self.sizes = np.ones(len(images), dtype=int)
        self._change = change

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Return the changed images under ``image``, shape ``(batch, 1, n, n, n)``."""
        images = [self._change(self.images.image(int(index)), rng) for index in indices]
        return {"image": torch.from_numpy(np.ascontiguousarray(np.stack(images)))[:, None]}
