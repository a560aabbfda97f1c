"""Batches of training data: their order and seeds, and their collation here or by processes ahead of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class TrainingData(Protocol):
    """Examples in the form that a model takes.

    Attributes
    ----------
    weights
        Weights of the examples in the loss, shape ``(n,)``.
    sizes
        Sizes that the padding depends on, shape ``(n,)``: examples of similar size share a batch.
    """

    weights: NDArray[np.float64]
    sizes: NDArray[np.int_]

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Collate examples on the CPU; draw augmentation, noise and times from ``rng`` alone."""


class Batch(NamedTuple):
    """Represent collated examples.

    Attributes
    ----------
    indices
        Indices of the examples, shape ``(batch,)``.
    tensors
        Collated tensors by name.
    seed
        Random seed of the model's own draws, those of dropout for example.
    """

    indices: NDArray[np.int_]
    tensors: Mapping[str, torch.Tensor]
    seed: int


class Collation:
    """Map from the indices of examples and a random seed to their batch, as torch's data loaders expect it."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __getitem__(self, key: tuple[NDArray[np.int_], list[int]]) -> Batch:
        indices, seed = key
        rng = np.random.default_rng(seed)
        return Batch(indices, self._data.batch(indices, rng), int(rng.integers(2**62)))


def training_batches(
    data: TrainingData,
    epochs: int,
    batch_size: int,
    seed: int,
    *,
    epoch: int = 1,
    step: int = 0,
    smallest: int = 1,
    workers: int = 0,
) -> Iterable[Batch]:
    """Collate the batches of all remaining epochs, one after the other.

    Parameters
    ----------
    data, epochs, batch_size
        Training data, number of passes over them, and number of examples in a batch.
    seed
        Random seed of the order and of all draws.
    epoch, step
        Epoch (from 1), and number of the batch in it (from 0), to begin with.
    smallest
        Smallest number of examples in a batch; a smaller last one is joined to the one before.
    workers
        Number of processes that collate batches ahead of time; 0 collates each batch when it is requested.
    """
    collation = Collation(data)
    keys = _keys(data.sizes, epochs, batch_size, smallest, seed, epoch, step)
    if not workers:
        return (collation[key] for key in keys)
    import torch
    from torch.utils.data import DataLoader

    loader: Iterable[Batch] = DataLoader(
        collation,
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )
    return loader


def evaluation_batches(data: TrainingData, batch_size: int, seed: int) -> Iterator[Batch]:
    """Collate the batches on which a loss is evaluated, which are the same each time."""
    order = np.argsort(data.sizes, kind="stable")
    collation = Collation(data)
    for number, start in enumerate(range(0, len(order), batch_size)):
        yield collation[order[start : start + batch_size], [seed, 0, number]]


def _keys(
    sizes: NDArray[np.int_], epochs: int, batch_size: int, smallest: int, seed: int, epoch: int, step: int
) -> Iterator[tuple[NDArray[np.int_], list[int]]]:
    """Yield the indices and the seeds of all batches, beginning with one step of an epoch."""
    while epoch <= epochs:
        batches = _shuffled_batches(sizes, batch_size, smallest, np.random.default_rng([seed, epoch]))
        for number in range(step, len(batches)):
            yield batches[number], [seed, epoch, number]
        epoch, step = epoch + 1, 0


def batches_per_epoch(examples: int, batch_size: int, smallest: int = 1) -> int:
    """Return the number of batches of an epoch."""
    whole, rest = divmod(examples, batch_size)
    return max(1, whole + (rest >= smallest if rest else 0))


def _shuffled_batches(
    sizes: NDArray[np.int_], batch_size: int, smallest: int, rng: np.random.Generator
) -> list[NDArray[np.int_]]:
    """Shuffle examples into batches of similar sizes: sorted within stretches of fifty batches."""
    order = rng.permutation(len(sizes))
    stretch = 50 * batch_size
    batches: list[NDArray[np.int_]] = []
    for start in range(0, len(order), stretch):
        part = order[start : start + stretch]
        part = part[np.argsort(sizes[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < smallest:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return [batches[i] for i in rng.permutation(len(batches))]
