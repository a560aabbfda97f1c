"""Write simulated powder patterns over a measured one as an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp.analysis.pages import new_figure, write_page
from hybridcsp.analysis.powder_report import ComparedStructure, difference_below, title_of
from hybridcsp.powder.pattern import Profile

# Heights of the marks of reflections on the scale of the intensities.
_MARKS = -0.07


def write_comparison_page(
    compared: Sequence[ComparedStructure], profile: Profile, output: Path, key: str = "plot"
) -> None:
    """Write an interactive picture of the simulated patterns of structures over the measured one.

    The page needs no other file and no network. A menu chooses the structure, and the pointer shows angles and
    intensities.

    Parameters
    ----------
    compared
        Structures, the first of which is shown at first.
    profile
        The measured pattern without its background.
    output
        File to write.
    key
        Name of the option for error messages.

    Raises
    ------
    InputError
        If plotly is not installed, or the file cannot be written.
    """
    figure = new_figure(output, key)
    x = np.round(profile.two_theta, 4)
    traces = [_line(x, profile.intensity, "measured, without background", "black")]
    owners = [-1]
    for number, one in enumerate(compared):
        own = _traces(one, profile, x)
        traces += [{**trace, "visible": number == 0} for trace in own]
        owners += [number] * len(own)
    titles = [escape(title_of(rank, one)) for rank, one in enumerate(compared, 1)]
    figure.add_traces(traces)
    figure.update_layout(
        title={"text": titles[0], "y": 0.97},
        template="plotly_white",
        xaxis={"title": {"text": f"2θ (degrees, λ = {profile.wavelength:g} Å)"}},
        yaxis={"title": {"text": "intensity"}},
        legend={"orientation": "h", "y": 1.06},
    )
    if len(compared) > 1:
        buttons = [
            {
                "method": "update",
                "label": title.partition(",")[0],
                "args": [{"visible": [owner in (number, -1) for owner in owners]}, {"title.text": title}],
            }
            for number, title in enumerate(titles)
        ]
        figure.update_layout(updatemenus=[{"buttons": buttons, "x": 1.0, "xanchor": "right", "y": 1.12}])
    write_page(figure, output, key)


def _traces(one: ComparedStructure, profile: Profile, x: Any) -> list[dict[str, Any]]:
    """Return the simulated pattern of a structure, its reflections, and the difference below them."""
    marks = np.unique(np.round(one.match.angles, 2))
    reflections = {"type": "scatter", "mode": "markers", "name": "reflections", "hoverinfo": "x"}
    marker = {"symbol": "line-ns-open", "color": "#1f77b4", "size": 8}
    return [
        _line(x, one.match.simulated, "simulated, cell adjusted", "#d62728"),
        reflections | {"x": marks.tolist(), "y": [_MARKS] * len(marks), "marker": marker},
        _line(x, difference_below(one, profile)[0], "difference", "grey"),
    ]


def _line(x: Any, y: Any, name: str, colour: str) -> dict[str, Any]:
    line = {"color": colour, "width": 1}
    points = {"x": x.tolist(), "y": np.round(y, 5).tolist()}
    return {"type": "scatter", "mode": "lines", "name": name, "line": line, **points}
