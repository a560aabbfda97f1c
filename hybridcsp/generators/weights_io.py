"""Weights and card of a trained generator in two files that belong together, safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.generators.base import Condition
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.reading import read_bytes, read_json

if TYPE_CHECKING:
    import torch

    from hybridcsp.generators.base import Example

WEIGHTS = "weights.safetensors"
CARD = "card.json"

#: Largest sizes in bytes of files that are read.
LARGEST_CARD = 8 << 20
LARGEST_WEIGHTS = 256 << 20


def shipped(name: str) -> Path:
    """Return the folder of the weights of this package for a generator."""
    return Path(str(files("hybridcsp").joinpath("generators", "weights", name)))


def save(folder: Path, name: str, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Write the weights, in half precision, and the card with their hash.

    Parameters
    ----------
    folder
        Folder, which is made if it does not exist.
    name
        Registered name of the generator.
    tensors
        Weights by name, as in ``state_dict``.
    card
        JSON-serialisable description.

    Raises
    ------
    InputError
        If a weight is not finite in half precision.
    """
    import torch
    from safetensors.torch import save as serialise

    halved = {
        key: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in tensors.items()
    }
    broken = [key for key, value in halved.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(
            "weights",
            broken[0],
            reason="they are not finite in half precision: the training has diverged; use a smaller learning rate",
        )
    data = serialise(halved)
    make_folder(folder)
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(data)
    full = {"generator": name, **card, "weights_sha256": hashlib.sha256(data).hexdigest()}
    with atomic_write(folder / CARD) as file:
        file.write(json.dumps(full, indent=1, ensure_ascii=False) + "\n")


def load(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the weights, in single precision, and the card.

    Raises
    ------
    InputError
        If a file is missing, truncated or corrupted, if the two do not belong together, or if they belong to another
        generator.
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
    if not isinstance(card, dict) or card.get("generator") != name:
        found = card.get("generator") if isinstance(card, dict) else None
        raise InputError("weights", folder, f"a folder of weights of the generator {name!r}, not of {found!r}")
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


def check_sizes(sizes: Any, depth: str, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that the weights can fill a network of the given sizes, before such a network is made.

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
        If a size is not a positive number, or the network would have more parameters than there are weights.
    """
    if not isinstance(sizes, dict) or not all(isinstance(n, int | float) for n in sizes.values()):
        raise InputError(
            "weights", folder / CARD, reason=f"the sizes of a network must be numbers by name, not {sizes!r:.200}"
        )
    numbers = {key: n for key, n in sizes.items() if isinstance(n, int)}
    width = max((n for key, n in numbers.items() if key != depth), default=1)
    there = sum(tensor.numel() for tensor in tensors.values())
    if min(numbers.values(), default=1) < 1 or numbers.get(depth, 1) * width**2 > there:
        raise InputError(
            "weights",
            folder,
            reason=f"the weights are incomplete: {there} numbers fill no network of the sizes {numbers}",
        )


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


def describe_training(examples: Sequence[Example], before: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the part of a card that all generators share: counts, pressures and formulas of the training set.

    Parameters
    ----------
    examples
        Training set, whose crystals and formulas are counted.
    before
        Card before this training, whose pressures and formulas are included.
    **more
        Further entries.
    """
    from hybridcsp.generators.datasets import formula_of

    pressures = {p for example in examples if (p := example.pressure_gpa) is not None and p > 0}
    pressures |= set(before.get("pressures_gpa", ()))
    formulas = sorted({formula_of(example.atoms) for example in examples})
    learned = {*formulas, *str(before.get("training_formulas", "")).split()}
    return {
        "crystals": len(examples),
        "largest": max(len(example.atoms) for example in examples),
        "formulas": len(formulas),
        **({"pressures_gpa": [min(pressures), max(pressures)]} if pressures else {}),
        **more,
        "training_formulas": " ".join(sorted(learned)),
    }


def conditions_of(card: Mapping[str, Any]) -> frozenset[Condition]:
    """Return the conditions of a model of this package: pressure only if its training sets had pressures above 0."""
    always = {Condition.SPACEGROUP, Condition.ENERGY}
    return frozenset(always | {Condition.PRESSURE} if card.get("pressures_gpa") else always)


def overlap(card: Mapping[str, Any], formulas: Iterable[str]) -> frozenset[str]:
    """Return the reduced formulas (Hill's order) that a model was trained on; a fair benchmark contains none."""
    return frozenset(formulas) & frozenset(str(card.get("training_formulas", "")).split())
