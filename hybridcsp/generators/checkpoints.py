"""The state of a training in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.errors import InputError
from hybridcsp.generators.storage import write_atomically

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


def _moments(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            yield name, key, value


def write(
    file: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: Mapping[str, torch.Tensor],
    best: Mapping[str, torch.Tensor],
    progress: Progress,
    identity: str,
) -> None:
    """Keep the state of a training in a safetensors file.

    Parameters
    ----------
    file
        Written under another name first.
    model, optimiser, averaged, best, progress
        The state: weights, moments, moving average of the weights, those of the best epoch, position.
    identity
        Of the training, which :func:`restore` compares.
    """
    from safetensors.torch import save

    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"averaged/{name}": value for name, value in averaged.items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    tensors |= {f"optimiser/{name}/{key}": value for name, key, value in _moments(model, optimiser)}
    held = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, save(held, {"identity": identity, "progress": json.dumps(asdict(progress))}))


def restore(
    file: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, torch.Tensor],
    best: dict[str, torch.Tensor],
    identity: str,
) -> Progress:
    """Put a training back to where it was kept; arguments as of :func:`write`.

    Raises
    ------
    InputError
        If the file is damaged, or of another training.
    """
    from safetensors import SafetensorError, safe_open

    device = next(model.parameters()).device
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
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "averaged": {}, "best": {}, "optimiser": {}}
    for key, value in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = value
    model.load_state_dict(parts["model"])
    averaged.update(parts["averaged"])
    best.update(parts["best"])
    for name, parameter in model.named_parameters():
        own = {k.rpartition("/")[2]: v for k, v in parts["optimiser"].items() if k.rpartition("/")[0] == name}
        if own:
            own["step"] = own["step"].cpu()  # where AdamW keeps it
            optimiser.state[parameter] = own
    return Progress(**json.loads(about["progress"]))
