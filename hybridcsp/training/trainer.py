"""Training of one model that minimises one loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from hybridcsp.errors import InputError
from hybridcsp.training.batches import Batch, evaluation_batches
from hybridcsp.training.loop import TrainingLoop
from hybridcsp.training.losses import evaluate, mean_losses, total, weighted_terms


class Trainer(TrainingLoop):
    """Train a model that maps a batch to loss terms by name, each of shape ``(batch,)``; their sum is minimised.

    The loss of the held-out examples decides when to stop, or that of the training set if ``held_out`` is ``None``.
    Parameters and errors are those of :class:`~hybridcsp.training.loop.TrainingLoop`.
    """

    def _prepare(self) -> None:
        """Draw the batches of held-out examples, and note the loss of the initial weights if it is told."""
        held_out, settings = self._held_out, self._settings
        self._held_out_batches: Sequence[Batch] = (
            [] if held_out is None else list(evaluation_batches(held_out, settings.batch_size, self._seed))
        )
        if held_out is not None and self._on_epoch is not None:
            initial = mean_losses(self._model, held_out.weights, self._held_out_batches)
            self._initial_loss = sum(initial.values())

    def _take_step(self, batch: Batch) -> None:
        """Update the weights and the sums of the loss terms with one batch."""
        self._model.train()
        terms = weighted_terms(self._model, self._training.weights, batch, self._device)
        weight = float(self._training.weights[batch.indices].sum())
        loss = torch.stack([value.sum() for value in terms.values()]).sum() / weight
        self._update(loss, [parameter for parameter in self._model.parameters() if parameter.requires_grad])
        for name, value in terms.items():
            self._count(name, total(value))
        self._count("", weight)

    def _losses(self) -> dict[str, float]:
        """Return the losses of the epoch by name: of the steps, and of the averaged weights on held-out examples."""
        sums = self._state.progress.sums
        training = sum(value for name, value in sums.items() if name) / sums[""]
        held_out = self._held_out_losses()
        losses = {"train": training, "held_out": sum(held_out.values())}
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise InputError(
                "learning_rate",
                self._settings.learning_rate,
                reason="the loss is not finite; try a smaller learning rate",
            )
        return losses | {f"held_out {name}": value for name, value in held_out.items()}

    def _held_out_losses(self) -> dict[str, float]:
        model = self._state.average
        if self._held_out is None:
            return evaluate(model, self._training, self._settings.batch_size, self._seed)
        return mean_losses(model, self._held_out.weights, self._held_out_batches)
