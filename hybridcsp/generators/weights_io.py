"""Weights and card of a trained generator: files, weights of the package, and common parts of cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Condition
from hybridcsp.training import weights_io
from hybridcsp.training.weights_io import (
    CARD,
    LARGEST_CARD,
    WEIGHTS,
    check_parameters,
    check_sizes,
    fill,
    parameters_of,
)

if TYPE_CHECKING:
    import torch

    from hybridcsp.generators.base import Example

__all__ = [
    "CARD",
    "LARGEST_CARD",
    "WEIGHTS",
    "card_before",
    "check_parameters",
    "check_sizes",
    "conditions_of",
    "describe_training",
    "fill",
    "load",
    "not_saved",
    "not_trained",
    "overlap",
    "parameters_of",
    "reading_card",
    "save",
    "shipped",
]

KIND = "generator"


def shipped(name: str) -> Path:
    """Return the folder of the weights of this package for a generator."""
    return Path(str(files("hybridcsp").joinpath("generators", "weights", name)))


def save(folder: Path, name: str, tensors: Mapping[str, torch.Tensor], card: Mapping[str, Any]) -> None:
    """Write the weights of a generator, in half precision, and its card."""
    import torch

    weights_io.save(folder, KIND, name, tensors, card, precision=torch.float16)


def load(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the weights of a generator and its card; see :func:`hybridcsp.training.weights_io.load`."""
    return weights_io.load(folder, KIND, name)


def not_trained(name: str, *, so: str = "call fit() or load weights") -> InputError:
    """Return the error for a generator without weights, and what follows from that."""
    return InputError("generator", name, reason=f"the generator is not trained; {so}")


def not_saved(name: str) -> InputError:
    """Return the error for a generator without weights that is to be saved."""
    return not_trained(name, so="there are no weights to save")


def reading_card(folder: Path) -> AbstractContextManager[None]:
    """Turn errors about the content of a generator's card into one that names the card.

    See :func:`hybridcsp.training.weights_io.reading_card`.
    """
    return weights_io.reading_card(folder, KIND)


def card_before(card: Mapping[str, Any], *without: str) -> dict[str, Any]:
    """Return the entries of a card that the next training keeps as what was before it.

    Parameters
    ----------
    card
        Card before the training.
    *without
        Further entries that are left out; formulas are carried on by :func:`describe_training`.
    """
    dropped = {"training_formulas", "before", *without}
    return {key: value for key, value in card.items() if key not in dropped}


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
    from hybridcsp.training.held_out import formula_of

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
