"""Reliability of probabilities: their calibration, and how well they tell made crystals from others.

All shares are weighted so that made and other crystals are equally frequent. A probability of 0.8 then means that four
of five crystals with it have been made, if there are as many made as other crystals altogether. Some of the others can
be made too, or have been, so that it is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hybridcsp.predictors.synthesizability.bags import equal_weights

Array = NDArray[np.float64]
Marks = NDArray[np.bool_]

#: Shares of the other crystals that are called positive, for which the recall is reported.
SHARES = (0.05, 0.1, 0.2, 0.5)

#: Number of intervals of the probability in a reliability plot.
BINS = 10

# Probabilities nearer to 0 or 1 have the logit of this distance.
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class LogisticScale:
    """Represent the map from the mean probability of the bags to a calibrated one: a line on the scale of logits.

    Attributes
    ----------
    slope, offset
        Coefficients of the line; 1 and 0 leave probabilities as they are.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.slope, self.offset)
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers) or self.slope <= 0:
            raise ValueError("slope and offset of a calibration must be finite numbers, and the slope positive")

    @classmethod
    def fitted(cls, probabilities: Array, made: Marks) -> Self:
        """Fit to held-out crystals by maximum likelihood (Platt's scaling), made and other ones weighing the same."""
        from scipy.optimize import minimize
        from scipy.special import expit, xlogy

        logits, weights = logit(probabilities), equal_weights(made)

        def cost(x: Array) -> float:
            p = np.clip(expit(math.exp(x[0]) * logits + x[1]), _SMALLEST, 1 - _SMALLEST)
            likelihood = float(np.mean(weights * (xlogy(made, p) + xlogy(~made, 1 - p))))
            return -likelihood + 1e-4 * float(x @ x)  # keeps the slope finite where the crystals can be separated

        found = minimize(cost, np.zeros(2), method="Nelder-Mead", bounds=[(-5.0, 3.0), (-20.0, 20.0)])
        return cls(slope=float(math.exp(found.x[0])), offset=float(found.x[1]))

    def apply(self, probabilities: Array) -> Array:
        """Return calibrated probabilities."""
        from scipy.special import expit

        return np.asarray(expit(self.slope * logit(probabilities) + self.offset))

    def record(self) -> dict[str, Any]:
        """Return the calibration in a form that can be written as JSON."""
        return asdict(self)


def unscaled(probabilities: Array, made: Marks) -> LogisticScale:
    """Return the calibration that leaves probabilities as they are."""
    return LogisticScale()


def crossed(probabilities: Array, made: Marks, folds: NDArray[np.int_], fit: Any) -> Array:
    """Return probabilities of which each half is calibrated with the other one.

    Parameters
    ----------
    probabilities
        Mean probabilities of the bags, shape ``(n,)``.
    made
        Which crystals have been made, shape ``(n,)``.
    folds
        Half to which each crystal belongs, 0 or 1.
    fit
        Function that returns the calibration for probabilities and marks.
    """
    calibrated = probabilities.copy()
    for fold in (0, 1):
        here = folds == fold
        if made[~here].any() and not made[~here].all():
            calibrated[here] = fit(probabilities[~here], made[~here]).apply(probabilities[here])
    return calibrated


def reliability(probabilities: Array, made: Marks) -> list[dict[str, float]]:
    """Return the mean probability and the weighted share of made crystals in each interval that holds any crystal."""
    weights = equal_weights(made)
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        here = bins == number
        if here.any():
            rows.append(
                {
                    "crystals": int(here.sum()),
                    "probability": float(np.average(probabilities[here], weights=weights[here])),
                    "made": float(np.average(made[here], weights=weights[here])),
                }
            )
    return rows


def scores(probabilities: Array, made: Marks) -> dict[str, Any]:
    """Return how well probabilities tell made crystals from others.

    Returns
    -------
    dict
        ``area``, the probability that a made crystal has a higher one than another; ``recall``, the share of made
        crystals with a probability above those of all but a share (the key) of the others; ``recall_at_half``, that of
        made crystals with a probability of 0.5 at least; ``calibration_error``, the mean difference between probability
        and share of made crystals over the intervals; and ``brier``, the mean squared error.
    """
    weights = equal_weights(made)
    rows = reliability(probabilities, made)
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    shares = [float(weights[bins == number].sum() / weights.sum()) for number in range(BINS) if (bins == number).any()]
    return {
        "area": area(probabilities, made),
        "recall": {f"{share:g}": recall(probabilities, made, share) for share in SHARES},
        "recall_at_half": float(np.mean(probabilities[made] >= 0.5)),
        "calibration_error": sum(
            share * abs(row["probability"] - row["made"]) for share, row in zip(shares, rows, strict=True)
        ),
        "brier": float(np.average((probabilities - made) ** 2, weights=weights)),
    }


def area(values: Array, made: Marks) -> float:
    """Return the probability that a made crystal has a higher value than another; equal values count one half."""
    from scipy.stats import rankdata

    positive = int(made.sum())
    ranks = float(rankdata(values)[made].sum())
    return (ranks - positive * (positive + 1) / 2) / (positive * (len(made) - positive))


def recall(values: Array, made: Marks, share: float) -> float:
    """Return the share of made crystals among the highest values if a share of the others is among them.

    Of crystals with the value at the limit, the same fraction of both kinds is counted, so that the result does not
    depend on their order.
    """
    limit = float(np.quantile(values[~made], 1 - share, method="higher"))
    others, own = values[~made], values[made]
    above_others, at_others = float(np.mean(others > limit)), float(np.mean(others == limit))
    fraction = min(1.0, max(0.0, (share - above_others) / at_others)) if at_others else 0.0
    return float(np.mean(own > limit) + fraction * np.mean(own == limit))


def logit(probabilities: Array) -> Array:
    """Return the logarithm of the odds."""
    inside = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(inside / (1 - inside)))
