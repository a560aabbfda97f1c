"""Courses of the training of several networks, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hybridcsp.training.batches import TrainingData
from hybridcsp.training.epoch import Epoch, in_part
from hybridcsp.training.optimisation import Optimisation
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.trainer import Trainer

#: Settings without gradient clipping, averaging of weights, and an early end.
AS_AUTHORS: Mapping[str, Any] = {"clip": 1e9, "averaging": 0.0, "patience": 10**6}


@dataclass(frozen=True, kw_only=True)
class Course:
    """Represent the course of the training of one part.

    Attributes
    ----------
    optimisation
        Optimiser and course of the learning rate.
    settings
        Default settings.
    presentations
        Number of times that an example is presented, all examples together, which determines the default number of
        epochs; ``None`` if the settings have one.
    most_epochs
        Largest default number of epochs that follows from ``presentations``.
    """

    optimisation: Optimisation
    settings: Mapping[str, Any]
    presentations: int | None = None
    most_epochs: int = 400

    def settings_of(self, given: Mapping[str, Any]) -> TrainingSettings:
        """Return the settings that do not depend on the number of examples, given settings of the user."""
        return TrainingSettings(**{**self.settings, **given})

    def chosen(self, given: Mapping[str, Any], n: int) -> TrainingSettings:
        """Return the settings for ``n`` examples, given settings of the user."""
        settings = {**self.settings, **given}
        if self.presentations is not None:
            settings = {"epochs": min(self.most_epochs, max(10, round(self.presentations / n)))} | settings
        return TrainingSettings(**settings)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Represent the training of several networks, one after the other, with one set of settings of the user.

    Attributes
    ----------
    settings
        Fields of :class:`hybridcsp.training.settings.TrainingSettings` that are given for all networks.
    seed, checkpoint, on_epoch
        As in :class:`hybridcsp.training.trainer.Trainer`; each network has a checkpoint of its own.
    """

    settings: Mapping[str, Any]
    seed: int
    checkpoint: Path | None
    on_epoch: Callable[[Epoch], None] | None

    def train(
        self, part: str, network: torch.nn.Module, data: Sequence[TrainingData], course: Course
    ) -> dict[str, Any]:
        """Train one network, and return the losses of its best epoch, the number of epochs, and the settings.

        Parameters
        ----------
        part
            Name of the network.
        network
            Network.
        data
            Training set and, if there is one, the held-out set.
        course
            Course of the training.
        """
        chosen = course.chosen(self.settings, len(data[0].weights))
        checkpoint, on_epoch = in_part(part, self.checkpoint, self.on_epoch)
        trainer = Trainer(
            network,
            data[0],
            data[1] if len(data) > 1 else None,
            chosen,
            seed=self.seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            optimisation=course.optimisation,
        )
        history = trainer.train()
        best = min(history, key=lambda epoch: epoch["held_out"])
        return best | {"epochs": len(history), "settings": asdict(chosen)}
