"""The state of a training in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.errors import InputError
from hybridcsp.utils.files import atomic_write, make_folder

if TYPE_CHECKING:
    import torch


@dataclass
class Progress:
    """Where a training is: with the tensors, everything that the rest of it depends on."""

    epoch: int = 1
    step: int = 0  # within the epoch
    seconds: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's losses, and of the weights
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False


@dataclass(eq=False)
class State:
    """All that a training is made of.

    Attributes
    ----------
    model, optimiser
        Weights and moments.
    averaged, best
        Moving average of the weights, and that of the best epoch.
    progress
        Position.
    """

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    averaged: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]
    progress: Progress = field(default_factory=Progress)

    def moments(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """Yield what the optimiser keeps of each parameter: name of the parameter, of the moment, and the moment."""
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                yield name, key, value


def write(file: Path, state: State, identity: str) -> None:
    """Keep the state of a training in a safetensors file, under another name first.

    Parameters
    ----------
    file, state
        Where, and what.
    identity
        Of the training, which :func:`restore` compares.
    """
    from safetensors.torch import save

    tensors = {f"model/{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"averaged/{name}": value for name, value in state.averaged.items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= {f"optimiser/{name}/{key}": value for name, key, value in state.moments()}
    held = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    make_folder(file.parent)
    with atomic_write(file, "wb") as stream:
        stream.write(save(held, {"identity": identity, "progress": json.dumps(asdict(state.progress))}))


def restore(file: Path, state: State, identity: str) -> None:
    """Put a training back to where it was kept; arguments as of :func:`write`.

    Raises
    ------
    InputError
        If the file is damaged, or of another training.
    """
    from safetensors import SafetensorError, safe_open

    device = next(state.model.parameters()).device
    try:
        with safe_open(str(file), framework="pt", device="cpu") as stored:
            about = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key).to(device) for key in stored.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise InputError("checkpoint", str(file), f"damaged ({error}); delete it to begin anew") from error
    if about.get("identity") != identity:
        raise InputError(
            "checkpoint", str(file), "of a training with other data, settings, seed or model; delete it to begin anew"
        )
    try:
        _fill(state, tensors, about["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError("checkpoint", str(file), f"damaged ({error}); delete it to begin anew") from error


def _fill(state: State, tensors: dict[str, torch.Tensor], progress: str) -> None:
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "averaged": {}, "best": {}, "optimiser": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    state.model.load_state_dict(parts["model"])
    state.averaged.update(parts["averaged"])
    state.best.update(parts["best"])
    for name, parameter in state.model.named_parameters():
        own = {k.rpartition("/")[2]: v for k, v in parts["optimiser"].items() if k.rpartition("/")[0] == name}
        if own:
            own["step"] = own["step"].cpu()  # where AdamW keeps it
            state.optimiser.state[parameter] = own
    state.progress = Progress(**json.loads(progress))
