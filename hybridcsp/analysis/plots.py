"""Plot searches and comparisons of strategies."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridcsp.analysis.follow_ups import calculator_names, disagreement, levels_with_results, result_by
from hybridcsp.analysis.point_labels import label_points
from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.source_activity import improvements
from hybridcsp.analysis.statistics import StrategyStatistics, compare, extended_to_longest
from hybridcsp.analysis.survival import success_costs, success_curve
from hybridcsp.archive.archive import Archive
from hybridcsp.core.minimum import Minimum
from hybridcsp.errors import InputError
from hybridcsp.structure.symmetry import spacegroup_symbol
from hybridcsp.utils.files import atomic_write, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Characters in a line of the caption of a plot.
CAPTION_WIDTH = 150

#: Most minima that are named in a plot of two calculators.
_NAMED = 8

#: Height in meV/atom from which only powers of ten are labelled.
_WIDE = 2000.0

#: File endings of pictures.
PICTURES = (".png", ".pdf", ".svg")


def plot_search(archive: Archive, output: Path, title: str) -> None:
    """Plot enthalpy against relaxation, the minima by volume, and how follow-up calculators see them, to a file.

    Parameters
    ----------
    archive
        Archive of the search.
    output
        File to write: PNG, PDF or SVG by its ending.
    title
        Title of the figure.

    Raises
    ------
    InputError
        If the search has no minimum, or the file cannot be written or has an unknown ending.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    check_picture(output)
    ends = archive.ends()
    minima = archive.minima()
    if not minima:
        raise InputError("directory", archive.directory, reason="this search has found no minimum yet to plot")
    best = minima[0].enthalpy_per_atom

    levels = levels_with_results(archive)
    search, *names = calculator_names(archive)

    figure = Figure(figsize=(10 + 5 * len(levels), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    course, landscape, *panels = figure.subplots(1, 2 + len(levels))
    landscape.sharey(course)
    landscape.tick_params(labelleft=False)
    _scale_heights(course, "y")

    for source in dict.fromkeys(end.source for end in ends):
        own = [end for end in ends if end.source == source]
        heights = [1000 * (end.enthalpy_per_atom - best) for end in own]
        (dots,) = course.plot([end.relaxation for end in own], heights, ".", label=source, alpha=0.7)
        lowered = [one for one in improvements(archive) if one.source == source]
        falls = [1000 * (one.enthalpy_per_atom - best) for one in lowered]
        style = {"color": dots.get_color(), "markeredgecolor": "black", "markersize": 11, "linestyle": "none"}
        course.plot([one.relaxation for one in lowered], falls, marker="*", zorder=3, **style)
    running, lowest = [], float("inf")
    for end in ends:
        if end.converged:
            lowest = min(lowest, end.enthalpy_per_atom)
        running.append(1000 * (lowest - best))
    course.step([end.relaxation for end in ends], running, where="post", color="black", label="best so far")
    above = "enthalpy above the best minimum" + (f" by {search}" if levels else "")
    course.set_xlabel("relaxation")
    course.set_ylabel(f"{above} (meV/atom)", parse_math=False)
    course.xaxis.set_major_locator(MaxNLocator(integer=True))
    course.set_ylim(-1, None)
    course.plot([], [], "*", color="white", markeredgecolor="black", markersize=11, label="lowered the best")
    handles, labels = course.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=6, fontsize="small", frameon=False)

    volumes = [minimum.best.atoms.get_volume() / len(minimum.best.atoms) for minimum in minima]
    heights = [1000 * (minimum.enthalpy_per_atom - best) for minimum in minima]
    sizes = [20 + 12 * (minimum.multiplicity - 1) for minimum in minima]
    landscape.scatter(volumes, heights, s=sizes, alpha=0.6)
    landscape.set(xlabel="volume (Å³/atom)")
    landscape.set_title("minima (area: times found; labels: space groups of the best five)", fontsize="small")
    near = [volume for volume, height in zip(volumes, heights, strict=True) if height <= 500]
    margin = 0.08 * (max(near) - min(near)) + 0.2
    landscape.set_xlim(min(near) - margin, max(near) + margin)
    final, threshold = archive.final_minima() if levels else [], disagreement(archive)
    compared = [_compared_minima(final, level.spec, threshold) for level in levels]
    for axes, points, name in zip(panels, compared, names, strict=True):
        _draw_agreement(axes, points, (search, name), 1000 * threshold)
    figure.draw_without_rendering()  # constrained layout is computed here; labels need final pixels
    labels = [str(minimum.spacegroup) for minimum in minima[:5]]
    label_points(landscape, list(zip(volumes, heights, strict=True))[:5], labels)
    for axes, points in zip(panels, compared, strict=True):
        named = [point for point in points if point.disagrees or point.changed][:_NAMED]
        everywhere = [(point.first, point.second) for point in points]
        label_points(axes, [(one.first, one.second) for one in named], [one.name for one in named], avoid=everywhere)

    save_figure(figure, output)


@dataclass(frozen=True, kw_only=True)
class _ComparedMinimum:
    """A minimum with its heights by two calculators, in meV/atom.

    Attributes
    ----------
    first, second
        Enthalpy above the lowest minimum of each calculator.
    name
        Name in the plot.
    disagrees
        Whether the two heights differ by more than the threshold.
    changed
        Whether the second calculator relaxed it to another structure.
    """

    first: float
    second: float
    name: str
    disagrees: bool
    changed: bool


def _compared_minima(minima: Sequence[Minimum], spec: str, threshold: float) -> list[_ComparedMinimum]:
    """Return the minima that a follow-up calculator has relaxed, those with the best ranks first."""
    points = []
    for rank, minimum in enumerate(minima, start=1):
        result, search = result_by(minimum, spec), minimum.search_height
        if result is not None and search is not None:
            points.append(
                _ComparedMinimum(
                    first=1000 * search,
                    second=1000 * result.height,
                    name=f"{rank}: {spacegroup_symbol(minimum.spacegroup)}",
                    disagrees=abs(result.height - search) > threshold,
                    changed=not result.same_structure,
                )
            )
    return points


def _draw_agreement(axes: Axes, points: Sequence[_ComparedMinimum], names: tuple[str, str], threshold: float) -> None:
    """Draw the heights by the second calculator against those by the first.

    Parameters
    ----------
    axes
        Axes to draw in.
    points
        Minima.
    names
        Names of the two calculators.
    threshold
        Difference of the heights from which the calculators disagree, in meV/atom.
    """
    kept = [one for one in points if not one.changed]
    groups = (
        ("agreement", "tab:blue", "o", [one for one in kept if not one.disagrees]),
        (f"more than {threshold:g} apart", "tab:red", "s", [one for one in kept if one.disagrees]),
        ("another structure", "tab:orange", "D", [one for one in points if one.changed]),
    )
    highest = max([threshold, *(max(one.first, one.second) for one in points)])
    line = np.concatenate([np.linspace(0, 10, 50), np.geomspace(10, 20 * highest + 20, 200)])
    axes.plot(line, line, color="grey", linewidth=0.8, zorder=0)
    axes.fill_between(line, line - threshold, line + threshold, color="grey", alpha=0.15, linewidth=0, zorder=0)
    for label, color, marker, group in groups:
        heights = [one.first for one in group], [one.second for one in group]
        if group:
            axes.scatter(*heights, s=22, c=color, marker=marker, alpha=0.7, label=f"{label} ({len(group)})")
    for direction in ("x", "y"):
        _scale_heights(axes, direction, few=highest > _WIDE)
    axes.set(xlim=(-1, 1.6 * highest), ylim=(-1, 1.6 * highest))
    axes.set_xlabel(f"above the best by {names[0]} (meV/atom)", parse_math=False)
    axes.set_ylabel(f"above the best by {names[1]} (meV/atom)", parse_math=False)
    axes.set_title("minima by both calculators (labels: final rank and space group)", fontsize="small")
    axes.legend(fontsize="x-small", loc="best")


def _scale_heights(axes: Axes, direction: str, *, few: bool = False) -> None:
    """Scale an axis of heights in meV/atom: linear up to 10, since the best lie close together, logarithmic above.

    Parameters
    ----------
    axes
        The axes.
    direction
        ``"x"`` or ``"y"``.
    few
        Whether only powers of ten are labelled.
    """
    from matplotlib.ticker import FixedLocator, StrMethodFormatter

    axis, set_scale = (axes.xaxis, axes.set_xscale) if direction == "x" else (axes.yaxis, axes.set_yscale)
    set_scale("symlog", linthresh=10)
    steps = (10,) if few else (2, 5, 10)
    axis.set_major_locator(FixedLocator([0, *(step * 10.0**power for power in range(6) for step in steps)]))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def plot_comparison(results: Sequence[RunResult], output: Path, target: str, notes: Sequence[str] = ()) -> None:
    """Plot the fraction of runs that reached the target, and the expected running time of each strategy.

    The fraction is plotted against relaxations and force calls (a data profile). The curve of a strategy ends at its
    longest run; one that reaches 1 is extended to the right edge. Expected running times have their 95 % interval, and
    the restricted means are drawn beside them.

    Parameters
    ----------
    results
        Results of all runs.
    output
        File to write: PNG, PDF or SVG by its ending.
    target
        Name of the target, for the axis label.
    notes
        Sentences below the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = compare(results)
    results = extended_to_longest(results)
    caption = "\n".join(line for note in notes for line in textwrap.wrap(note, CAPTION_WIDTH))
    figure = Figure(figsize=(13, 4 + 0.16 * len(caption.splitlines())), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    axes[1].sharey(axes[0])
    for column, (axis, name) in enumerate(zip(axes[:2], ("relaxations", "force calls"), strict=True)):
        right = 1.05 * max(1.0, success_costs(results, column)[0].max())
        for strategy in dict.fromkeys(result.strategy for result in results):
            times, censored = success_costs([result for result in results if result.strategy == strategy], column)
            survival = success_curve(times, censored)
            solved = 1 - np.concatenate([[1.0], survival.probabilities, survival.probabilities[-1:]])
            steps = np.concatenate([[0.0], survival.quantiles, [right if solved[-1] == 1 else times.max()]])
            axis.step(steps, solved, where="post", label=strategy)
        axis.set(xlabel=name, xlim=(0, right), ylim=(-0.02, 1.02))
    axes[0].set_ylabel(f"fraction of runs that reached {target}")
    axes[1].legend(fontsize="small", loc="lower right")
    draw_costs(axes[2], rows)
    if caption:
        figure.supxlabel(caption, x=0.01, ha="left", fontsize="x-small", parse_math=False)
    save_figure(figure, output)


def draw_costs(axis: Axes, rows: Sequence[StrategyStatistics]) -> None:
    """Draw the expected running time of each strategy with its interval, and the restricted mean."""
    for place, row in enumerate(rows):
        axis.plot(row.mean_force_calls, place, "|", color="black", markersize=12)
        if row.expected_force_calls is not None:
            high = row.expected_high if row.expected_high not in (None, math.inf) else row.expected_force_calls
            low = row.expected_low if row.expected_low is not None else row.expected_force_calls
            axis.plot([low, high], [place, place], color=f"C{place}")
            axis.plot(row.expected_force_calls, place, "o", color=f"C{place}")
            if row.expected_high == math.inf:
                axis.annotate("→", (high, place), fontsize="large", va="center")
    axis.set(yticks=range(len(rows)), yticklabels=[row.strategy for row in rows], xscale="log")
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel="force calls per success (points)\nand restricted mean (bars)")


def check_picture(output: Path, key: str = "plot") -> None:
    """Check that the ending of a file names a picture format.

    Raises
    ------
    InputError
        If the ending is unknown.
    """
    if output.suffix.lower() not in PICTURES:
        raise InputError(key, output, f"a file whose name ends in {' or '.join(PICTURES)}")


def save_figure(figure: Figure, output: Path, key: str = "plot") -> None:
    """Write a figure in the format that the ending of the file names.

    Raises
    ------
    InputError
        If the ending is unknown or the file cannot be written.
    """
    check_picture(output, key)
    make_folder(output.parent, key=key)
    with atomic_write(output, "wb", key=key, follow=True) as file:
        figure.savefig(file, format=output.suffix[1:].lower(), dpi=150)
