"""Ensembles that predict the value of a property, with calibrated uncertainties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.predictors.base import Prediction
from hybridcsp.predictors.calibration import LEVELS, Calibration, crossed_coverage, raw_coverage
from hybridcsp.predictors.domain import unseen_elements
from hybridcsp.predictors.ensemble import Ensemble, HeldOut, elements_of, halves, spread_of
from hybridcsp.predictors.graphs import CrystalGraph
from hybridcsp.predictors.labelled import Labelled, check_learnable, split
from hybridcsp.predictors.network import GraphData
from hybridcsp.predictors.scales import Scale
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.held_out import formula_of
from hybridcsp.training.settings import chosen_settings

Array = NDArray[np.float64]


class RegressionEnsemble(Ensemble):
    """Base class of ensembles that predict the value of a property.

    Subclasses implement :meth:`network`, and set :attr:`sizes` and :attr:`defaults`.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the networks, a dataclass.
    scale
        Function that returns the scale for values of a property and their crystals.
    """

    def __init__(self, configuration: str, architecture: Any, scale: Callable[..., Scale]) -> None:
        super().__init__(configuration, architecture)
        self._new_scale = scale
        self._scale: Scale | None = None
        self._calibration: Calibration | None = None

    def fit(
        self,
        data: Labelled,
        *,
        members: int | None = None,
        logarithmic: bool = False,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Train the ensemble; parameters and errors are those of :meth:`hybridcsp.predictors.base.Predictor.fit`.

        A tenth of the formulas is held out. The loss on their crystals decides when the training of a member stops, and
        their errors calibrate the uncertainties, so that these errors are somewhat smaller than those on crystals that
        play no part in the training.

        Raises
        ------
        InputError
            If the data cannot be learned, a setting is unknown or invalid, or a checkpoint belongs to another training.
        """
        chosen = chosen_settings({**self.defaults, **settings})
        check_learnable(data, logarithmic=logarithmic)
        networks = self._new_networks(members, seed, chosen)
        division = split(data.crystals)
        learned, held = division.learned, division.held_out
        training, testing = data.part(learned), data.part(held)
        scale = self._new_scale(training.values, training.crystals, logarithmic=logarithmic)
        neighbourhood = networks[0].neighbourhood
        sets = [GraphData.of(part.crystals, part.values, scale, neighbourhood) for part in (training, testing)]
        histories = self._train(networks, [(sets[0], sets[1])] * len(networks), chosen, seed, checkpoint, on_epoch)
        several = len(networks) > 1
        self._networks, self._scale = networks, scale
        outputs = self._decoded(sets[1].graphs, testing.crystals)
        self.held_out = HeldOut(values=scale.forward(testing.values), means=outputs.mean(0), spreads=spread_of(outputs))
        errors = self.held_out.values - self.held_out.means
        self._calibration = Calibration.fitted(errors, self.held_out.spreads)
        self.card = {
            "configuration": self.configuration,
            "property": data.name,
            "unit": data.unit,
            "members": len(networks),
            "crystals": len(learned),
            "formulas": len({formula_of(crystal) for crystal in training.crystals}),
            "elements": elements_of(training.crystals),
            "range": [float(training.values.min()), float(training.values.max())],
            "held_out": {
                **division.record,
                "crystals": len(held),
                **_scores(testing.values, scale.back(self.held_out.means), float(training.values.mean())),
                **({"of_logarithm": _scores(self.held_out.values, self.held_out.means)} if logarithmic else {}),
                "coverage_before_calibration": raw_coverage(errors, self.held_out.spreads) if several else None,
                "coverage": crossed_coverage(errors, self.held_out.spreads, halves(testing.crystals)),
            },
            "seed": seed,
            "settings": asdict(chosen),
            "history": histories if several else histories[0],
            "training_formulas": " ".join(sorted({formula_of(crystal) for crystal in training.crystals})),
        }

    def predict(self, crystals: Sequence[Atoms]) -> Prediction:
        """Predict the property of crystals.

        Raises
        ------
        InputError
            If the predictor is not trained, or a structure is not a crystal.
        """
        outputs = self._decoded(self.graphs(crystals), crystals)
        assert self._scale is not None
        assert self._calibration is not None
        scale, calibration = self._scale, self._calibration
        means, spreads = outputs.mean(0), spread_of(outputs)
        centre, deviation = scale.back(means), calibration.standard_deviation(spreads)
        intervals = []
        for level in LEVELS:
            half = calibration.half_width(level, spreads)
            intervals.append(np.stack([scale.back(means - half), scale.back(means + half)], axis=-1))
        return Prediction(
            mean=centre,
            standard_deviation=centre * deviation if scale.logarithmic else deviation,
            interval_50=intervals[0],
            interval_90=intervals[1],
            unseen=unseen_elements(crystals, self.card["elements"]),
        )

    def assessment(self) -> str:
        """Return the errors on held-out crystals, and how many values are within the intervals."""
        scores, unit = self.card["held_out"], f" {self.unit}" if self.unit else ""
        shares = ", ".join(f"{float(level):.0%} intervals {share:.0%}" for level, share in scores["coverage"].items())
        return (
            f"{scores['crystals']} held-out crystals: mean absolute error {scores['mae']:.4g}{unit} "
            f"(the mean of the training set: {scores['mae_of_mean']:.4g}{unit}), "
            f"R² {scores.get('r2', float('nan')):.3f}." + (f" Values within the calibrated {shares}." if shares else "")
        )

    def _record(self) -> Mapping[str, Any]:
        assert self._scale is not None
        assert self._calibration is not None
        return {"scale": asdict(self._scale), "calibration": self._calibration.record()}

    def _restore(self, card: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        self._scale = Scale.from_card(card["scale"])
        self._calibration = Calibration(**card["calibration"])

    def _decoded(self, graphs: Sequence[CrystalGraph], crystals: Sequence[Atoms]) -> Array:
        """Return the property, or its logarithm if that is learned, by all members, shape ``(members, n)``."""
        assert self._scale is not None
        return self._scale.decode(self.outputs(graphs), crystals)


def _scores(values: Array, predicted: Array, mean: float | None = None) -> dict[str, float]:
    """Return errors of predictions, and if a mean is given, the mean absolute error of predicting it for all."""
    errors = predicted - values
    variance = float(np.mean((values - values.mean()) ** 2))
    scores = {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
    }
    if variance > 0:
        scores["r2"] = 1 - float(np.mean(errors**2)) / variance
    if mean is not None:
        scores["mae_of_mean"] = float(np.abs(values - mean).mean())
    return scores
