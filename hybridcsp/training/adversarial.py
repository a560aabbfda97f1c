"""Training of networks that compete, such as the critic and the generator of a generative adversarial network.

Their losses tell little about the samples. After each epoch, samples are therefore measured, the best weights are kept
by these measures, and collapse and divergence are reported (:mod:`hybridcsp.training.stability`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from hybridcsp.errors import InputError
from hybridcsp.training.batches import Batch, TrainingData
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.loop import TrainingLoop
from hybridcsp.training.losses import total
from hybridcsp.training.optimisation import Optimisation
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.stability import collapse, divergence

# Held-out loss of an epoch without a valid sample, or whose valid samples resemble no crystal.
_NOTHING = 1.0

#: Measures of samples by name, each between 0 and 1; ``"validity"`` and ``"coverage"`` are always present, and their
#: harmonic mean decides which weights are kept. See :mod:`hybridcsp.training.stability` for ``"diversity"``.
Measure = Callable[[torch.nn.Module, np.random.Generator], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """Represent the updates of one of the networks that compete.

    Attributes
    ----------
    name
        Name of the network, ``"critic"`` or ``"generator"`` for example.
    parameters
        Parameters that are updated.
    losses
        Function from a batch to loss terms by name, each of shape ``(batch,)``, whose sum is minimised.
    every
        Number of steps between updates.
    times
        Number of updates in such a step.
    """

    name: str
    parameters: Sequence[torch.nn.Parameter]
    losses: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]
    every: int = 1
    times: int = 1


class AdversarialModel(torch.nn.Module, ABC):
    """Abstract base class of networks that compete."""

    #: Lowest loss of the critic, at which the generator learns nothing; ``None`` if there is none.
    won: float | None = None

    @abstractmethod
    def turns(self) -> Sequence[Turn]:
        """Return the updates of a step in their order, the critic's first."""


@dataclass(frozen=True)
class AdversarialAdam(Optimisation):
    """Adam with few moments, and a learning rate of each network that falls in steps.

    Attributes
    ----------
    betas
        Decay rates of the moments.
    factors
        Factors of the learning rates by the name of the network, an attribute of the model; 1 by default.
    decay
        Factor of the learning rate after ``epochs`` epochs.
    epochs
        See ``decay``.
    """

    betas: tuple[float, float] = (0.5, 0.999)
    factors: Mapping[str, float] = field(default_factory=dict)
    decay: float = 1.0
    epochs: int = 10

    def optimiser(self, model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return Adam with one group of parameters for each network."""
        groups = [
            {"params": list(child.parameters()), "lr": self.factors.get(name, 1.0)}
            for name, child in model.named_children()
        ]
        return torch.optim.Adam(groups, lr=1.0, betas=self.betas)

    def rate(self, settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
        """Return the learning rate of the settings after its decay."""
        return settings.learning_rate * self.decay ** (step // steps_per_epoch // self.epochs)


class AdversarialTrainer(TrainingLoop):
    """Train networks that compete, in turns.

    Parameters
    ----------
    model
        Networks.
    measure
        Function that samples from the model, with averaged weights, and measures the samples.
    training, settings, seed, checkpoint, on_epoch, optimisation
        As for :class:`~hybridcsp.training.loop.TrainingLoop`. Of the epochs' losses, ``"held_out"`` is 1 minus the
        harmonic mean of validity and coverage.
    """

    def __init__(
        self,
        model: AdversarialModel,
        training: TrainingData,
        settings: TrainingSettings,
        measure: Measure,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        optimisation: Optimisation | None = None,
    ) -> None:
        super().__init__(
            model,
            training,
            None,
            settings,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            optimisation=optimisation or AdversarialAdam(),
        )
        self._turns = model.turns()
        self._won = model.won
        self._measure = measure

    def _take_step(self, batch: Batch) -> None:
        """Let each network that is due take its turn."""
        progress = self._state.progress
        done = (progress.epoch - 1) * self._steps_per_epoch + progress.step
        tensors = {name: value.to(self._device) for name, value in batch.tensors.items()}
        weights = torch.as_tensor(self._training.weights[batch.indices], dtype=torch.float32, device=self._device)
        if not weights.sum() > 0:
            return
        self._model.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(batch.seed)
            for turn in self._turns:
                for _ in range(turn.times if done % turn.every == 0 else 0):
                    self._take_turn(turn, tensors, weights)

    def _take_turn(self, turn: Turn, tensors: Mapping[str, torch.Tensor], weights: torch.Tensor) -> None:
        terms = {name: value * weights for name, value in turn.losses(tensors).items()}
        loss = torch.stack([value.sum() for value in terms.values()]).sum() / weights.sum()
        if not self._update(loss, turn.parameters):
            self._count("lost", 1.0)
            return
        for name, value in terms.items():
            self._count(f"{turn.name} {name}", total(value))
        self._count(f"{turn.name}:", total(weights))

    def _losses(self) -> dict[str, float]:
        """Return the losses of the networks and their terms, and the measures of samples."""
        sums = self._state.progress.sums
        losses: dict[str, float] = {}
        for turn in self._turns:
            weight = sums.get(f"{turn.name}:", 0.0)
            terms = {name: value / weight for name, value in sums.items() if name.startswith(f"{turn.name} ")}
            if terms:
                losses |= {turn.name: sum(terms.values()), **(terms if len(terms) > 1 else {})}
        if not any(turn.name in losses for turn in self._turns) or not all(map(math.isfinite, losses.values())):
            raise InputError(
                "learning_rate",
                self._settings.learning_rate,
                reason="the losses are not finite; try a smaller learning rate",
            )
        model = self._state.average
        was_training = model.training
        model.eval()
        with torch.no_grad():
            measured = dict(self._measure(model, np.random.default_rng([self._seed, 1])))
        model.train(was_training)
        validity, coverage = measured["validity"], measured["coverage"]
        score = 2 * validity * coverage / (validity + coverage) if validity + coverage else 0.0
        return {"held_out": _NOTHING - score, **losses, **measured}

    def _is_better(self, loss: float, best: float) -> bool:
        """Return whether samples are better, or as useless as in all epochs before: nothing speaks for earlier weights.

        So a training goes on until there are useful samples, and the patience counts from then on.
        """
        return loss < best or loss == best == _NOTHING

    def _warning(self, losses: Mapping[str, float]) -> str:
        """Return whether the losses have diverged or the generator has collapsed."""
        progress = self._state.progress
        history = [*progress.history, losses]
        names = [turn.name for turn in self._turns]
        lost = int(progress.sums.get("lost", 0))
        return divergence(history, names, self._won, lost) or collapse(history)
