"""Write the convex hull of a chemical system as an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp.analysis.composition_space import TETRAHEDRON, TRIANGLE, places, with_subscripts
from hybridcsp.analysis.hull_plots import HIGHEST_COLOUR, check_drawable
from hybridcsp.analysis.hull_report import in_words
from hybridcsp.analysis.pages import new_figure, write_page
from hybridcsp.analysis.phases import WINDOW, Phase, Phases
from hybridcsp.analysis.report import source_name, spacegroup_name

_FOUND, _KNOWN, _NOT_GIVEN = "#d62728", "black", "grey"


def write_hull_page(
    phases: Phases, output: Path, *, window: float = WINDOW, snapshots: Sequence[Phases] = (), key: str = "plot"
) -> None:
    """Write an interactive picture of the phases of a system of two, three or four elements and their hull.

    The page needs no other file and no network. Every phase shows its space group, enthalpies, decomposition and
    origin under the pointer.

    Parameters
    ----------
    phases
        The phases.
    output
        File to write.
    window
        Height above the hull in eV/atom up to which phases of a binary system stand out.
    snapshots
        The phases at several moments of the search, which a slider chooses from; the last one is the end.
    key
        Name of the option for error messages.

    Raises
    ------
    InputError
        If the system has more than four elements, plotly is not installed, or the file cannot be written.
    """
    check_drawable(phases, output, key)
    moments = list(snapshots) or [phases]
    draw = _binary_traces if len(phases.elements) == 2 else _simplex_traces
    drawn = [draw(moment, phases, window) for moment in moments]
    figure = new_figure(output, key)
    frame = _frame(phases) if len(phases.elements) > 2 else []
    for trace in frame:
        figure.add_trace(trace)
    for k, traces in enumerate(drawn):
        for trace in traces:
            figure.add_trace({**trace, "visible": k == len(drawn) - 1})
    if len(drawn) > 1:
        figure.update_layout(sliders=[_slider(moments, drawn, len(frame))])
    title = f"{phases.name} by {phases.calculator}" if phases.calculator else phases.name
    figure.update_layout(title=escape(title), template="plotly_white", legend={"itemsizing": "constant"})
    figure.update_layout(**_axes(phases))
    write_page(figure, output, key)


def _slider(moments: Sequence[Phases], drawn: Sequence[Sequence[Any]], always: int) -> dict[str, Any]:
    """Return a slider that shows the traces of one moment, and those of the frame, which are the first, always."""
    owners = [*[-1] * always, *(k for k, traces in enumerate(drawn) for _ in traces)]
    steps = [
        {
            "method": "update",
            "label": str(moment.relaxations),
            "args": [{"visible": [owner in (k, -1) for owner in owners]}],
        }
        for k, moment in enumerate(moments)
    ]
    return {"active": len(moments) - 1, "currentvalue": {"prefix": "relaxations: "}, "pad": {"t": 50}, "steps": steps}


def _text(phase: Phase, phases: Phases) -> str:
    """Return what the pointer shows about a phase."""
    group = "" if phase.spacegroup is None else f", {spacegroup_name(phase.spacegroup)}"
    height = "on the hull" if phases.on_hull(phase) else f"{1000 * phases.height(phase):.1f} meV/atom above the hull"
    lines = [
        f"<b>{escape(with_subscripts(phase.formula))}</b>{escape(group)}",
        height,
        f"{1000 * phases.formation(phase):.1f} meV/atom of formation",
        f"{phase.enthalpy_per_atom:.4f} eV/atom",
        f"minimum {phase.id}, relaxation {phase.relaxation}, {escape(source_name(phase.source, phase.operator))}",
    ]
    if not phases.on_hull(phase):
        lines.insert(2, f"decomposes to {escape(in_words(phases.hull.decomposition(phase.formula)))}")
    if phases.known_hull is not None:
        words = {True: "none of the known phases", False: "known phase", None: "element without a known phase"}
        lines.append(words[phases.is_new(phase)])
    return "<br>".join(lines)


def _groups(phases: Phases) -> list[tuple[str, str, str, list[Phase]]]:
    """Return label, colour, marker and phases on the hull: known ones and others, or all together."""
    stable = [phases.lowest[formula] for formula in phases.hull.stable]
    if phases.known_hull is None:
        return [("on the hull", _FOUND, "circle", stable)]
    groups = [
        ("known, on the hull", _KNOWN, "diamond", [one for one in stable if one.known]),
        ("new on the hull", _FOUND, "circle", [one for one in stable if phases.is_new(one)]),
        ("element, not given", _NOT_GIVEN, "circle", [one for one in stable if phases.is_new(one) is None]),
    ]
    return [group for group in groups if group[3]]


def _binary_traces(moment: Phases, last: Phases, window: float) -> list[dict[str, Any]]:
    """Return the hull and all minima of a binary system; enthalpies of formation are from the last elements."""

    def points(group: Sequence[Phase]) -> dict[str, Any]:
        return {
            "type": "scatter",
            "x": [moment.hull.fractions(one.formula)[1] for one in group],
            "y": [1000 * last.formation(one) for one in group],
            "hovertext": [_text(one, moment) for one in group],
            "hoverinfo": "text",
        }

    stable = [moment.lowest[formula] for formula in moment.hull.stable]
    on_hull = {one.id for one in stable}
    heights = {one.id: moment.height(one) for one in moment.phases if one.id not in on_hull}
    near = [one for one in moment.phases if heights.get(one.id, np.inf) <= window]
    others = [one for one in moment.phases if window < heights.get(one.id, -np.inf)]
    line = {**points(stable), "mode": "lines", "line": {"color": "black", "width": 2}, "hoverinfo": "skip"}
    groups = [
        ("minima", "rgba(127,127,127,0.4)", 6, "circle", others),
        (f"within {1000 * window:g} meV/atom", "#1f77b4", 7, "circle", near),
        *((label, colour, 11, marker, group) for label, colour, marker, group in _groups(moment)),
    ]
    return [
        {**line, "name": "convex hull"},
        *(
            {**points(group), "mode": "markers", "name": label}
            | {"marker": {"color": colour, "size": size, "symbol": marker}}
            for label, colour, size, marker, group in groups
        ),
    ]


def _simplex_traces(moment: Phases, last: Phases, window: float) -> list[dict[str, Any]]:
    """Return the tie lines and the lowest phase of each composition of a system of three or four elements."""
    tie = sorted({tuple(sorted(edge)) for facet in moment.hull.facets() for edge in combinations(facet, 2)})
    stable = set(moment.hull.stable)
    above = [phase for formula, phase in moment.lowest.items() if formula not in stable]
    heights = [1000 * moment.height(phase) for phase in above]
    scale = {
        "color": heights,
        "colorscale": "Viridis",
        "reversescale": True,
        "cmin": 0,
        "cmax": HIGHEST_COLOUR,
        "size": 7 if len(last.elements) == 3 else 4,
        "colorbar": {"title": {"text": "meV/atom above<br>the hull"}, "x": 1.02, "y": 0.4, "len": 0.7},
    }
    traces = [{**_line(last, tie), "name": "tie lines", "line": {"color": "grey", "width": 1}}]
    traces.append({**_markers(above, moment), "mode": "markers", "name": "above the hull", "marker": scale})
    for label, colour, marker, group in _groups(moment):
        style = {"color": colour, "size": 11 if len(last.elements) == 3 else 6, "symbol": marker}
        names = [with_subscripts(one.formula) if one.formula not in last.elements else "" for one in group]
        named = {"mode": "markers+text", "text": names, "textposition": "top right"}
        traces.append({**_markers(group, moment), **named, "name": label, "marker": style})
    return traces


def _coordinates(phases: Phases, formulas: Sequence[str]) -> list[tuple[float, ...]]:
    if not formulas:
        return []
    return [tuple(map(float, point)) for point in places([phases.hull.fractions(formula) for formula in formulas])]


def _scatter(points: Sequence[Sequence[float | None]], dimensions: int) -> dict[str, Any]:
    """Return a trace of points in the plane or in space; ``None`` interrupts a line."""
    kind = {"type": "scatter" if dimensions == 2 else "scatter3d"}
    return kind | {axis: [point[k] for point in points] for k, axis in enumerate("xyz"[:dimensions])}


def _markers(group: Sequence[Phase], phases: Phases) -> dict[str, Any]:
    points = _coordinates(phases, [one.formula for one in group])
    texts = [_text(one, phases) for one in group]
    return _scatter(points, len(phases.elements) - 1) | {"hovertext": texts, "hoverinfo": "text"}


def _line(phases: Phases, edges: Sequence[Sequence[str]]) -> dict[str, Any]:
    dimensions = len(phases.elements) - 1
    points: list[Sequence[float | None]] = []
    for edge in edges:
        points += [*_coordinates(phases, edge), [None] * dimensions]
    return _scatter(points, dimensions) | {"mode": "lines", "hoverinfo": "skip"}


def _frame(phases: Phases) -> list[dict[str, Any]]:
    """Return the edges of the triangle or tetrahedron, and the symbols of the elements at its corners."""
    corners = TRIANGLE if len(phases.elements) == 3 else TETRAHEDRON
    edges = [*combinations(phases.elements, 2)]
    away = corners.mean(axis=0) + 1.08 * (corners - corners.mean(axis=0))
    symbols = _scatter([list(map(float, point)) for point in away], corners.shape[1])
    bold = {"mode": "text", "text": [f"<b>{symbol}</b>" for symbol in phases.elements], "textfont": {"size": 18}}
    line = {"line": {"color": "black", "width": 2}, "showlegend": False}
    return [_line(phases, edges) | line, symbols | bold | {"showlegend": False, "hoverinfo": "skip"}]


def _axes(phases: Phases) -> dict[str, Any]:
    first, second = phases.elements[:2]
    hidden = {"visible": False}
    if len(phases.elements) == 2:
        return {
            "xaxis": {"title": {"text": f"x in {first}<sub>1−x</sub>{second}<sub>x</sub>"}},
            "yaxis": {"title": {"text": f"{phases.quantity} of formation (meV/atom)"}, "range": _range(phases)},
        }
    if len(phases.elements) == 3:
        return {"xaxis": hidden, "yaxis": hidden | {"scaleanchor": "x"}, "height": 760}
    camera = {"eye": {"x": 0.45, "y": -1.9, "z": 0.5}, "center": {"x": 0.0, "y": 0.0, "z": -0.12}}
    scene = {"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data", "camera": camera}
    return {"scene": scene, "height": 800}


def _range(phases: Phases) -> list[float]:
    """Return the range of enthalpies of formation (meV/atom) that is shown first: the hull and what is near it."""
    lowest = min(1000 * phases.formation(phases.lowest[formula]) for formula in phases.hull.stable)
    highest = max(1000 * phases.formation(phase) for phase in phases.lowest.values())
    top = max(0.4 * -lowest, 1.1 * highest, 50.0)
    return [1.14 * lowest - 0.06 * top, top]
