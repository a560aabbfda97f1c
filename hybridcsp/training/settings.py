"""Settings of a training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.utils.checks import whole_number

if TYPE_CHECKING:
    import torch

_MAY_BE_0 = frozenset({"warm_up", "weight_decay", "anchor", "averaging", "checkpoint_minutes"})


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Represent the settings of a training.

    Attributes
    ----------
    epochs
        Largest number of passes over the training set; the learning rate falls to a hundredth over them.
    batch_size
        Number of examples in one step.
    learning_rate
        Learning rate of AdamW (doi:10.48550/arXiv.1711.05101) after the warm-up.
    warm_up
        Number of steps in which the learning rate rises linearly; at most a tenth of all steps.
    weight_decay
        Weight decay of matrices; vectors (biases, norms) are not decayed.
    anchor
        Strength with which the weights are drawn back to the initial ones (L2-SP,
        doi:10.48550/arXiv.1802.01483; decoupled as weight decay is in AdamW): the fraction of their distance that one
        step at a learning rate of 1 removes.
    clip
        Largest norm of the gradient.
    averaging
        Decay of the exponential moving average of the weights, which is evaluated and kept.
    patience
        Number of epochs without a lower held-out loss after which the training stops; those of the warm-up do not
        count.
    checkpoint_minutes
        Minutes after which a checkpoint is written.
    checkpoint_epochs
        Number of epochs after which a checkpoint is written.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where it is available; on CUDA the model runs in bfloat16 mixed
        precision.

    Raises
    ------
    InputError
        If a value is not of the right type or out of its range.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 0.01
    anchor: float = 0.0
    clip: float = 1.0
    averaging: float = 0.999
    patience: int = 15
    checkpoint_minutes: float = 10.0
    checkpoint_epochs: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name == "device":
                _check_device(value)
                continue
            whole, may_be_0 = isinstance(setting.default, int), setting.name in _MAY_BE_0
            number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
            if not number or not math.isfinite(value) or value < 0 or (value == 0 and not may_be_0):
                kind, least = "a whole number" if whole else "a number", "from 0" if may_be_0 else "above 0"
                raise InputError(setting.name, value, f"{kind} {least}")
        if self.averaging >= 1:
            raise InputError("averaging", self.averaging, "a number from 0, below 1")

    def warm_up_of(self, steps: int) -> int:
        """Return the number of steps in which the learning rate rises, of a training of ``steps`` steps."""
        return max(1, min(self.warm_up, steps // 10))

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of one of ``steps`` steps: a linear warm-up, and a cosine down to a hundredth."""
        warm_up = self.warm_up_of(steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
        return self.learning_rate * min(1.0, (step + 1) / warm_up) * (0.01 + 0.99 * cosine)

    def torch_device(self) -> torch.device:
        """Return the device on which the model is trained."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def chosen_settings(given: Mapping[str, Any], others: Collection[str] = ()) -> TrainingSettings:
    """Return settings of a training by name.

    Parameters
    ----------
    given
        Values by name.
    others
        Names of settings that the model itself has, for the error.

    Raises
    ------
    UnknownNameError
        If there is no such setting.
    InputError
        If a value is not valid.
    """
    known = [setting.name for setting in fields(TrainingSettings)]
    for name in given:
        if name not in known:
            raise UnknownNameError("setting", name, [*known, *others])
    return TrainingSettings(**given)


def untrained_width(width: int, *, trained: bool) -> int:
    """Return the width that is set for the networks of an untrained model.

    Parameters
    ----------
    width
        Width.
    trained
        Whether the model has weights, whose width cannot be changed.

    Raises
    ------
    InputError
        If the model has weights, or the width is not a positive whole number.
    """
    if trained:
        raise InputError("width", width, reason="the weights have a width already; name the model to start anew")
    return whole_number("width", width, "a whole number from 1")


def _check_device(name: str) -> None:
    import torch

    try:
        usable = name == "auto" or torch.empty(0, device=name).device.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("device", name, f"one of auto, cpu, cuda ({reason})") from error
    if not usable:
        raise InputError("device", name, "one of auto, cpu, cuda")
