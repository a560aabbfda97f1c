"""Provide the command ``hybridcsp xrd``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, check_formats, print_table
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hybridcsp.analysis.powder_report import ComparedStructure
    from hybridcsp.powder import PatternSimilarity

#: Most structures that cannot be compared whose reasons are printed.
_SHOWN = 5


@app.command(
    epilog="Examples:\n\n  hybridcsp xrd TiO2 --plot match.html     for a search with --xrd\n\n"
    "  hybridcsp xrd TiO2 --pattern pattern.xy\n\n"
    "  hybridcsp xrd TiO2 --pattern pattern.xy --wavelength MoKa --plot match.png\n\n"
    "  hybridcsp xrd structures.cif --pattern pattern.csv --axis q --json"
)
def xrd(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Run directory of a search, or a file or folder of structures.")
    ],
    pattern: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measured pattern: text of two columns, angle and intensity (.xy, .xye, .csv).",
            show_default="that of the search",
        ),
    ] = None,
    wavelength: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|Å",
            help="Wavelength: CuKa, CuKa1, MoKa, CoKa, ... or a number in Å.",
            show_default="CuKa, or that of the search",
        ),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="First column: two-theta (degrees), q (Å⁻¹) or d (Å).",
            show_default="two-theta, or that of the search",
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", help="Number of structures to show.", min=1)] = 10,
    minima: Annotated[
        int, typer.Option(metavar="N", help="Number of best minima of a search to compare.", min=1)
    ] = 200,
    cell_change: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest relative change of the cell's lengths by which it is adjusted to the pattern; 0 for none.",
            show_default="0.05, or that of the search",
        ),
    ] = None,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Plot measured and simulated patterns of the best to a .png, .pdf or .svg file, or an interactive "
            ".html page. Repeatable.",
            show_default="none",
        ),
    ] = None,
    plots: Annotated[int, typer.Option(metavar="N", help="Number of structures in the plot.", min=1, max=20)] = 3,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Rank structures by the similarity of their powder pattern to a measured one.

    The cell of each structure is first adjusted to the pattern, so that the error of the potential in the lattice
    parameters does not decide. A search with a pattern (hybridcsp search --xrd) is compared with it.
    """
    from hybridcsp.analysis.pages import check_drawing
    from hybridcsp.analysis.powder_report import comparison_rows, comparison_table, ranked

    check_formats(as_json=as_json, as_csv=as_csv)
    for file in plot or ():
        check_drawing(file, "--plot")
    if not path.exists():
        raise InputError("path", path, reason="there is no such file or folder")
    similarity = _similarity(path, pattern, {"wavelength": wavelength, "axis": axis, "cell_change": cell_change})
    compared: list[ComparedStructure] = []
    failed: list[str] = []
    for found in _compare(path, similarity, minima):
        if isinstance(found, str):
            failed.append(found)
        else:
            compared.append(found)
    if not compared:
        reason = f"none of its structures can be compared; the first: {failed[0]}" if failed else "it has no structures"
        raise InputError("path", path, reason=reason)
    best = ranked(compared)
    rows = comparison_rows(best[:top])
    if not print_table(rows, as_json=as_json, as_csv=as_csv):
        console.print(comparison_table(best[:top]))
        profile = similarity.profile
        about = f"λ = {profile.wavelength:g} Å; peaks are {profile.peak_width:.2f}° wide."
        console.print(f"Structures compared: {len(best)}. {about}", highlight=False)
    for reason in failed[:_SHOWN]:
        errors.print(f"Not compared: {reason}", markup=False, highlight=False, soft_wrap=True)
    if len(failed) > _SHOWN:
        errors.print(f"Not compared: {len(failed) - _SHOWN} more", highlight=False)
    messages = errors if as_json or as_csv else console
    for file in plot or ():
        _draw(best[:plots], similarity, file)
        messages.print(f"Wrote {file}", markup=False, highlight=False, soft_wrap=True)


def _similarity(path: Path, pattern: Path | None, options: Mapping[str, Any]) -> PatternSimilarity:
    """Return the similarity to the pattern that is given, or else to that of the search in a run directory.

    Parameters
    ----------
    path
        The run directory or the structures.
    pattern
        The pattern that the user has given, if any.
    options
        Wavelength, axis and change of the cell as the user has given them; ``None`` for the default, or for that of the
        search.
    """
    from hybridcsp.archive.archive import Archive, is_begun
    from hybridcsp.objectives import MeasuredPattern
    from hybridcsp.objectives.powder import digest_of_pattern
    from hybridcsp.powder import PatternSimilarity, read_pattern, read_wavelength

    guide, digest = MeasuredPattern(), ""
    if path.is_dir() and is_begun(path):
        with Archive(path) as archive:
            settings = archive.state.settings[-1] if archive.state.settings else {}
            guide, digest = MeasuredPattern.of_record(settings), MeasuredPattern.digest_of_record(settings)
    given = {name: value for name, value in options.items() if value is not None}
    if pattern is None and guide.pattern is None:
        reason = "it is needed for structures, and for a search without --xrd: the file of a measured powder pattern"
        raise InputError("--pattern", None, reason=reason)
    if pattern is None:
        if digest and digest_of_pattern(str(guide.pattern)) not in ("", digest):
            reason = "it has changed since the search began; name it with --pattern to compare with its present content"
            raise InputError("xrd", guide.pattern, reason=reason)
        chosen = {name: given.get(name, getattr(guide, name)) for name in options}
    else:
        chosen = {name: given.get(name, getattr(MeasuredPattern, name)) for name in options}
    file = pattern or Path(str(guide.pattern))
    length = read_wavelength(str(chosen["wavelength"]), "--wavelength")
    measured = read_pattern(file, wavelength=length, axis=chosen["axis"], key="--pattern", axis_key="--axis")
    try:
        return PatternSimilarity(measured, cell_change=chosen["cell_change"])
    except InputError as error:
        named = {"cell_change": ("--cell-change", chosen["cell_change"]), "pattern": ("--pattern", file)}
        raise error.renamed(*named[error.key]) from None


def _draw(best: Sequence[ComparedStructure], similarity: PatternSimilarity, file: Path) -> None:
    """Draw structures and the pattern to a picture or page."""
    from hybridcsp.analysis.pages import is_page
    from hybridcsp.analysis.powder_page import write_comparison_page
    from hybridcsp.analysis.powder_report import plot_comparison_with_pattern

    draw = write_comparison_page if is_page(file) else plot_comparison_with_pattern
    draw(best, similarity.profile, file)


def _compare(path: Path, similarity: PatternSimilarity, most: int) -> Iterator[ComparedStructure | str]:
    """Yield the comparisons of a run directory's minima or of the structures of a file or folder."""
    from hybridcsp.analysis.powder_report import compare_minima, compare_structures
    from hybridcsp.archive.archive import Archive, is_begun
    from hybridcsp.cli.progress import counter

    with counter("structures compared") as count:
        if path.is_dir() and is_begun(path):
            with Archive(path) as archive:
                for number, found in enumerate(compare_minima(archive, similarity, most), 1):
                    yield found
                    count(number)
        else:
            for number, found in enumerate(compare_structures(path, similarity), 1):
                yield found
                count(number)
