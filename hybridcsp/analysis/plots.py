"""Plot searches and comparisons of strategies."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.statistics import extended_to_longest, success_costs, success_curve
from hybridcsp.archive.archive import Archive
from hybridcsp.errors import InputError
from hybridcsp.utils.files import atomic_write, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Characters in a line of the caption of a plot.
_CAPTION_WIDTH = 150

#: File endings of pictures.
PICTURES = (".png", ".pdf", ".svg")


def plot_search(archive: Archive, output: Path, title: str) -> None:
    """Plot enthalpy against relaxation, and the minima by volume, to a file.

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
    from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

    check_picture(output)
    ends = archive.ends()
    minima = archive.minima()
    if not minima:
        raise InputError("directory", archive.directory, reason="this search has found no minimum yet to plot")
    best = minima[0].enthalpy_per_atom

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    course, landscape = figure.subplots(1, 2, sharey=True)
    # Linear up to 10 meV/atom, since the best minima lie close together, and logarithmic above.
    course.set_yscale("symlog", linthresh=10)
    course.yaxis.set_major_locator(
        FixedLocator([0, *(step * 10.0**power for power in range(6) for step in (2, 5, 10))])
    )
    course.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))

    for source in dict.fromkeys(end.source for end in ends):
        own = [end for end in ends if end.source == source]
        heights = [1000 * (end.enthalpy_per_atom - best) for end in own]
        course.plot([end.relaxation for end in own], heights, ".", label=source, alpha=0.7)
    running, lowest = [], float("inf")
    for end in ends:
        if end.converged:
            lowest = min(lowest, end.enthalpy_per_atom)
        running.append(1000 * (lowest - best))
    course.step([end.relaxation for end in ends], running, where="post", color="black", label="best so far")
    course.set(xlabel="relaxation", ylabel="enthalpy above the best minimum (meV/atom)")
    course.xaxis.set_major_locator(MaxNLocator(integer=True))
    course.set_ylim(-1, None)
    figure.legend(loc="outside lower left", ncols=6, fontsize="small", frameon=False)

    volumes = [minimum.best.atoms.get_volume() / len(minimum.best.atoms) for minimum in minima]
    heights = [1000 * (minimum.enthalpy_per_atom - best) for minimum in minima]
    sizes = [20 + 12 * (minimum.multiplicity - 1) for minimum in minima]
    landscape.scatter(volumes, heights, s=sizes, alpha=0.6)
    landscape.set(xlabel="volume (Å³/atom)")
    landscape.set_title("minima (area: times found; labels: space groups of the best five)", fontsize="small")
    near = [volume for volume, height in zip(volumes, heights, strict=True) if height <= 500]
    margin = 0.08 * (max(near) - min(near)) + 0.2
    landscape.set_xlim(min(near) - margin, max(near) + margin)
    figure.draw_without_rendering()  # constrained layout is computed here; labels need final pixels
    labels = [str(minimum.spacegroup) for minimum in minima[:5]]
    _label(landscape, list(zip(volumes, heights, strict=True))[:5], labels)

    save_figure(figure, output)


def plot_comparison(results: Sequence[RunResult], output: Path, target: str, notes: Sequence[str] = ()) -> None:
    """Plot the fraction of runs that reached the target against relaxations and force calls (a data profile).

    The curve of a strategy ends at its longest run; one that reaches 1 is extended to the right edge.

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

    results = extended_to_longest(results)
    caption = "\n".join(line for note in notes for line in textwrap.wrap(note, _CAPTION_WIDTH))
    figure = Figure(figsize=(10, 4 + 0.16 * len(caption.splitlines())), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for column, (axis, name) in enumerate(zip(axes, ("relaxations", "force calls"), strict=True)):
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
    if caption:
        figure.supxlabel(caption, x=0.01, ha="left", fontsize="x-small", parse_math=False)
    save_figure(figure, output)


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


def _label(axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Write a label next to each point, at the first of several positions that does not overlap another label."""
    pixels = axes.figure.dpi / 72
    taken: list[tuple[float, float]] = []
    for point, label in zip(points, labels, strict=True):
        x, y = axes.transData.transform(point) / pixels
        places = [(right, above) for above, right in product((4, -10, 14, -20, 24, 34), (5, -23))]
        right, above = next(
            (p for p in places if all(_separate(x + p[0], y + p[1], *other) for other in taken)), places[0]
        )
        taken.append((x + right, y + above))
        axes.annotate(label, point, xytext=(right, above), textcoords="offset points", fontsize="small")


def _separate(x: float, y: float, other_x: float, other_y: float) -> bool:
    """Return whether two labels of three digits at these positions (in points) do not overlap."""
    return abs(x - other_x) > 18 or abs(y - other_y) > 9
