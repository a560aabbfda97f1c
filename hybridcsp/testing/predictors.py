"""Conformance suite of predictors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hybridcsp.core.records import is_word
from hybridcsp.errors import InputError
from hybridcsp.predictors.base import Prediction, Predictor
from hybridcsp.predictors.labelled import Labelled
from hybridcsp.testing.requirements import conformance_suite, require, unchanged
from hybridcsp.training.epoch import Epoch

_METALS, _ANIONS = ("Li", "Na", "K", "Rb"), ("F", "Cl", "Br", "O", "S")

# Changes of the cell vectors that keep the crystal, and one that doubles the cell.
_SHEAR = ((1, 1, 0), (0, 1, 0), (0, -1, 1))
_DOUBLING = ((1, 1, 0), (-1, 1, 0), (0, 0, 1))


class _Interruption(Exception):
    """The end of a training from outside."""


@conformance_suite
def check_predictor(
    make: Callable[[], Predictor],
    folder: Path,
    *,
    data: Labelled | None = None,
    fit_settings: Mapping[str, Any] | None = None,
    tolerance: float = 0.01,
) -> None:
    """Check that a predictor predicts properties of crystals and not of their descriptions, and repeats itself.

    It is trained a few times on few crystals. Predictions must not change if a crystal is rotated or moved, if its
    atoms are in another order, its cell has other vectors or is a supercell, or if other crystals are predicted with
    it. Trainings with the same seed must be equal, and so must one that is interrupted and continued, and a predictor
    that is saved and loaded. Crystals and data that cannot be used must be refused with an
    :class:`~hybridcsp.errors.InputError`.

    Parameters
    ----------
    make
        Function that returns a new untrained predictor, preferably a small one.
    folder
        Existing empty folder for weights and checkpoints.
    data
        Crystals to learn from; by default 40 halides, oxides and sulphides of two atoms with a property that depends on
        their volumes and elements.
    fit_settings
        Settings for :meth:`~hybridcsp.predictors.base.Predictor.fit`; by default two networks and two epochs.
    tolerance
        Largest difference between predictions for descriptions of one crystal, in units of the standard deviation of
        the predictions for different crystals.

    Raises
    ------
    AssertionError
        If the predictor breaks a rule; the message names it.
    """
    predictor = make()
    require(isinstance(predictor, Predictor), f"{type(predictor).__name__} must inherit predictors.base.Predictor.")
    name = predictor.name
    require(is_word(name), f"The name {name!r} of the predictor must be a word that begins with a letter.")
    data = _halides() if data is None else data
    settings = {"members": 2, "epochs": 2} if fit_settings is None else dict(fit_settings)
    crystals = [_distorted(number) for number in range(6)]
    _require_refused(lambda: predictor.predict(crystals), f"an untrained predictor {name} predicts")

    predictor.fit(data, seed=1, **settings)
    with unchanged(crystals, f"The predictor {name} changed a crystal; it must work on a copy."):
        first = _prediction(predictor, crystals)
    require(predictor.quantity, f"The card of the predictor {name} must name the property that it predicts.")
    json.dumps(dict(predictor.card), allow_nan=False)
    _require_equal(first, _prediction(predictor, crystals), f"Two predictions of the predictor {name} differ.")
    _check_crystals(predictor, crystals, first, tolerance)
    _check_trainings(make, data, settings, crystals, first, folder)

    predictor.save(folder / "saved")
    loaded = _prediction(type(predictor).load(folder / "saved"), crystals)
    _require_equal(first, loaded, f"The predictor {name} predicts differently after save and load.")


def _check_crystals(predictor: Predictor, crystals: list[Atoms], first: Prediction, tolerance: float) -> None:
    """Check invariances, unseen elements and structures that are no crystals."""
    name = predictor.name
    allowed = tolerance * max(float(np.std(first.mean)), 1e-6 * float(np.abs(first.mean).max()))
    alone = np.concatenate([_prediction(predictor, [crystal]).mean for crystal in crystals])
    _require_close(alone, first.mean, allowed, f"{name} for a crystal depend on what is predicted with it")
    backwards = _prediction(predictor, crystals[::-1]).mean[::-1]
    _require_close(backwards, first.mean, allowed, f"{name} depend on the order of the crystals")
    for words, change in _DESCRIPTIONS.items():
        changed = [change(crystal, number) for number, crystal in enumerate(crystals)]
        _require_close(_prediction(predictor, changed).mean, first.mean, allowed, f"{name} change {words}")
    require(len(_prediction(predictor, []).mean) == 0, f"The predictor {name} predicts without a crystal.")

    strange = crystals[0].copy()
    strange.numbers[0] = 118
    found = _prediction(predictor, [strange, crystals[1]])
    require(
        found.unseen[0] == ("Og",) and found.outside[0],
        f"The predictor {name} must name oganesson, which it has not learned, in unseen, and a reason in outside.",
    )
    for words, break_it in _BROKEN.items():
        broken = crystals[0].copy()
        break_it(broken)
        _require_refused(partial(predictor.predict, [broken]), f"the predictor {name} predicts {words}")


def _check_trainings(
    make: Callable[[], Predictor],
    data: Labelled,
    settings: Mapping[str, Any],
    crystals: list[Atoms],
    first: Prediction,
    folder: Path,
) -> None:
    """Check that trainings repeat, can be continued, and are refused for data that cannot be learned."""
    again = make()
    name = again.name

    def interrupt(epoch: Epoch) -> None:
        raise _Interruption

    try:
        again.fit(data, seed=1, checkpoint=folder / "checkpoint", on_epoch=interrupt, **settings)
    except _Interruption:
        again = make()
        again.fit(data, seed=1, checkpoint=folder / "checkpoint", **settings)
        message = f"A training of the predictor {name} that is continued from its checkpoint differs from another one."
    else:
        message = f"Two trainings of the predictor {name} with the same seed differ."
    _require_equal(first, _prediction(again, crystals), message)
    few = data.part(range(2))
    _require_refused(lambda: make().fit(few, **settings), f"the predictor {name} learns from two crystals")
    equal = Labelled(crystals=data.crystals, values=np.ones(len(data.crystals)), name=data.name)
    _require_refused(lambda: make().fit(equal, **settings), f"the predictor {name} learns from equal values")


def _prediction(predictor: Predictor, crystals: Sequence[Atoms]) -> Prediction:
    """Return a prediction whose shapes and intervals have been checked."""
    found, name, n = predictor.predict(crystals), predictor.name, len(crystals)
    require(isinstance(found, Prediction), f"The predictor {name} must return a Prediction.")
    for key, shape in {"mean": (n,), "standard_deviation": (n,), "interval_50": (n, 2), "interval_90": (n, 2)}.items():
        values = getattr(found, key)
        require(
            isinstance(values, np.ndarray) and values.shape == shape and np.isfinite(values).all(),
            f"{key} in the prediction of {name} for {n} crystals must be an array of finite numbers of shape {shape}.",
        )
    require((found.standard_deviation >= 0).all(), f"The predictor {name} gives a negative standard deviation.")
    ends = [found.interval_90[:, 0], found.interval_50[:, 0], found.interval_50[:, 1], found.interval_90[:, 1]]
    require(
        all((lower <= upper).all() for lower, upper in pairwise(ends)),
        f"The interval of 50 % in a prediction of {name} must be within that of 90 %, each from low to high.",
    )
    require(
        len(found.unseen) == len(found.outside) == n,
        f"unseen and outside in the prediction of {name} must have one entry for each crystal.",
    )
    return found


def _require_equal(first: Prediction, second: Prediction, message: str) -> None:
    for key in ("mean", "standard_deviation", "interval_50", "interval_90"):
        require(np.array_equal(getattr(first, key), getattr(second, key)), message)
    require(first.unseen == second.unseen and first.outside == second.outside, message)


def _require_close(first: NDArray[np.float64], second: NDArray[np.float64], allowed: float, what: str) -> None:
    largest = float(np.abs(first - second).max())
    require(
        largest <= allowed,
        f"Predictions of {what}: they differ by up to {largest:.3g}, and {allowed:.3g} is the limit.",
    )


def _require_refused(action: Callable[[], object], what: str) -> None:
    try:
        action()
    except InputError:
        return
    raise AssertionError(f"It must be refused with an InputError that {what}.")


def _halides() -> Labelled:
    """Return 40 crystals of two atoms with a property."""
    rng = np.random.default_rng(0)
    crystals = []
    for number in range(40):
        formula = _METALS[number % 4] + _ANIONS[number // 4 % 5]
        crystals.append(bulk(formula, ("rocksalt", "zincblende")[number % 2], a=float(rng.uniform(4.5, 6.5))))
    values = np.array([20 * np.exp(-one.get_volume() / 40) + 0.05 * one.numbers.sum() for one in crystals])
    return Labelled(crystals=tuple(crystals), values=values, name="hardness_gpa", unit="GPa")


def _distorted(seed: int) -> Atoms:
    """Return a triclinic crystal of four atoms without any symmetry, of elements that the halides have."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 6, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + rng.uniform(-0.1, 0.1, (4, 3))
    return Atoms(f"NaCl2{_METALS[seed % 4]}", cell=cell, scaled_positions=sites, pbc=True)


def _rotated(atoms: Atoms, number: int) -> Atoms:
    turn = Rotation.random(random_state=number).as_matrix()
    return Atoms(atoms.numbers, positions=atoms.positions @ turn.T, cell=atoms.cell.array @ turn.T, pbc=True)


def _moved(atoms: Atoms, number: int) -> Atoms:
    moved = atoms.copy()
    moved.translate(np.random.default_rng(number).uniform(-5, 5, 3))
    moved.wrap()
    return moved


def _permuted(atoms: Atoms, number: int) -> Atoms:
    return atoms[np.random.default_rng(number).permutation(len(atoms))]


def _images(atoms: Atoms, number: int) -> Atoms:
    other = atoms.copy()
    other.positions += np.random.default_rng(number).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    return other


def _sheared(atoms: Atoms, number: int) -> Atoms:
    other = atoms.copy()
    other.set_cell(np.array(_SHEAR) @ atoms.cell.array)
    return other


_DESCRIPTIONS: Mapping[str, Callable[[Atoms, int], Atoms]] = {
    "if a crystal is rotated": _rotated,
    "if a crystal is moved": _moved,
    "if the atoms of a crystal are in another order": _permuted,
    "if atoms are replaced by their periodic images": _images,
    "if a crystal has other cell vectors": _sheared,
    "if a crystal is described by a supercell": lambda atoms, number: make_supercell(atoms, _DOUBLING),
}

_BROKEN: Mapping[str, Callable[[Atoms], None]] = {
    "a structure without a cell": lambda atoms: atoms.set_cell([0, 0, 0]),
    "a structure whose positions are not finite": lambda atoms: atoms.positions.__setitem__(0, np.nan),
    "a structure without atoms": lambda atoms: atoms.__delitem__(slice(None)),
}
