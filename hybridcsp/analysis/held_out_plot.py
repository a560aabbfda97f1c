"""Plots of a predictor's held-out crystals: how good its predictions are, and whether it knows how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridcsp.analysis.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridcsp.predictors.ensemble import HeldOut


def plot_held_out(held_out: HeldOut, output: Path, card: Mapping[str, Any]) -> None:
    """Plot the predictions of held-out crystals.

    For a property, predictions are plotted against true values, and the share of values within intervals against their
    probability; for the probability that a crystal has been made, the share of made crystals that is called positive
    against that of the others, and the share of made crystals against the probability.

    Parameters
    ----------
    held_out
        Values and predictions of the held-out crystals.
    output
        PNG, PDF or SVG file.
    card
        Card of the predictor.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    if "reliability" in card["held_out"]:
        _draw_reliability(left, right, held_out, card)
    else:
        _draw_values(left, right, held_out, card)
    save_figure(figure, output)


def _draw_values(left: Axes, right: Axes, held_out: HeldOut, card: Mapping[str, Any]) -> None:
    """Draw predicted against true values, and the calibration of the intervals."""
    from scipy.stats import norm

    logarithmic = "of_logarithm" in card["held_out"]
    unit = f" ({card['unit']})" if card["unit"] else ""
    name = f"ln {card['property']}{unit}" if logarithmic else f"{card['property']}{unit}"
    left.plot(held_out.values, held_out.means, ".", alpha=0.5)
    ends = [min(held_out.values.min(), held_out.means.min()), max(held_out.values.max(), held_out.means.max())]
    left.plot(ends, ends, color="black", linewidth=0.8)
    left.set_xlabel(f"true {name}")
    left.set_ylabel(f"predicted {name}")
    left.set_title(f"{len(held_out.values)} held-out crystals")
    right.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    if held_out.spreads.any():
        levels = np.linspace(0.02, 0.98, 49)
        ratios = np.abs(held_out.values - held_out.means) / np.maximum(held_out.spreads, 1e-12)
        shares = [float(np.mean(ratios <= norm.ppf(0.5 + level / 2))) for level in levels]
        right.plot(levels, shares, label="spread of the ensemble")
    covered = card["held_out"]["coverage"]
    right.plot([float(level) for level in covered], list(covered.values()), "o", label="after calibration")
    right.set_xlabel("probability of the interval")
    right.set_ylabel("share of held-out values within")
    right.legend()


def _draw_reliability(left: Axes, right: Axes, held_out: HeldOut, card: Mapping[str, Any]) -> None:
    """Draw the recall of made crystals, and the reliability of the probability."""
    made = held_out.values > 0.5
    limits = np.sort(held_out.means)
    shares = [1 - np.searchsorted(np.sort(held_out.means[kind]), limits) / kind.sum() for kind in (~made, made)]
    left.plot([*shares[0], 0.0], [*shares[1], 0.0], drawstyle="steps-post")
    left.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    left.set_xlabel("share of the other crystals called positive")
    left.set_ylabel("share of the made crystals called positive")
    left.set_title(f"{made.sum()} made and {(~made).sum()} other held-out crystals")
    found = card["held_out"]
    for rows, label in (
        (found["before_calibration"]["reliability"], "mean of the bags"),
        (found["reliability"], "after calibration"),
    ):
        right.plot([row["probability"] for row in rows], [row["made"] for row in rows], "o-", label=label)
    right.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    right.set_xlabel("predicted probability")
    right.set_ylabel("share of made crystals, both kinds weighing the same")
    right.legend()
