"""Write the Pareto fronts of a search with objectives as an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from hybridcsp.analysis.front_plots import axis_ranges, check_drawable, front_lines, label_of, name_of, title_of
from hybridcsp.analysis.fronts import LOW, FrontMember, Fronts
from hybridcsp.analysis.pages import new_figure, write_page
from hybridcsp.analysis.report import source_name

_FIRST = "#d62728"


def write_front_page(fronts: Fronts, output: Path, *, ranks: int = 1, key: str = "plot") -> None:
    """Write an interactive picture of the minima of a search and their first fronts.

    The page needs no other file and no network. Every minimum shows its number, space group, values and origin under
    the pointer. With several objectives, every pair of criteria has a panel; points that are chosen in one stand out in
    all.

    Parameters
    ----------
    fronts
        The fronts.
    output
        File to write.
    ranks
        Number of fronts that stand out.
    key
        Name of the option for error messages.

    Raises
    ------
    InputError
        If there are more than five objectives, plotly is not installed, or the file cannot be written.
    """
    check_drawable(fronts, output, key)
    figure = new_figure(output, key)
    ranges, criteria = axis_ranges(fronts, ranks), fronts.criteria
    groups: list[tuple[str, dict[str, Any], list[FrontMember]]] = [
        (
            "minima",
            {"color": "rgba(127,127,127,0.45)", "size": 6},
            [one for one in fronts.members if one.front > ranks],
        )
    ]
    for rank in range(ranks, 0, -1):
        style = {"color": _FIRST, "size": 11} if rank == 1 else {"size": 8}
        name = "Pareto front" if rank == 1 else f"front {rank}"
        groups.append((name, style, [one for one in fronts.members if one.front == rank]))
    if len(criteria) == 2:
        for rank in range(ranks, 0, -1):
            for line in front_lines(fronts, rank, criteria[1], ranges):
                figure.add_trace(_line(line, first=rank == 1))
    for name, marker, members in groups:
        figure.add_trace(
            {**_points(members, fronts), "name": name, "marker": marker}
            | {"hovertext": [_text(one, fronts) for one in members], "hoverinfo": "text"}
        )
    figure.update_layout(title=escape(title_of(fronts)), template="plotly_white", legend={"itemsizing": "constant"})
    if len(criteria) == 2:
        figure.update_layout(
            xaxis={"title": {"text": escape(label_of(criteria[1]))}, "range": ranges[1]},
            yaxis={"title": {"text": escape(label_of(LOW))}, "range": ranges[0]},
        )
    else:
        figure.update_layout(height=300 * len(criteria), dragmode="select")
        for k, axis in enumerate(ranges, start=1):
            number = "" if k == 1 else str(k)
            figure.update_layout({f"xaxis{number}": {"range": axis}, f"yaxis{number}": {"range": axis}})
    write_page(figure, output, key)


def _points(members: Sequence[FrontMember], fronts: Fronts) -> dict[str, Any]:
    """Return a trace of members: a scatter plot of two criteria, a matrix of panels of more."""
    criteria = fronts.criteria
    columns = [[member.value(goal) for member in members] for goal in criteria]
    if len(criteria) == 2:
        return {"type": "scatter", "mode": "markers", "x": columns[1], "y": columns[0]}
    dimensions = [
        {"label": escape(label_of(goal)).replace(", ", "<br>"), "values": values}
        for goal, values in zip(criteria, columns, strict=True)
    ]
    return {"type": "splom", "dimensions": dimensions, "showupperhalf": False, "diagonal": {"visible": False}}


def _line(line: Sequence[tuple[float, float]], *, first: bool) -> dict[str, Any]:
    style = {"color": _FIRST if first else "#7f7f7f", "width": 2 if first else 1}
    points = {"x": [x for x, _ in line], "y": [y for _, y in line]}
    return {"type": "scatter", "mode": "lines", "line": style, "hoverinfo": "skip", "showlegend": False, **points}


def _text(member: FrontMember, fronts: Fronts) -> str:
    """Return what the pointer shows about a member."""
    units = {goal.name: f" {goal.unit}" if goal.unit else "" for goal in fronts.goals.objectives}
    above = "the convex hull" if fronts.has_hull else "the best"
    lines = [
        f"<b>{escape(name_of(member))}</b>, front {member.front}",
        f"{1000 * member.height:.1f} meV/atom above {above}",
        *(f"{escape(name)}: {value:.4g}{escape(units.get(name, ''))}" for name, value in member.values.items()),
        f"minimum {member.id}, relaxation {member.relaxation}, {escape(source_name(member.source, member.operator))}",
    ]
    return "<br>".join(lines)
