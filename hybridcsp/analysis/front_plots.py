"""Plot the Pareto fronts of a search with objectives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridcsp.analysis.composition_space import with_subscripts
from hybridcsp.analysis.fronts import LOW, FrontMember, Fronts, staircase
from hybridcsp.analysis.plots import check_picture, save_figure
from hybridcsp.analysis.point_labels import label_points
from hybridcsp.errors import InputError
from hybridcsp.objectives.goals import Goal
from hybridcsp.structure.symmetry import spacegroup_symbol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Most criteria that are drawn, the height included.
_MOST = 6

#: Most members that are named in a picture.
_NAMED = 14

#: Least height up to which minima are drawn, in eV/atom.
_LEAST_HEIGHT = 0.05

#: Margin of the axes, as a fraction of the range of the values.
_MARGIN = 0.06


def plot_fronts(fronts: Fronts, output: Path, *, ranks: int = 1, key: str = "plot") -> None:
    """Plot the minima of a search by their heights and values, and their first fronts, to a file.

    With one objective the fronts are step lines between what their members dominate and what they do not. With more,
    every pair of criteria has a panel.

    Parameters
    ----------
    fronts
        The fronts.
    output
        File to write: PNG, PDF or SVG by its ending.
    ranks
        Number of fronts that stand out.
    key
        Name of the option for error messages.

    Raises
    ------
    InputError
        If there are more than five objectives, or the file cannot be written or has an unknown ending.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(output, key)
    check_drawable(fronts, output, key)
    number = len(fronts.criteria) - 1
    size = 7.0 if number == 1 else max(3.4, 6.4 / number) * number
    figure = Figure(figsize=(size + 1.0, size if number > 1 else 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, fronts, ranks)
    save_figure(figure, output, key)


def check_drawable(fronts: Fronts, output: Path, key: str) -> None:
    """Check that fronts can be drawn.

    Raises
    ------
    InputError
        If there are too many objectives.
    """
    if len(fronts.criteria) > _MOST:
        reason = (
            f"this search has {len(fronts.criteria) - 1} objectives, and at most {_MOST - 1} can be drawn; the table, "
            "--json, --csv and --export work with any number"
        )
        raise InputError(key, output, reason=reason)


def label_of(goal: Goal) -> str:
    """Return the label of an axis: name, unit and goal."""
    wanted = {"min": "smaller is better", "max": "larger is better"}.get(str(goal.goal)) or f"best at {goal.goal:g}"
    unit = f" ({goal.unit})" if goal.unit else ""
    return f"{goal.name.replace('_', ' ')}{unit}, {wanted}"


def title_of(fronts: Fronts) -> str:
    """Return the title of a picture."""
    return f"{fronts.name} by {fronts.calculator}" if fronts.calculator else fronts.name


def name_of(member: FrontMember) -> str:
    """Return the name of a member in a picture: its composition in a chemical system, and its space group."""
    group = str(member.id) if member.spacegroup is None else spacegroup_symbol(member.spacegroup)
    return f"{with_subscripts(member.composition)} {group}".strip()


def highest_shown(fronts: Fronts, ranks: int) -> float:
    """Return the height in eV/atom up to which minima are drawn: that of the first fronts."""
    return max(_LEAST_HEIGHT, *(member.height for member in fronts.up_to(ranks)))


def axis_ranges(fronts: Fronts, ranks: int) -> list[tuple[float, float]]:
    """Return the ranges of values of each criterion that are shown: those up to the height of the drawn fronts."""
    top = highest_shown(fronts, ranks)
    inside = [member for member in fronts.members if member.height <= top]
    ranges = []
    for goal in fronts.criteria:
        values = [member.value(goal) for member in inside]
        low, high = min(values), max(values)
        margin = _MARGIN * (high - low) or 0.05 * abs(high) or 1.0
        ranges.append((low - margin, high + margin))
    return ranges


def front_lines(
    fronts: Fronts, rank: int, goal: Goal, ranges: Sequence[tuple[float, float]]
) -> list[list[tuple[float, float]]]:
    """Return the step lines of a front in a picture of heights against one objective, in its units.

    There are two if values near a number are preferred, one on each side of it.
    """
    points = [(goal.criterion(one.value(goal)), one.value(LOW)) for one in fronts.members if one.front == rank]
    worst = max(goal.criterion(value) for value in ranges[1]), ranges[0][1]
    steps = staircase(points, worst)
    if isinstance(goal.goal, float | int):
        return [[(goal.goal + side * distance, height) for distance, height in steps] for side in (-1, 1)]
    sign = goal.criterion(1.0)
    return [[(sign * distance, height) for distance, height in steps]]


def _draw(figure: Figure, fronts: Fronts, ranks: int) -> None:
    criteria, ranges = fronts.criteria, axis_ranges(fronts, ranks)
    number = len(criteria) - 1
    panels = figure.subplots(number, number, squeeze=False)
    for row in range(number):
        for column in range(number):
            axes, x, y = panels[row][column], criteria[number - column], criteria[row]
            if column >= number - row:
                axes.set_axis_off()
                continue
            _scatter(axes, fronts, x, y, ranks)
            axes.set(xlim=ranges[number - column], ylim=ranges[row])
            if row == number - 1 - column:
                axes.set_xlabel(label_of(x), parse_math=False)
            if column == 0:
                axes.set_ylabel(label_of(y), parse_math=False)
    first = panels[0][0]
    if number == 1:
        for rank in range(1, ranks + 1):
            for line in front_lines(fronts, rank, criteria[1], ranges):
                first.plot(*zip(*line, strict=True), color=_colour(rank, ranks), linewidth=1.2, zorder=2)
    _title(figure, fronts, ranks)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.draw_without_rendering()  # constrained layout is computed here; labels need final pixels
    if number == 1:
        named = fronts.up_to(1)[:_NAMED]
        avoid = [(one.value(criteria[1]), one.value(LOW)) for one in fronts.up_to(ranks)]
        label_points(
            first, [(one.value(criteria[1]), one.value(LOW)) for one in named], list(map(name_of, named)), avoid
        )


def _scatter(axes: Axes, fronts: Fronts, x: Goal, y: Goal, ranks: int) -> None:
    others = [member for member in fronts.members if member.front > ranks]
    style: dict[str, Any] = {"s": 12, "color": "tab:grey", "alpha": 0.4, "linewidths": 0, "label": "minima"}
    axes.scatter([one.value(x) for one in others], [one.value(y) for one in others], **style)
    for rank in range(ranks, 0, -1):
        own = [member for member in fronts.members if member.front == rank]
        label = "Pareto front" if rank == 1 else f"front {rank}"
        style = {"s": 42 if rank == 1 else 24, "color": _colour(rank, ranks), "zorder": 3, "label": label}
        axes.scatter([one.value(x) for one in own], [one.value(y) for one in own], **style)
    for goal, draw in ((x, axes.axvline), (y, axes.axhline)):
        if isinstance(goal.goal, float | int):
            draw(goal.goal, color="grey", linewidth=0.8, linestyle=":")


def _colour(rank: int, ranks: int) -> tuple[float, ...] | str:
    from matplotlib import colormaps

    return "tab:red" if rank == 1 else tuple(colormaps["viridis"](0.2 + 0.7 * (rank - 2) / max(ranks - 2, 1)))


def _title(figure: Figure, fronts: Fronts, ranks: int) -> None:
    top = highest_shown(fronts, ranks)
    cut = sum(member.height > top for member in fronts.members)
    note = f"\n{cut} of {len(fronts.members)} minima lie above the picture" if cut else ""
    figure.suptitle(f"{title_of(fronts)}{note}", fontsize="medium", parse_math=False)
