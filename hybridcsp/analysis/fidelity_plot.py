"""Plot of what is lost when crystals are encoded and decoded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridcsp.analysis.plots import save_figure

if TYPE_CHECKING:
    from hybridcsp.generators.fidelity import Reconstruction


def plot_fidelity(results: Mapping[str, Sequence[Reconstruction]], output: Path) -> None:
    """Plot the shares of crystals by result, and the distribution of the displacements of those that are matched.

    Parameters
    ----------
    results
        Results for all crystals, by the name of the representation or model.
    output
        PNG, PDF or SVG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from hybridcsp.generators.fidelity import Result

    colours = dict(zip(Result, ("#1a9850", "#91cf60", "#fc8d59", "#d73027", "#cccccc"), strict=True))
    figure = Figure(figsize=(11, 1.6 + 0.4 * max(4, len(results))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = list(results)[::-1]
    start = np.zeros(len(names))
    for result in Result:
        shares = np.array([np.mean([one.result is result for one in results[name]]) for name in names])
        left.barh(names, shares, left=start, color=colours[result], label=result.value)
        start += shares
    left.set_xlim(0, 1)
    left.set_xlabel("share of the crystals")
    left.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    for name, own in results.items():
        displacements = np.sort([max(one.rms, 1e-6) for one in own if one.is_matched and one.rms is not None])
        if len(displacements):
            share = np.arange(1, len(displacements) + 1) / len(own)
            right.step(displacements, share, where="post", label=name)
    right.set_xscale("log")
    right.set_ylim(0, 1.02)
    right.set_xlabel("root mean square displacement (Å)")
    right.set_ylabel("share of the crystals with at most this")
    if right.lines:
        right.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    save_figure(figure, output, "--plot")
