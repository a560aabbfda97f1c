"""One training loop for every torch model here: it can be stopped anywhere and goes on bit for bit (on a CPU)."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.generators import checkpoints
from hybridcsp.generators.base import Epoch
from hybridcsp.generators.batches import Collation, Data, measured, stream
from hybridcsp.generators.checkpoints import State
from hybridcsp.utils.interrupts import uninterrupted

if TYPE_CHECKING:
    import torch


_MAY_BE_0 = frozenset({"warm_up", "weight_decay", "anchor", "averaging", "checkpoint_minutes"})

# Settings that change nothing in the result.
_WITHOUT_EFFECT = frozenset({"checkpoint_minutes", "checkpoint_epochs", "device"})

#: Examples that are collated at a time to tell whether data are the same.
_HASHED = 256


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained.

    Attributes
    ----------
    epochs
        Most passes over the data; the learning rate falls to nothing over them.
    batch_size
        Examples in one step.
    learning_rate
        Of AdamW (doi:10.48550/arXiv.1711.05101), after ``warm_up`` steps.
    weight_decay
        Of matrices; vectors (biases, norms) are not decayed.
    anchor
        How strongly weights are drawn back to those at the beginning (L2-SP, doi:10.48550/arXiv.1802.01483; decoupled
        as weight decay is in AdamW): the fraction of their distance that one step at a learning rate of 1 takes away.
    clip
        Largest norm of the gradient.
    averaging
        Decay of the exponential moving average of the weights, which is what is evaluated and kept.
    patience
        Epochs without a lower held-out loss after which training stops.
    checkpoint_minutes, checkpoint_epochs
        After how many minutes, and at the end of how many epochs, there is a checkpoint.
    device
        ``"auto"`` is CUDA where there is one; there the model runs in bfloat16 mixed precision.
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

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of the ``steps``: a linear warm-up, then a cosine down to a hundredth."""
        warm_up = min(self.warm_up, max(1, steps // 10))
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
        return self.learning_rate * min(1.0, (step + 1) / warm_up) * (0.01 + 0.99 * cosine)


def train(
    model: torch.nn.Module,
    training: Data,
    held_out: Data | None,
    settings: Settings,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    workers: int = 0,
) -> list[dict[str, Any]]:
    """Train a model; at the end it has the averaged weights of the epoch with the lowest held-out loss.

    The draws of each step come from ``[seed, epoch, step]`` alone, so that weights, optimiser and position are all
    there is to keep: a training that was stopped, by Ctrl-C or from outside, ends as if it had not been (on a CPU and
    with the same number of threads).

    Parameters
    ----------
    model
        Maps a batch to loss terms by name, each of shape ``(batch,)``; their sum is minimised.
    training, held_out
        What is learned from and what decides when to stop; without the latter, the former decides.
    settings
        See there.
    seed
        Of everything that is drawn.
    checkpoint
        Where to keep the state, and to go on from if it is there; a safetensors file.
    on_epoch
        Called after each epoch.
    workers
        Processes that collate batches ahead, where a GPU would wait for them; they change nothing in the result.

    Returns
    -------
    list of dict
        For each epoch its number, losses and seconds.

    Raises
    ------
    InputError
        If the checkpoint is damaged or of another training, or if the loss is not a number.
    """
    import torch

    if not training.weights.sum() > 0:
        raise InputError("weight", 0, "above 0 for at least one of the crystals to learn from")
    device = _device(settings.device)
    model.to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.requires_grad and p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.requires_grad and p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    state = State(model, optimiser, averaged, {name: value.clone() for name, value in averaged.items()})
    beginning = {name: value.detach().clone() for name, value in model.named_parameters()}
    collated = None if held_out is None else list(measured(held_out, settings.batch_size, seed))
    at_start: float | None = None
    if held_out is not None and collated is not None and on_epoch is not None:
        at_start = sum(_means(model, held_out.weights, collated).values())
    identity = "" if checkpoint is None else _identity(model, training, held_out, settings, seed)
    if checkpoint is not None and checkpoint.exists():
        checkpoints.restore(checkpoint, state, identity)
    progress = state.progress
    per_epoch = math.ceil(len(training.weights) / settings.batch_size)
    steps = settings.epochs * per_epoch
    collations = iter(
        stream(
            training,
            settings.epochs,
            settings.batch_size,
            seed,
            epoch=progress.epoch,
            step=progress.step,
            workers=workers,
        )
    )
    clock = saved = time.monotonic()

    def count_seconds() -> None:
        nonlocal clock
        now = time.monotonic()
        progress.seconds += now - clock
        clock = now

    def keep() -> None:
        nonlocal saved
        count_seconds()
        saved = clock
        if checkpoint is not None:
            checkpoints.write(checkpoint, state, identity)

    while not progress.finished:
        try:
            for number in range(progress.step, per_epoch):
                collation = next(collations)
                with uninterrupted():
                    done = (progress.epoch - 1) * per_epoch + number
                    for group in optimiser.param_groups:
                        group["lr"] = settings.rate(done, steps)
                    terms = _step(model, optimiser, training.weights, collation, settings.clip, device)
                    if settings.anchor:
                        _draw_back(model, beginning, min(1.0, settings.anchor * settings.rate(done, steps)))
                    _average(averaged, model, min(settings.averaging, (1 + done) / (10 + done)))
                    for name, value in terms.items():
                        progress.sums[name] = progress.sums.get(name, 0.0) + value
                    progress.step = number + 1
                    if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                        keep()
        except KeyboardInterrupt:
            keep()
            raise
        with uninterrupted():
            own = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(averaged)
            losses = {"train": _total(progress.sums)}
            if held_out is None or collated is None:
                found = evaluate(model, training, settings, seed)
            else:
                found = _means(model, held_out.weights, collated)
            losses |= {"held_out": sum(found.values())} | {f"held_out {name}": value for name, value in found.items()}
            model.load_state_dict(own)
            if not (math.isfinite(losses["train"]) and math.isfinite(losses["held_out"])):
                raise InputError(
                    "learning_rate", settings.learning_rate, "the loss is not a number; a smaller one may help"
                )
            if better := losses["held_out"] < progress.best_loss:
                progress.best_loss, progress.best_epoch = losses["held_out"], progress.epoch
                state.best = {name: value.clone() for name, value in averaged.items()}
            told = progress.epoch
            late = told - progress.best_epoch >= settings.patience
            progress.finished = told >= settings.epochs or late
            progress.epoch, progress.step, progress.sums = told + 1, 0, {}
            progress.history.append({"epoch": told, **{k: round(v, 5) for k, v in losses.items()}})
            count_seconds()
            is_due = told % settings.checkpoint_epochs == 0 or clock - saved > 60 * settings.checkpoint_minutes
            if progress.finished or is_due:
                keep()
        if on_epoch is not None:
            try:
                on_epoch(Epoch(number=told, losses=losses, seconds=progress.seconds, best=better, at_start=at_start))
            except BaseException:  # whoever ends the training here can go on from here
                keep()
                raise
    model.load_state_dict(state.best)
    model.to("cpu").eval()
    return progress.history


def evaluate(model: torch.nn.Module, data: Data, settings: Settings, seed: int = 0) -> dict[str, float]:
    """Mean of each loss term over data; what is drawn depends on the seed only, so that epochs compare."""
    return _means(model, data.weights, measured(data, settings.batch_size, seed))


def _means(model: torch.nn.Module, weights: NDArray[np.float64], collations: Iterable[Collation]) -> dict[str, float]:
    """Return the weighted mean of each loss term."""
    import torch

    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for collation in collations:
            for name, value in _terms(model, weights, collation, device).items():
                sums[name] = sums.get(name, 0.0) + float(value.detach().double().sum())
    model.train(was_training)
    total = float(weights.sum())
    return {name: value / total for name, value in sums.items()}


def _step(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    weights: NDArray[np.float64],
    collation: Collation,
    clip: float,
    device: torch.device,
) -> dict[str, float]:
    """Take one step; return the weighted sums of the loss terms, and that of the weights under ``""``."""
    import torch

    model.train()
    terms = _terms(model, weights, collation, device)
    weight = float(weights[collation[0]].sum())
    loss = torch.stack([value.sum() for value in terms.values()]).sum() / weight
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    if torch.isfinite(norm):  # a step that is not a number would destroy the weights for good
        optimiser.step()
    return {name: float(value.detach().double().sum()) for name, value in terms.items()} | {"": weight}


def _terms(
    model: torch.nn.Module, weights: NDArray[np.float64], collation: Collation, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return the weighted loss terms of a batch, each of shape ``(batch,)``."""
    import torch

    indices, tensors, seed = collation
    batch = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
    own = torch.as_tensor(weights[indices], dtype=torch.float32, device=device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, torch.bfloat16, enabled=bool(devices)):
        torch.manual_seed(seed)
        found = model(batch)
    return {name: value.float() * own for name, value in found.items()}


def _average(averaged: Mapping[str, torch.Tensor], model: torch.nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            averaged[name].lerp_(value.detach(), 1 - decay)
        else:
            averaged[name].copy_(value)


def _draw_back(model: torch.nn.Module, beginning: Mapping[str, torch.Tensor], fraction: float) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.lerp_(beginning[name], fraction)


def _total(sums: Mapping[str, float]) -> float:
    return sum(value for name, value in sums.items() if name) / sums[""]


def _device(name: str) -> torch.device:
    import torch

    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _check_device(name: str) -> None:
    import torch

    try:
        usable = name == "auto" or torch.empty(0, device=name).device.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError("device", name, f"auto, cpu or cuda ({str(error).splitlines()[0]})") from error
    if not usable:
        raise InputError("device", name, "auto, cpu or cuda")


def _identity(model: torch.nn.Module, training: Data, held_out: Data | None, settings: Settings, seed: int) -> str:
    """Hash of what must be the same for a checkpoint to be gone on from."""
    kept = {key: value for key, value in asdict(settings).items() if key not in _WITHOUT_EFFECT}
    if not settings.anchor:
        del kept["anchor"]  # as in checkpoints from before there was one
    found = hashlib.sha256(json.dumps([kept, seed], sort_keys=True).encode())
    for name, value in model.state_dict().items():
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for data in (training, held_out):
        for start in range(0, 0 if data is None else len(data.weights), _HASHED):
            assert data is not None
            indices = np.arange(start, min(start + _HASHED, len(data.weights)))
            found.update(data.weights[indices].tobytes())
            for name, value in sorted(data.batch(indices, np.random.default_rng(0)).items()):
                found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()
