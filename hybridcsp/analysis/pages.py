"""Write interactive pages, which need no other file and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hybridcsp.analysis.plots import PICTURES
from hybridcsp.errors import InputError
from hybridcsp.utils.files import atomic_write, make_folder

#: File endings of interactive pages.
PAGES = (".html", ".htm")


def new_figure(output: Path, key: str = "plot") -> Any:
    """Return an empty figure of plotly.

    Parameters
    ----------
    output, key
        File that is to be written and name of the option, for error messages.

    Raises
    ------
    InputError
        If plotly is not installed.
    """
    try:
        from plotly.graph_objects import Figure
    except ImportError as error:
        reason = f"interactive pages need plotly, which is not installed; run pip install plotly ({error})"
        raise InputError(key, output, reason=reason) from None
    return Figure()


def write_page(figure: Any, output: Path, key: str = "plot") -> None:
    """Write a figure of plotly as a page.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    make_folder(output.parent, key=key)
    with atomic_write(output, key=key, follow=True) as stream:
        stream.write(figure.to_html(include_plotlyjs=True, full_html=True))


def is_page(output: Path) -> bool:
    """Return whether the ending of a file is that of an interactive page."""
    return output.suffix.lower() in PAGES


def check_drawing(output: Path, key: str = "plot") -> None:
    """Check that the ending of a file names a picture or a page.

    Raises
    ------
    InputError
        If the ending is unknown.
    """
    if output.suffix.lower() not in (*PICTURES, *PAGES):
        raise InputError(key, output, f"a file whose name ends in {', '.join(PICTURES)} or {PAGES[0]}")
