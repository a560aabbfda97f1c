"""Loss terms of a model on batches of training data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from hybridcsp.training.batches import Batch, TrainingData, evaluation_batches


def weighted_terms(
    model: torch.nn.Module, weights: NDArray[np.float64], batch: Batch, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return the loss terms of a batch, multiplied by the weights of its examples, each of shape ``(batch,)``.

    Parameters
    ----------
    model
        Model that maps the tensors of a batch to loss terms by name.
    weights
        Weights of all examples, shape ``(n,)``.
    batch, device
        Batch, and the device to evaluate it on. On CUDA the model runs in bfloat16 mixed precision.
    """
    tensors = {name: value.to(device, non_blocking=True) for name, value in batch.tensors.items()}
    own = torch.as_tensor(weights[batch.indices], dtype=torch.float32, device=device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, torch.bfloat16, enabled=bool(devices)):
        torch.manual_seed(batch.seed)
        terms = model(tensors)
    return {name: value.float() * own for name, value in terms.items()}


def mean_losses(model: torch.nn.Module, weights: NDArray[np.float64], batches: Iterable[Batch]) -> dict[str, float]:
    """Return the weighted mean of each loss term over batches, without gradients and dropout."""
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            for name, value in weighted_terms(model, weights, batch, device).items():
                sums[name] = sums.get(name, 0.0) + total(value)
    model.train(was_training)
    weight = float(weights.sum())
    return {name: value / weight for name, value in sums.items()}


def evaluate(model: torch.nn.Module, data: TrainingData, batch_size: int, seed: int = 0) -> dict[str, float]:
    """Return the weighted mean of each loss term; random numbers depend on the seed alone, so that epochs compare."""
    return mean_losses(model, data.weights, evaluation_batches(data, batch_size, seed))


def total(terms: torch.Tensor) -> float:
    """Return the sum of loss terms in double precision."""
    return float(terms.detach().double().sum())
