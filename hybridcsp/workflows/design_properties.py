"""Properties of crystals in an inverse design: predicted, or calculated from the structure and its energy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.objectives.registry import OBJECTIVES, build_objective, class_of
from hybridcsp.predictors.base import Predictor

#: Function that returns a property of crystals, NaN where it is not known, shape ``(n,)``.
Property = Callable[[Sequence[Atoms]], NDArray[np.float64]]

#: Properties that the relaxation with a calculator gives.
OF_RELAXATION = ("energy_per_atom", "enthalpy_per_atom")


def properties_of_targets(
    targets: Mapping[str, tuple[float, float]], predictors: Sequence[Predictor], *, relaxed: bool
) -> dict[str, Property]:
    """Return a function for the property of each target.

    Parameters
    ----------
    targets
        Lowest and highest wanted values by name.
    predictors
        Predictors, at most one for each property.
    relaxed
        Whether crystals are relaxed with a calculator first.

    Raises
    ------
    InputError
        If a property has no predictor and cannot be calculated, or a predictor has no target.
    """
    by_name = predictors_by_name(predictors, targets, "--predictor")
    found: dict[str, Property] = {}
    for name in targets:
        if name in by_name:
            found[name] = predicted(by_name[name])
        elif name in OF_RELAXATION and relaxed:
            found[name] = _from_info(name)
        elif name in OBJECTIVES and not class_of(name).uses_forces:
            found[name] = _objective(name)
        else:
            more = (
                f" or give a calculator (--calculator), whose relaxations give {name}" if name in OF_RELAXATION else ""
            )
            reason = f"it has no predictor; give the folder of one (--predictor FOLDER){more}"
            raise InputError("--target", name, reason=reason)
    return found


def predictors_by_name(
    predictors: Sequence[Predictor], targets: Mapping[str, Any], option: str
) -> dict[str, Predictor]:
    """Return predictors by the name of their property.

    Raises
    ------
    InputError
        If two predict the same property, or one has no target.
    """
    by_name: dict[str, Predictor] = {}
    for predictor in predictors:
        name = predictor.quantity
        if name not in targets:
            reason = f"its folder predicts {name}, which has no target; set one (--target {name}=LOW..HIGH) or omit it"
            raise InputError(option, name, reason=reason)
        if name in by_name:
            raise InputError(option, name, reason="another predictor is there for this property; leave one out")
        by_name[name] = predictor
    return by_name


def predicted(predictor: Predictor) -> Property:
    """Return a function that predicts; crystals outside of what the predictor has learned from have no value."""

    def values(crystals: Sequence[Atoms]) -> NDArray[np.float64]:
        if not crystals:
            return np.zeros(0)
        prediction = predictor.predict(crystals)
        unknown = np.array([bool(reason) for reason in prediction.outside])
        return np.where(unknown, math.nan, prediction.mean)

    return values


def _from_info(name: str) -> Property:
    return lambda crystals: np.array([float(atoms.info.get(name, math.nan)) for atoms in crystals])


def _objective(name: str) -> Property:
    objective = build_objective(name)

    def value(atoms: Atoms) -> float:
        try:
            return float(objective.value(atoms))
        except Exception:  # noqa: BLE001  # an objective may raise anything; the crystal then has no value
            return math.nan

    return lambda crystals: np.array([value(atoms) for atoms in crystals])
