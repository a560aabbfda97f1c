"""Loop of all trainings: epochs of steps, checkpoints, interruption, and the best weights."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from hybridcsp.errors import InputError
from hybridcsp.training import checkpoints
from hybridcsp.training.batches import Batch, TrainingData, batches_per_epoch, training_batches
from hybridcsp.training.checkpoints import TrainingState, training_identity
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.optimisation import AdamWCosine, Optimisation
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.utils.interrupts import uninterrupted


class TrainingLoop(ABC):
    """Train one model on one training set; subclasses define a step and the evaluation after each epoch.

    The random numbers of each step depend on ``[seed, epoch, step]`` alone, so that weights, optimiser and position are
    the complete state. A training that is interrupted, by Ctrl-C or from outside, and continued from its checkpoint
    ends exactly like one without interruption (on a CPU and with the same number of threads).

    Parameters
    ----------
    model
        Model.
    training
        Training set.
    held_out
        Held-out examples, or ``None``; a checkpoint belongs to a training with the same ones.
    settings
        Settings of the training.
    seed
        Random seed of the order of examples, of augmentation, noise and dropout.
    checkpoint
        Safetensors file for the state of the training. The training continues from it if it exists.
    on_epoch
        Function that is called after each epoch.
    workers
        Number of processes that collate batches ahead of time, for GPUs that would wait for them; it does not change
        the result.
    optimisation
        Optimiser and course of the learning rate; by default AdamW with a warm-up and a cosine.

    Raises
    ------
    InputError
        If no example has a positive weight, the batches are too small for the model, or the checkpoint is damaged or
        belongs to another training.
    """

    #: Held-out loss of the initial weights; ``None`` if it is not known.
    _initial_loss: float | None = None

    def __init__(
        self,
        model: torch.nn.Module,
        training: TrainingData,
        held_out: TrainingData | None,
        settings: TrainingSettings,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        workers: int = 0,
        optimisation: Optimisation | None = None,
    ) -> None:
        if not training.weights.sum() > 0:
            raise InputError(
                "weight", 0, reason="at least one of the crystals to learn from must have a weight above 0"
            )
        self._training = training
        self._held_out = held_out
        self._settings = settings
        self._seed = seed
        self._checkpoint = checkpoint
        self._on_epoch = on_epoch
        self._workers = workers
        self._device = settings.torch_device()
        self._smallest_batch = smallest_batch(model, settings.batch_size)
        self._steps_per_epoch = batches_per_epoch(len(training.weights), settings.batch_size, self._smallest_batch)

        self._model = model.to(self._device)
        self._prepare()
        self._initial = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimisation = optimisation or AdamWCosine()
        self._average = AveragedModel(model, multi_avg_fn=_moving_average(settings.averaging))
        self._state = TrainingState(
            model=model,
            optimiser=optimisation.optimiser(model, settings),
            average=self._average.module,
            best={name: value.clone() for name, value in model.state_dict().items()},
        )
        self._identity = ""
        if checkpoint is not None:
            self._identity = training_identity(model, training, held_out, settings, seed, optimisation)
            if checkpoint.exists():
                checkpoints.restore(checkpoint, self._state, self._identity)

        progress = self._state.progress
        done = (progress.epoch - 1) * self._steps_per_epoch + progress.step
        steps = settings.epochs * self._steps_per_epoch
        # An average of nothing would be replaced by the first weights; the initial weights count as one.
        self._average.n_averaged.fill_(1 + done)

        def rate(step: int) -> float:
            return optimisation.rate(settings, done + step, steps, self._steps_per_epoch)

        self._schedule = LambdaLR(self._state.optimiser, rate)
        self._clock = self._last_checkpoint = 0.0  # of time.monotonic()

    def train(self) -> list[dict[str, Any]]:
        """Train until the end; the model then has the averaged weights of the epoch with the lowest held-out loss.

        Returns
        -------
        list of dict
            Number and losses of each epoch, those before the checkpoint included.

        Raises
        ------
        InputError
            If the loss is not finite.
        """
        progress = self._state.progress
        self._clock = self._last_checkpoint = time.monotonic()
        batches = iter(
            training_batches(
                self._training,
                self._settings.epochs,
                self._settings.batch_size,
                self._seed,
                epoch=progress.epoch,
                step=progress.step,
                smallest=self._smallest_batch,
                workers=self._workers,
            )
        )
        while not progress.finished:
            self._train_epoch(batches)
            with uninterrupted():
                epoch = self._complete_epoch()
            if self._on_epoch is not None:
                try:
                    self._on_epoch(epoch)
                except BaseException:  # a training that is ended by this function can be continued, too
                    self._save()
                    raise
        self._model.load_state_dict(self._state.best)
        self._model.to("cpu").eval()
        return progress.history

    def _prepare(self) -> None:  # noqa: B027  # most subclasses have nothing to prepare
        """Prepare the evaluation with the initial weights, before those of a checkpoint are read."""

    @abstractmethod
    def _take_step(self, batch: Batch) -> None:
        """Update the weights and the sums of the loss terms with one batch."""

    @abstractmethod
    def _losses(self) -> Mapping[str, float]:
        """Return the losses of the epoch by name; the weights with the lowest ``"held_out"`` are kept.

        Raises
        ------
        InputError
            If a loss is not finite.
        """

    def _is_better(self, loss: float, best: float) -> bool:
        """Return whether the weights of an epoch are kept, given its held-out loss and the lowest one before."""
        return loss < best

    def _warning(self, losses: Mapping[str, float]) -> str:
        """Return a warning about the epoch with these losses, or an empty text; earlier ones are in the history."""
        return ""

    def _update(self, loss: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> bool:
        """Update parameters with the gradient of a loss, and return whether it was finite."""
        optimiser = self._state.optimiser
        optimiser.zero_grad(set_to_none=True)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._settings.clip)
        finite = bool(torch.isfinite(norm))
        if not finite:  # such a step would destroy the weights; without gradients they stay as they are
            optimiser.zero_grad(set_to_none=True)
        optimiser.step()
        return finite

    def _end_step(self) -> None:
        """Draw the weights back to the initial ones if asked to, and advance average, learning rate and position."""
        if self._settings.anchor:
            fraction = min(1.0, self._settings.anchor * float(self._schedule.get_last_lr()[0]))
            for name, parameter in self._model.named_parameters():
                parameter.data.lerp_(self._initial[name], fraction)
        self._average.update_parameters(self._model)
        self._schedule.step()
        self._state.progress.step += 1

    def _count(self, name: str, value: float) -> None:
        """Add a value to a sum of this epoch."""
        sums = self._state.progress.sums
        sums[name] = sums.get(name, 0.0) + value

    def _train_epoch(self, batches: Iterator[Batch]) -> None:
        """Take the remaining steps of the current epoch; keep the state if it is interrupted."""
        progress = self._state.progress
        try:
            while progress.step < self._steps_per_epoch:
                batch = next(batches)
                with uninterrupted():
                    self._take_step(batch)
                    self._end_step()
                    if self._checkpoint_is_due():
                        self._save()
        except KeyboardInterrupt:
            self._save()
            raise

    def _complete_epoch(self) -> Epoch:
        """Evaluate the averaged weights, keep them if they are the best, and move on to the next epoch."""
        progress, settings = self._state.progress, self._settings
        steps = settings.epochs * self._steps_per_epoch
        losses = self._losses()
        warning = self._warning(losses)
        number = progress.epoch
        if best := self._is_better(losses["held_out"], progress.best_loss):
            progress.best_loss, progress.best_epoch = losses["held_out"], number
            self._state.best = {name: value.clone() for name, value in self._state.average.state_dict().items()}
        # While the learning rate rises, losses hardly fall yet: small training sets take few steps in an epoch.
        since = max(progress.best_epoch, math.ceil(settings.warm_up_of(steps) / self._steps_per_epoch))
        progress.finished = number >= settings.epochs or number - since >= settings.patience
        progress.epoch, progress.step, progress.sums = number + 1, 0, {}
        progress.history.append({"epoch": number, **{name: round(value, 5) for name, value in losses.items()}})
        self._count_seconds()
        if progress.finished or number % settings.checkpoint_epochs == 0 or self._checkpoint_is_due():
            self._save()
        return Epoch(
            number=number,
            losses=losses,
            seconds=progress.seconds,
            best=best,
            at_start=self._initial_loss,
            warning=warning,
        )

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._last_checkpoint > 60 * self._settings.checkpoint_minutes

    def _save(self) -> None:
        self._count_seconds()
        self._last_checkpoint = self._clock
        if self._checkpoint is not None:
            checkpoints.write(self._checkpoint, self._state, self._identity)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self._state.progress.seconds += now - self._clock
        self._clock = now


def smallest_batch(model: torch.nn.Module, batch_size: int) -> int:
    """Return the smallest number of examples from which a model can learn: two if it normalises features over a batch.

    Raises
    ------
    InputError
        If batches are smaller.
    """
    least = 2 if any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules()) else 1
    if batch_size < least:
        raise InputError(
            "batch_size",
            batch_size,
            f"a whole number from {least}, because this model normalises features over a batch",
        )
    return least


def _moving_average(decay: float) -> Callable[[Any, Any, torch.Tensor | int], None]:
    """Return the update of an exponential moving average whose decay grows with the number of steps.

    torch's ``get_ema_multi_avg_fn`` has a fixed decay, with which the initial weights would count too much in the
    short trainings of a search.
    """

    def update(
        averages: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], n_averaged: torch.Tensor | int
    ) -> None:
        n = int(n_averaged)
        fraction = 1 - min(decay, n / (n + 9))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, fraction)

    return update
