"""Pictures of a search."""

from __future__ import annotations

from pathlib import Path

from hybridcsp.archive import Archive
from hybridcsp.errors import InputError


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
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    ends = archive.ends()
    minima = archive.minima()
    if not minima:
        raise InputError("minima", 0, "at least one converged minimum: this search has found none yet")
    best = minima[0].enthalpy_per_atom

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    course, landscape = figure.subplots(1, 2)

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
    course.set_yscale("symlog", linthresh=10)
    course.set_ylim(-1, None)
    course.yaxis.set_major_formatter(ScalarFormatter())
    course.xaxis.set_major_locator(MaxNLocator(integer=True))
    course.legend(fontsize="small")

    volumes = [minimum.best.atoms.get_volume() / len(minimum.best.atoms) for minimum in minima]
    heights = [1000 * (minimum.enthalpy_per_atom - best) for minimum in minima]
    sizes = [20 + 12 * (minimum.multiplicity - 1) for minimum in minima]
    landscape.scatter(volumes, heights, s=sizes, alpha=0.6)
    for minimum, volume, height in list(zip(minima, volumes, heights, strict=True))[:5]:
        landscape.annotate(
            str(minimum.spacegroup), (volume, height), xytext=(5, 4), textcoords="offset points", fontsize="small"
        )
    landscape.set(xlabel="volume (Å³/atom)", ylabel="enthalpy above the best (meV/atom)")
    landscape.set_title("minima: size by multiplicity, space groups of the best five", fontsize="small")
    shown = min(max(*heights, 10.0) * 1.05, 500.0)
    landscape.set_ylim(-0.05 * shown, shown)
    near = [volume for volume, height in zip(volumes, heights, strict=True) if height <= shown]
    margin = 0.08 * (max(near) - min(near)) + 0.2
    landscape.set_xlim(min(near) - margin, max(near) + margin)

    temporary = output.with_name(f".{output.stem}.tmp{output.suffix}")
    try:
        canvas.figure.savefig(temporary, dpi=150)
        temporary.replace(output)
    except (OSError, ValueError) as error:
        raise InputError("plot", str(output), f"a .png, .pdf or .svg file that can be written ({error})") from error
