"""Predicted properties as objectives of a search."""

from __future__ import annotations

from typing import ClassVar

from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.objectives.base import Objective


class PredictedProperty(Objective):
    """Property that a trained predictor predicts for a relaxed structure.

    Parameters
    ----------
    argument
        Folder of weights from ``hybridcsp train``.
    extrapolate
        Whether crystals are allowed that are outside of what the predictor has learned from, such as those with
        elements that do not occur in its training set; by default such a crystal has no value.
    """

    argument_is_path: ClassVar[bool] = True
    of_starts: ClassVar[bool] = True

    def __init__(self, argument: str | None = None, *, extrapolate: bool = False) -> None:
        from hybridcsp.predictors.loading import open_predictor

        if not argument:
            reason = "it needs the folder of a trained predictor: predictor:FOLDER"
            raise InputError("objective", "predictor", reason=reason)
        if not isinstance(extrapolate, bool):
            raise InputError("objectives.options.extrapolate", extrapolate, "a truth value, true or false")
        self._predictor = open_predictor(argument)
        self._extrapolate = extrapolate
        self.unit = self._predictor.unit
        self.digest = str(self._predictor.card.get("weights_sha256", ""))

    def value(self, atoms: Atoms) -> float:
        """Return the expected value of the property."""
        prediction = self._predictor.predict([atoms])
        if prediction.unseen[0] and not self._extrapolate:
            unseen = ", ".join(prediction.unseen[0])
            raise ValueError(f"the predictor was trained without {unseen}; the option extrapolate allows this")
        if prediction.outside[0] and not self._extrapolate:
            reason = f"the predictor has not learned from such crystals: {prediction.outside[0]}"
            raise ValueError(f"{reason}; the option extrapolate allows this")
        return float(prediction.mean[0])
