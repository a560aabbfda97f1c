"""Plot of a predictor's held-out crystals: predictions against true values, and the calibration of uncertainties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridcsp.analysis.plots import save_figure

if TYPE_CHECKING:
    from hybridcsp.predictors.ensemble import HeldOut


def plot_held_out(held_out: HeldOut, output: Path, card: Mapping[str, Any]) -> None:
    """Plot predictions against true values, and the share of values within intervals against their probability.

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
    from scipy.stats import norm

    logarithmic = "of_logarithm" in card["held_out"]
    unit = f" ({card['unit']})" if card["unit"] else ""
    name = f"ln {card['property']}{unit}" if logarithmic else f"{card['property']}{unit}"
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
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
    save_figure(figure, output)
