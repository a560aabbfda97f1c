"""Plot the convex hull of a chemical system: a line, triangle or projected tetrahedron of compositions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridcsp.analysis.composition_space import TETRAHEDRON, TRIANGLE, places, seen_from_front, with_subscripts
from hybridcsp.analysis.phases import WINDOW, Phase, Phases
from hybridcsp.analysis.plots import check_picture, save_figure
from hybridcsp.analysis.point_labels import label_points
from hybridcsp.errors import InputError
from hybridcsp.structure.symmetry import spacegroup_symbol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Height above the hull (meV/atom) at which the scale of colours ends.
HIGHEST_COLOUR = 200.0

#: Most phases above the hull that are named.
_NAMED = 6

#: Least height of the picture of a binary system above the elements, in meV/atom.
_LEAST_HEIGHT = 10.0

#: Colours of phases on the hull: found by the search, known before, and elements without a known phase.
_FOUND, _KNOWN, _NOT_GIVEN = "tab:red", "black", "tab:gray"

#: Most phases on the hull of a panel whose space groups are written too.
_WITH_SPACEGROUP = 14

#: Distance of the symbols of the elements from their corners, in typographic points.
_CORNER = 15.0


def plot_hull(
    phases: Phases, output: Path, *, window: float = WINDOW, snapshots: Sequence[Phases] = (), key: str = "plot"
) -> None:
    """Plot the phases of a system of two, three or four elements and their hull to a file.

    A binary system is drawn as enthalpy of formation against composition with all minima. Of larger systems the lowest
    phase of each composition is drawn, coloured by its height above the hull.

    Parameters
    ----------
    phases
        The phases.
    output
        File to write: PNG, PDF or SVG by its ending.
    window
        Height above the hull in eV/atom up to which phases stand out and may be named.
    snapshots
        The phases at several moments of the search, the last of which is the end. In a binary system their hulls are
        drawn into one picture, in others each has a panel.
    key
        Name of the option for error messages.

    Raises
    ------
    InputError
        If the system has more than four elements, or the file cannot be written or has an unknown ending.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(output, key)
    check_drawable(phases, output, key)
    shown = list(snapshots) or [phases]
    if len(phases.elements) == 2:
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        _draw_binary(figure, phases, window, shown[:-1])
    else:
        columns = len(shown) if len(shown) < 4 else 2 if len(shown) == 4 else 3
        rows = -(-len(shown) // columns)
        size = 6.4 if len(shown) == 1 else 4.6
        figure = Figure(figsize=(size * columns + 0.8, 0.92 * size * rows + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        _draw_panels(figure, panels, shown, window)
    save_figure(figure, output, key)


def check_drawable(phases: Phases, output: Path, key: str) -> None:
    """Check that a system can be drawn.

    Raises
    ------
    InputError
        If it has more than four elements.
    """
    if len(phases.elements) > 4:
        reason = (
            f"{phases.name} has {len(phases.elements)} elements, and systems of two to four can be drawn; the "
            "table, --json, --csv, --export and --entries work with every system"
        )
        raise InputError(key, output, reason=reason)


# Binary systems


def _draw_binary(figure: Figure, phases: Phases, window: float, earlier: Sequence[Phases]) -> None:
    """Draw enthalpies of formation against composition, the hull, and the hulls of earlier moments."""
    axes = figure.subplots()
    first, second = phases.elements
    lowest = {phase.id for phase in phases.lowest.values()}
    heights = {phase.id: 1000 * phases.height(phase) for phase in phases.phases}
    stable = [phases.lowest[formula] for formula in phases.hull.stable]
    on_hull = {phase.id for phase in stable}
    near = [one for one in phases.phases if one.id not in on_hull and heights[one.id] <= 1000 * window]
    others = [one for one in phases.phases if one.id not in on_hull and heights[one.id] > 1000 * window]

    for moment, colour in zip(earlier, _fading(len(earlier)), strict=True):
        line = _hull_line(moment, phases)
        axes.plot(*line, color=colour, linewidth=1.2, label=f"after {moment.relaxations} relaxations", zorder=1)
    axes.axhline(0, color="grey", linewidth=0.6, zorder=0)
    axes.plot(*_hull_line(phases, phases), color="black", linewidth=1.4, zorder=2, label="convex hull")
    axes.scatter(*_points(others, phases), s=12, color="tab:grey", alpha=0.4, linewidths=0, label="minima")
    axes.scatter(
        *_points(near, phases),
        s=18,
        color="tab:blue",
        alpha=0.8,
        linewidths=0,
        label=f"within {1000 * window:g} meV/atom",
    )
    for label, face, marker, group in _groups(stable, phases):
        axes.scatter(*_points(group, phases), s=52, color=face, marker=marker, zorder=3, label=label)
    if known := [one for one in phases.phases if one.known and one.id not in on_hull]:
        axes.scatter(
            *_points(known, phases),
            s=46,
            marker="D",
            facecolors="none",
            edgecolors=_KNOWN,
            label="known, above the hull",
        )

    energies = [1000 * phases.formation(one) for one in stable]
    depth = -min(energies)
    top = max(0.35 * depth, 1300 * window, _LEAST_HEIGHT)
    inside = [one for one in phases.phases if 1000 * phases.formation(one) <= top]
    axes.set(xlim=(-0.03, 1.03), ylim=(-1.14 * depth - 0.06 * top, top))
    axes.set_xlabel(f"x in {first}$_{{1-x}}${second}$_x$")
    axes.set_ylabel(f"{phases.quantity} of formation (meV/atom)")
    cut = len(phases.phases) - len(inside)
    title = f"{phases.name} by {phases.calculator}" if phases.calculator else phases.name
    note = f"\n{cut} of {len(phases.phases)} minima lie above the picture" if cut else ""
    axes.set_title(f"{title}{note}", fontsize="medium", parse_math=False)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)

    figure.draw_without_rendering()  # constrained layout is computed here; labels need final pixels
    named = sorted((one for one in near if one.id in lowest), key=lambda one: heights[one.id])[:_NAMED]
    labelled = [*stable, *named]
    x, y = _points(labelled, phases)
    avoid = list(zip(*_points([one for one in inside if heights[one.id] <= 2000 * window], phases), strict=True))
    along = np.linspace(0, 1, 200)
    avoid += list(zip(along, np.interp(along, *_hull_line(phases, phases)), strict=True))
    label_points(axes, list(zip(x, y, strict=True)), [name_of(one) for one in labelled], avoid=avoid)
    _add_halos(axes)


def _points(group: Sequence[Phase], phases: Phases) -> tuple[list[float], list[float]]:
    """Return fractions of the second element and enthalpies of formation in meV/atom."""
    x = [phases.hull.fractions(phase.formula)[1] for phase in group]
    return x, [1000 * phases.formation(phase) for phase in group]


def _hull_line(moment: Phases, last: Phases) -> tuple[list[float], list[float]]:
    """Return the corners of a hull; enthalpies of formation (meV/atom) are from the last elements."""
    corners = [moment.lowest[formula] for formula in moment.hull.stable]
    return _points(corners, last)


def _fading(number: int) -> list[tuple[float, ...]]:
    """Return colours from light to dark."""
    from matplotlib import colormaps

    scale = colormaps["viridis_r"]
    return [tuple(scale(0.15 + 0.6 * k / max(number - 1, 1))) for k in range(number)]


def _groups(stable: Sequence[Phase], phases: Phases) -> list[tuple[str, str, str, list[Phase]]]:
    """Return label, colour, marker and phases on the hull: known ones and others, or all together."""
    if phases.known_hull is None:
        return [("on the hull", _FOUND, "o", list(stable))]
    groups = [
        ("known, on the hull", _KNOWN, "D", [one for one in stable if one.known]),
        ("new on the hull", _FOUND, "o", [one for one in stable if phases.is_new(one)]),
        ("element, not given", _NOT_GIVEN, "o", [one for one in stable if phases.is_new(one) is None]),
    ]
    return [group for group in groups if group[3]]


def name_of(phase: Phase) -> str:
    """Return the name of a phase in a picture: its formula with subscripts, and its space group."""
    group = "" if phase.spacegroup is None else f" {spacegroup_symbol(phase.spacegroup)}"
    return f"{with_subscripts(phase.formula)}{group}"


# Systems of three and four elements


def _draw_panels(figure: Figure, panels: Sequence[Axes], shown: Sequence[Phases], window: float) -> None:
    """Draw a triangle or projected tetrahedron for each moment, with one scale of colours."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    last = shown[-1]
    colours = ScalarMappable(Normalize(0, HIGHEST_COLOUR), "viridis_r")
    for axes, moment in zip(panels, shown, strict=False):
        _draw_simplex(axes, moment, colours)
        if len(shown) > 1:
            axes.set_title(f"{moment.relaxations} relaxations", fontsize="small")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    bar = figure.colorbar(colours, ax=list(panels), shrink=0.6, extend="max", pad=0.01)
    bar.set_label(f"{last.quantity} above the hull (meV/atom)")
    figure.suptitle(f"{last.name} by {last.calculator}" if last.calculator else last.name, parse_math=False)
    handles, labels = panels[len(shown) - 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.draw_without_rendering()
    for axes, moment in zip(panels, shown, strict=False):
        _label_simplex(axes, moment, window)


def _placed(phases: Phases, formulas: Sequence[str]) -> NDArray[np.float64]:
    """Return the places of compositions in the picture, shape ``(n, 2)``."""
    placed = places([phases.hull.fractions(formula) for formula in formulas])
    return placed if placed.shape[1] == 2 else seen_from_front(placed)[0]


def _draw_simplex(axes: Axes, phases: Phases, colours: ScalarMappable) -> None:
    """Draw the lowest phase of each composition and the tie lines between the phases on the hull."""
    corners = TRIANGLE if len(phases.elements) == 3 else seen_from_front(TETRAHEDRON)[0]
    for a, b in combinations(range(len(corners)), 2):
        axes.plot(*corners[[a, b]].T, color="black", linewidth=1.3, zorder=1)
    edges = {tuple(sorted(edge)) for facet in phases.hull.facets() for edge in combinations(facet, 2)}
    for edge in sorted(edges):
        axes.plot(*_placed(phases, edge).T, color="grey", linewidth=0.7, zorder=1)

    stable = [phases.lowest[formula] for formula in phases.hull.stable]
    on_hull = {phase.id for phase in stable}
    above = [phase for phase in phases.lowest.values() if phase.id not in on_hull]
    above.sort(key=phases.height, reverse=True)  # the lowest are drawn last
    if above:
        heights = [1000 * phases.height(phase) for phase in above]
        shown = _placed(phases, [phase.formula for phase in above])
        style: dict[str, Any] = {"c": heights, "cmap": colours.get_cmap(), "norm": colours.norm, "linewidths": 0}
        axes.scatter(shown[:, 0], shown[:, 1], s=26, zorder=2, label="above the hull", **style)
    for label, colour, marker, group in _groups(stable, phases):
        shown = _placed(phases, [phase.formula for phase in group])
        axes.scatter(shown[:, 0], shown[:, 1], s=54, color=colour, marker=marker, zorder=3, label=label)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.margins(0.12)


def _label_simplex(axes: Axes, phases: Phases, window: float) -> None:
    """Name the elements at their corners, the phases on the hull, and unless these are many the lowest above it."""
    corners = _placed(phases, phases.elements)
    for symbol, corner in zip(phases.elements, corners, strict=True):
        outwards = corner - corners.mean(axis=0)
        offset = _CORNER * outwards / np.linalg.norm(outwards)
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "weight": "bold"}
        axes.annotate(symbol, tuple(corner), tuple(offset), **style)
    stable = [phases.lowest[formula] for formula in phases.hull.stable if formula not in phases.elements]
    few = len(stable) <= _WITH_SPACEGROUP
    on_hull = {phase.id for phase in stable}
    near = [one for one in phases.within(window, only_lowest=True) if one.id not in on_hull]
    labelled = [*stable, *[one for one in near if one.formula not in phases.elements][: _NAMED if few else 0]]
    points = [tuple(point) for point in _placed(phases, [phase.formula for phase in labelled])] if labelled else []
    everywhere = [tuple(point) for point in _placed(phases, list(phases.lowest))]
    names = [name_of(one) if few else with_subscripts(one.formula) for one in labelled]
    label_points(axes, points, names, avoid=everywhere)
    _add_halos(axes)


def _add_halos(axes: Axes) -> None:
    """Give labels a white outline, so that they stay legible on lines."""
    from matplotlib.patheffects import withStroke

    for text in axes.texts:
        text.set_path_effects([withStroke(linewidth=2.0, foreground="white")])
