"""Table and plot of the rounds of an inverse design."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.analysis.plots import save_figure
from hybridcsp.workflows.design_lessons import value_of
from hybridcsp.workflows.design_rounds import RoundAccount


def rows_of(accounts: Sequence[RoundAccount]) -> list[dict[str, Any]]:
    """Return one row with the same keys for each round, for a table."""
    names = list(dict.fromkeys(name for account in accounts for name in account.mean))
    checked = list(dict.fromkeys(name for account in accounts for name in account.checked))
    return [
        {
            "round": one.number,
            "drawn": one.drawn,
            "valid": one.valid,
            "unique": one.unique,
            "within": one.within,
            "share": round(one.share, 4),
            "new": one.new,
            **{f"mean_{name}": one.mean.get(name) for name in names},
            **{f"best_{name}": one.best.get(name) for name in names},
            **{f"checked_{name}": one.checked.get(name, {}).get("within") for name in checked},
            "force_calls": one.force_calls,
            "seconds": round(sum(one.seconds.values()), 1),
        }
        for one in accounts
    ]


def plot_design(
    accounts: Sequence[RoundAccount],
    crystals: Sequence[Atoms],
    targets: Mapping[str, tuple[float, float]],
    output: Path,
) -> None:
    """Plot the share of crystals within the targets, and the values of each property, by round.

    Parameters
    ----------
    accounts
        Accounts of the rounds.
    crystals
        Evaluated crystals of all rounds.
    targets
        Lowest and highest wanted value of each property.
    output
        PNG, PDF or SVG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.5 * (1 + len(targets)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    share, *panels = figure.subplots(1, 1 + len(targets))
    numbers = [account.number for account in accounts]
    share.plot(numbers, [100 * account.share for account in accounts], "o-", label="within the targets")
    for name in dict.fromkeys(name for account in accounts for name in account.checked):
        agreed = [100 * account.checked.get(name, {}).get("all", float("nan")) for account in accounts]
        share.plot(numbers, agreed, "s--", label=f"{name} by the other predictor")
    share.set_ylabel("part of the different crystals (%)")
    share.set_ylim(0, max(1.0, share.get_ylim()[1]))
    share.legend()
    for axes, (name, (low, high)) in zip(panels, targets.items(), strict=True):
        for number in numbers:
            values = [value_of(atoms, name) for atoms in crystals if atoms.info.get("round") == number]
            spread = [number + 0.3 * ((i * 0.618) % 1 - 0.5) for i in range(len(values))]
            axes.plot(spread, values, ".", alpha=0.5, markersize=4, color="C0")
        for end in filter(math.isfinite, (low, high)):  # so that the target is in sight
            axes.axhline(end, color="C2", alpha=0.5, linewidth=1)
        bottom, top = axes.get_ylim()
        axes.axhspan(max(low, bottom), min(high, top), color="C2", alpha=0.2, label="target")
        axes.set_ylim(bottom, top)
        axes.set_ylabel(name)
        axes.legend()
    for axes in (share, *panels):
        axes.set_xlabel("round")
        axes.set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    save_figure(figure, output)
