"""Loading of predictors by folder of weights, and recognition of their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridcsp.core.registry import Entry
from hybridcsp.errors import InputError, UnreadableError
from hybridcsp.predictors.base import Predictor
from hybridcsp.predictors.registry import PREDICTORS
from hybridcsp.training.weights_io import CARD, LARGEST_CARD
from hybridcsp.utils.paths import expanded
from hybridcsp.utils.reading import read_json

KIND = "predictor"


def open_predictor(text: str | Path) -> Predictor:
    """Load a predictor from its folder of weights.

    Raises
    ------
    InputError
        If there is no such folder, or its weights cannot be used.
    """
    folder = expanded(text)
    if str(text) in PREDICTORS and not folder.is_dir():
        raise InputError(
            KIND,
            str(text),
            reason="predictors have no weights in the package, because each predicts one property; train it "
            f"(hybridcsp train {text} --data PATH --property NAME --output FOLDER) and give that folder",
        )
    found = predictor_of(folder)
    if not folder.is_dir():
        raise InputError(
            KIND, str(text), reason="there is no such folder; give a folder with the weights of a predictor"
        )
    if found is None:
        raise InputError(KIND, folder, f"a folder with the weights of a predictor, whose {CARD} names it")
    loaded: Predictor = found.load().load(folder)
    return loaded


def predictor_of(folder: Path) -> Entry | None:
    """Return the registry entry that the card of a folder of weights names; ``None`` if it names no predictor.

    Raises
    ------
    UnknownNameError
        If it names a predictor that is not registered.
    """
    if not folder.is_dir():
        return None
    try:
        card: Any = read_json(folder / CARD, LARGEST_CARD)
    except UnreadableError:
        return None
    if not isinstance(card, dict) or not isinstance(card.get(KIND), str):
        return None
    return PREDICTORS[card[KIND]]


def new_predictor(name: str, configuration: str) -> Predictor:
    """Return an untrained predictor.

    Raises
    ------
    UnknownNameError
        If there is no predictor or configuration of this name.
    """
    made: Predictor = PREDICTORS[name].load().configured(configuration)
    return made
