"""Checkpoints: the state of a training in a file, from which it continues bit for bit on a CPU."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hybridcsp.errors import InputError
from hybridcsp.training.batches import TrainingData
from hybridcsp.training.optimisation import AdamWCosine, Optimisation
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.utils.files import atomic_write, make_folder

# Settings that do not change the result of a training.
_WITHOUT_EFFECT = frozenset({"checkpoint_minutes", "checkpoint_epochs", "device"})

# Number of examples that are collated at a time to hash the training data.
_HASHED = 256


@dataclass
class Progress:
    """Represent the position in a training: with the tensors, everything that the rest of it depends on.

    Attributes
    ----------
    epoch
        Number of the current epoch, from 1.
    step
        Number of completed steps of this epoch.
    seconds
        Duration of the training until now.
    best_loss, best_epoch
        Lowest held-out loss, and the number of its epoch.
    sums
        Sums of this epoch's loss terms by name, and of the examples' weights under ``""``.
    history
        Number and losses of each completed epoch.
    finished
        Whether the training has ended.
    """

    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False


@dataclass(eq=False)
class TrainingState:
    """Represent the complete state of a training.

    Attributes
    ----------
    model
        Model with the current weights.
    optimiser
        Optimiser with its moments.
    average
        Copy of the model with the moving average of the weights.
    best
        Moving average of the weights after the epoch with the lowest held-out loss, by name.
    progress
        Position in the training.
    """

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    average: torch.nn.Module
    best: Mapping[str, torch.Tensor]
    progress: Progress = field(default_factory=Progress)

    def moments(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """Yield the optimiser's moments as name of the parameter, name of the moment, and the moment."""
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                yield name, key, value


def training_identity(
    model: torch.nn.Module,
    training: TrainingData,
    held_out: TrainingData | None,
    settings: TrainingSettings,
    seed: int,
    optimisation: Optimisation,
) -> str:
    """Return a hash of everything that must be equal for a training to continue from a checkpoint.

    Parameters
    ----------
    model
        Model with its initial weights.
    training, held_out, settings, seed, optimisation
        As in :class:`hybridcsp.training.trainer.Trainer`.
    """
    effective = {key: value for key, value in asdict(settings).items() if key not in _WITHOUT_EFFECT}
    if not settings.anchor:
        del effective["anchor"]  # checkpoints that are older than this setting lack it
    if optimisation != AdamWCosine():
        effective["optimisation"] = repr(optimisation)
    found = hashlib.sha256(json.dumps([effective, seed], sort_keys=True).encode())
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


def write(file: Path, state: TrainingState, identity: str) -> None:
    """Write the state of a training into a safetensors file.

    Parameters
    ----------
    file
        File, replaced at once if it exists; its folder is made if it does not exist.
    state
        State of the training.
    identity
        Hash of the training, see :func:`training_identity`.
    """
    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"averaged/{name}": value for name, value in state.average.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= {f"optimiser/{name}/{key}": value for name, key, value in state.moments()}
    copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    make_folder(file.parent)
    with atomic_write(file, "wb") as stream:
        stream.write(save(copies, {"identity": identity, "progress": json.dumps(asdict(state.progress))}))


def restore(file: Path, state: TrainingState, identity: str) -> None:
    """Read the state of a training from a file that :func:`write` has written, into ``state``.

    Parameters
    ----------
    file, state, identity
        As in :func:`write`.

    Raises
    ------
    InputError
        If the file is damaged, or belongs to another training.
    """
    device = next(state.model.parameters()).device
    try:
        with safe_open(str(file), framework="pt", device="cpu") as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key).to(device) for key in stored.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error
    if metadata.get("identity") != identity:
        raise InputError(
            "checkpoint",
            file,
            reason="the checkpoint belongs to a training with other data, settings, seed or initial weights; delete "
            "it to start the training anew",
        )
    try:
        _fill(state, tensors, metadata["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(
        "checkpoint", file, reason=f"the checkpoint is damaged ({error}); delete it to start the training anew"
    )


def _fill(state: TrainingState, tensors: Mapping[str, torch.Tensor], progress: str) -> None:
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "averaged": {}, "best": {}, "optimiser": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    state.model.load_state_dict(parts["model"])
    state.average.load_state_dict(parts["averaged"])
    state.best = parts["best"]
    for name, parameter in state.model.named_parameters():
        moments = {k.rpartition("/")[2]: v for k, v in parts["optimiser"].items() if k.rpartition("/")[0] == name}
        if moments:
            moments["step"] = moments["step"].cpu()  # AdamW keeps it on the CPU
            state.optimiser.state[parameter] = moments
    state.progress = Progress(**json.loads(progress))
