"""Pictures of a search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from hybridcsp.archive.archive import Archive
from hybridcsp.errors import InputError
from hybridcsp.utils.files import atomic_write, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Endings of pictures.
PICTURES = (".png", ".pdf", ".svg")


def plot_search(archive: Archive, output: Path, title: str) -> None:
    """Draw the course of a search, and its minima by volume, to a file.

    Parameters
    ----------
    archive
        The search.
    output
        PNG, PDF or SVG by its ending.
    title
        Stands above.

    Raises
    ------
    InputError
        If there is nothing to draw, or the file cannot be written or is of an unknown kind.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

    check_picture(output)
    ends = archive.ends()
    minima = archive.minima()
    if not minima:
        raise InputError("minima", 0, "at least one converged minimum: this search has found none yet")
    best = minima[0].enthalpy_per_atom

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    course, landscape = figure.subplots(1, 2, sharey=True)
    # Linear up to 10 meV/atom, where the best lie close together, and logarithmic above.
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
    course.set(xlabel="relaxation", ylabel="enthalpy above the best (meV/atom)")
    course.xaxis.set_major_locator(MaxNLocator(integer=True))
    course.set_ylim(-1, None)
    figure.legend(loc="outside lower left", ncols=6, fontsize="small", frameon=False)

    volumes = [minimum.best.atoms.get_volume() / len(minimum.best.atoms) for minimum in minima]
    heights = [1000 * (minimum.enthalpy_per_atom - best) for minimum in minima]
    sizes = [20 + 12 * (minimum.multiplicity - 1) for minimum in minima]
    landscape.scatter(volumes, heights, s=sizes, alpha=0.6)
    landscape.set(xlabel="volume (Å³/atom)")
    landscape.set_title("minima: size by multiplicity, space groups of the best five", fontsize="small")
    near = [volume for volume, height in zip(volumes, heights, strict=True) if height <= 500]
    margin = 0.08 * (max(near) - min(near)) + 0.2
    landscape.set_xlim(min(near) - margin, max(near) + margin)
    figure.draw_without_rendering()  # the layout is settled only now
    labels = [str(minimum.spacegroup) for minimum in minima[:5]]
    _label(landscape, list(zip(volumes, heights, strict=True))[:5], labels)

    save_figure(figure, output)


def check_picture(output: Path, key: str = "plot") -> None:
    """Find out whether a picture can be drawn to a file, before it takes any time.

    Raises
    ------
    InputError
        If its ending names no kind of picture.
    """
    if output.suffix.lower() not in PICTURES:
        raise InputError(key, str(output), f"a picture, by its ending: {', '.join(PICTURES)}")


def save_figure(figure: Figure, output: Path, key: str = "plot") -> None:
    """Write a figure as the kind of picture that the ending of the file names.

    Raises
    ------
    InputError
        If its ending names no kind of picture, or the file cannot be written.
    """
    check_picture(output, key)
    make_folder(output.parent, key=key)
    with atomic_write(output, "wb", key=key, follow=True) as file:
        figure.savefig(file, format=output.suffix[1:].lower(), dpi=150)


def _label(axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Write a label beside each point, right, left, higher or lower, where none of the others stands."""
    pixels = axes.figure.dpi / 72
    taken: list[tuple[float, float]] = []
    for point, label in zip(points, labels, strict=True):
        x, y = axes.transData.transform(point) / pixels
        places = [(right, above) for above, right in product((4, -10, 14, -20, 24, 34), (5, -23))]
        right, above = next(
            (p for p in places if all(_apart(x + p[0], y + p[1], *other) for other in taken)), places[0]
        )
        taken.append((x + right, y + above))
        axes.annotate(label, point, xytext=(right, above), textcoords="offset points", fontsize="small")


def _apart(x: float, y: float, other_x: float, other_y: float) -> bool:
    """Whether two labels of three digits at these places (points) leave each other free."""
    return abs(x - other_x) > 18 or abs(y - other_y) > 9
