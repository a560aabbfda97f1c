"""Weights and card of a trained model in two files that belong together, safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_bytes, read_json

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights.safetensors"
CARD = "card.json"

#: Largest sizes in bytes of files that are read.
LARGEST_CARD = 8 << 20
LARGEST_WEIGHTS = 256 << 20


def save(
    folder: Path,
    kind: str,
    name: str,
    tensors: Mapping[str, torch.Tensor],
    card: Mapping[str, Any],
    *,
    precision: torch.dtype,
) -> None:
    """Write the weights and the card with their hash.

    Parameters
    ----------
    folder
        Folder, which is made if it does not exist.
    kind
        Kind of the model, ``"generator"`` or ``"predictor"``, under which the card names it.
    name
        Registered name of the model.
    tensors
        Weights by name, as in ``state_dict``.
    card
        JSON-serialisable description.
    precision
        Data type in which the weights are written.

    Raises
    ------
    InputError
        If a weight is not finite in this precision.
    """
    import torch
    from safetensors.torch import save as serialise

    converted = {
        key: (value.to(precision) if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in tensors.items()
    }
    broken = [key for key, value in converted.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        shown = "half precision" if precision == torch.float16 else "single precision"
        raise InputError(
            "weights",
            broken[0],
            reason=f"they are not finite in {shown}: the training has diverged; use a smaller learning rate",
        )
    data = serialise(converted)
    make_folder(folder)
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(data)
    full = {kind: name, **card, "weights_sha256": hashlib.sha256(data).hexdigest()}
    with atomic_write(folder / CARD) as file:
        file.write(json.dumps(full, indent=1, ensure_ascii=False) + "\n")


def load(folder: Path, kind: str, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the weights, in single precision, and the card.

    Raises
    ------
    InputError
        If a file is missing, truncated or corrupted, if the two do not belong together, or if they belong to another
        model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    for missing in (file for file in (CARD, WEIGHTS) if not (folder / file).exists()):
        raise InputError("weights", folder, f"a folder with {WEIGHTS} and {CARD}; {missing} is missing")
    try:
        card = read_json(folder / CARD, LARGEST_CARD)
        data = read_bytes(folder / WEIGHTS, LARGEST_WEIGHTS)
    except UnreadableError as error:
        raise InputError("weights", folder, reason=f"{error.file.name} cannot be read: {error.reason}") from error
    if not isinstance(card, dict) or card.get(kind) != name:
        found = card.get(kind) if isinstance(card, dict) else None
        raise InputError("weights", folder, f"a folder of weights of the {kind} {name!r}, not of {found!r}")
    if card.get("weights_sha256") != hashlib.sha256(data).hexdigest():
        raise InputError(
            "weights",
            folder / WEIGHTS,
            reason=f"the file is damaged, or {CARD} belongs to another: its hash differs; copy both files again",
        )
    try:
        tensors = parse(data)
    except SafetensorError as error:
        raise InputError("weights", folder / WEIGHTS, f"a safetensors file ({error})") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, card


@contextmanager
def reading_card(folder: Path, kind: str) -> Iterator[None]:
    """Turn errors about the content of a card, while a model is made from it, into one that names the card.

    Errors of this module, about the weights, name their file themselves and stay as they are.

    Parameters
    ----------
    folder
        Folder of the card.
    kind
        Kind of the model, ``"generator"`` or ``"predictor"``.

    Raises
    ------
    InputError
        If an entry is missing or cannot be used.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
        if isinstance(error, InputError) and error.key == "weights":
            raise
        missing = f"the entry {error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else error
        reason = f"the card must be one of this {kind}: {missing}"
        raise InputError("weights", folder / CARD, reason=reason) from error


def check_sizes(sizes: Any, depth: str, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that the sizes of a network are plain numbers which the weights do not make impossible.

    A network of these sizes can then be described in a short time; :func:`check_parameters` compares its number of
    parameters with the weights, before memory is taken for it.

    Parameters
    ----------
    sizes
        Sizes in the card: numbers by name, of which the whole ones are sizes.
    depth
        Name of the number of layers.
    tensors
        Weights.
    folder
        Folder of the weights, for error messages.

    Raises
    ------
    InputError
        If a size is not a positive number, there are more layers than arrays, or a size is above the number of weights.
    """
    if not isinstance(sizes, dict) or not all(isinstance(n, int | float) for n in sizes.values()):
        raise InputError(
            "weights", folder / CARD, reason=f"the sizes of a network must be numbers by name, not {sizes!r:.200}"
        )
    numbers = {key: n for key, n in sizes.items() if isinstance(n, int)}
    there = _count(tensors)
    largest = max((n for key, n in numbers.items() if key != depth), default=1)
    if min(numbers.values(), default=1) < 1 or numbers.get(depth, 1) > len(tensors) or largest > there:
        raise InputError(
            "weights",
            folder,
            reason=f"the weights are incomplete: {there} numbers fill no network of the sizes {numbers}",
        )


def parameters_of(make: Callable[[], torch.nn.Module]) -> int:
    """Return the number of parameters of a network, which is made without memory for them."""
    import torch

    with torch.device("meta"):
        return _count(make().state_dict())


def check_parameters(needed: int, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that there are as many weights as a model needs.

    Raises
    ------
    InputError
        If there are fewer.
    """
    there = _count(tensors)
    if needed > there:
        reason = f"the weights are incomplete: there are {there} numbers, and a model of these sizes needs {needed}"
        raise InputError("weights", folder, reason=reason)


def _count(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def fill(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Load weights into a model.

    Raises
    ------
    InputError
        If names or shapes differ from the model's.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise InputError(
            "weights", folder, reason=f"the weights are of another version of the model: {error}"
        ) from error
