"""Batches of training data: in which order, drawn from which seeds, collated here or by processes ahead of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Data(Protocol):
    """Examples as a model takes them.

    Attributes
    ----------
    weights
        How much each example counts, shape ``(n,)``.
    sizes
        What padding depends on, shape ``(n,)``: examples of like size share a batch.
    """

    weights: NDArray[np.float64]
    sizes: NDArray[np.int_]

    def batch(self, indices: NDArray[np.int_], rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """Collate examples on the CPU; whatever is drawn (augmentation, noise, times) is drawn from ``rng``."""


#: Indices of examples, their collated tensors, and a seed for what the model draws (dropout).
Collation = tuple[NDArray[np.int_], Mapping[str, "torch.Tensor"], int]


class Collate:
    """Batches by the indices of their examples and the seed of what is drawn, as torch's data loaders ask for them."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __getitem__(self, key: tuple[NDArray[np.int_], list[int]]) -> Collation:
        indices, draws = key
        rng = np.random.default_rng(draws)
        return indices, self._data.batch(indices, rng), int(rng.integers(2**62))


def stream(
    data: Data, epochs: int, batch_size: int, seed: int, *, epoch: int = 1, step: int = 0, workers: int = 0
) -> Iterable[Collation]:
    """Collate the batches of all epochs that are left, one after the other.

    Parameters
    ----------
    data, epochs, batch_size, seed
        What is learned from, how often, how many examples at a time, and the seed of everything that is drawn.
    epoch, step
        Where to begin.
    workers
        Processes that collate ahead; 0 collates when asked.
    """
    collate = Collate(data)
    keys = _keys(data.sizes, epochs, batch_size, seed, epoch, step)
    if not workers:
        return (collate[key] for key in keys)
    import torch
    from torch.utils.data import DataLoader

    loader: Iterable[Collation] = DataLoader(
        collate,
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )
    return loader


def _keys(
    sizes: NDArray[np.int_], epochs: int, batch_size: int, seed: int, epoch: int, step: int
) -> Iterator[tuple[NDArray[np.int_], list[int]]]:
    """Yield the indices and the seeds of all batches from a step of an epoch on."""
    while epoch <= epochs:
        batches = _batches(sizes, batch_size, np.random.default_rng([seed, epoch]))
        for number in range(step, len(batches)):
            yield batches[number], [seed, epoch, number]
        epoch, step = epoch + 1, 0


def measured(data: Data, batch_size: int, seed: int) -> Iterator[Collation]:
    """Collate the batches on which a loss is measured: the same each time."""
    order = np.argsort(data.sizes, kind="stable")
    collate = Collate(data)
    for number, start in enumerate(range(0, len(order), batch_size)):
        yield collate[order[start : start + batch_size], [seed, 0, number]]


def _batches(sizes: NDArray[np.int_], batch_size: int, rng: np.random.Generator) -> list[NDArray[np.int_]]:
    """Shuffle examples into batches of like sizes: sorted within stretches of fifty batches."""
    order = rng.permutation(len(sizes))
    stretch = 50 * batch_size
    batches: list[NDArray[np.int_]] = []
    for start in range(0, len(order), stretch):
        part = order[start : start + stretch]
        part = part[np.argsort(sizes[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]
