"""Labels of points in a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

#: Offsets of labels from their points, in typographic points: upwards, and to either side.
_UPWARDS = (4, -12, 16, -24, 28, -36, 40, -48, 52, -60, 64, 76, 88)
_SIDEWAYS = (5, 25, 50, 80)

#: Half of the width of a point that labels should not cover, in typographic points.
_RADIUS = 3.0


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    avoid: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a label near each point, at the nearest position in the axes at which it covers nothing.

    A thin line leads from each label to its point.

    Parameters
    ----------
    axes
        The axes, whose layout is final.
    points, labels
        Points in the units of the axes, and their labels.
    avoid
        Further points that labels should not cover, besides the legend.
    """
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    pixels = axes.figure.dpi / 72  # in a typographic point
    radius, legend = _RADIUS * pixels, axes.get_legend()
    covered = [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)
        for x, y in (axes.transData.transform(one) for one in avoid)
    ]
    covered += [] if legend is None else [legend.get_window_extent()]
    labelled: list[Bbox] = []
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": "grey", "shrinkA": 0, "shrinkB": _RADIUS}
    for point, label in zip(points, labels, strict=True):
        text = axes.annotate(
            label, point, (0, 0), textcoords="offset points", fontsize="small", parse_math=False, arrowprops=line
        )
        size = Text.get_window_extent(text)  # without the line
        sides = [*_SIDEWAYS, *(-side - size.width / pixels for side in _SIDEWAYS)]
        offsets = sorted(product(sides, _UPWARDS), key=lambda offset: _distance(offset, size.width / pixels))
        x, y = axes.transData.transform(point)
        boxes = [
            (offset, Bbox.from_bounds(x + pixels * offset[0], y + pixels * offset[1], size.width, size.height))
            for offset in offsets
        ]
        inside = [(offset, box) for offset, box in boxes if _contains(axes.bbox, box)]
        free = [(offset, box) for offset, box in inside if not box.count_overlaps(labelled)]
        clear = [(offset, box) for offset, box in free if not box.count_overlaps(covered)]
        text.xyann, box = next(iter([*clear, *free, *inside, *boxes]))
        labelled.append(box)


def _distance(offset: tuple[float, float], width: float) -> float:
    """Return the distance of a label of some width from its point; above and to the right is preferred."""
    right, above = offset
    sideways = right if right > 0 else -right - width + 1
    return math.hypot(sideways, above if above > 0 else above + 5)


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)
