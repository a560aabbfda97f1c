from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hybridcsp.analysis.point_labels import label_points


def test_labels_of_points_that_lie_together_leave_each_other_free():
    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(11.5 + 0.001 * step, 0.5 * step) for step in range(5)]
    axes.scatter(*zip(*points, strict=True))
    axes.set(xlim=(10, 15), ylim=(-1, 400))
    label_points(axes, points, ["194", "166", "225", "139", "229"])
    canvas.draw()
    extents = [Text.get_window_extent(text) for text in axes.texts]
    assert len(extents) == 5
    assert not [pair for pair in combinations(extents, 2) if pair[0].overlaps(pair[1])]
    assert all(extent.x0 > 0 and extent.y0 > 0 for extent in extents)
