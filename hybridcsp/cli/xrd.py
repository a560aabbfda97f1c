"""Provide the command ``hybridcsp xrd``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console, errors
from hybridcsp.cli.output import AsCsv, AsJson, check_formats, print_table
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hybridcsp.analysis.powder_report import ComparedStructure
    from hybridcsp.powder import PatternSimilarity

#: Most structures that cannot be compared whose reasons are printed.
_SHOWN = 5


@app.command(
    epilog="Examples:\n\n  hybridcsp xrd TiO2 --pattern pattern.xy\n\n"
    "  hybridcsp xrd TiO2 --pattern pattern.xy --wavelength MoKa --plot match.png\n\n"
    "  hybridcsp xrd structures.cif --pattern pattern.csv --axis q --json"
)
def xrd(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Run directory of a search, or a file or folder of structures.")
    ],
    pattern: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Measured pattern: text of two columns, angle and intensity (.xy, .xye, .csv)."
        ),
    ],
    wavelength: Annotated[
        str, typer.Option(metavar="NAME|Å", help="Wavelength: CuKa, CuKa1, MoKa, CoKa, ... or a number in Å.")
    ] = "CuKa",
    axis: Annotated[
        str,
        typer.Option(metavar="NAME", help="First column: two-theta (degrees), q (Å⁻¹) or d (Å)."),
    ] = "two-theta",
    top: Annotated[int, typer.Option(metavar="N", help="Number of structures to show.", min=1)] = 10,
    minima: Annotated[
        int, typer.Option(metavar="N", help="Number of best minima of a search to compare.", min=1)
    ] = 200,
    cell_change: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Largest relative change of the cell's lengths by which it is adjusted to the pattern; 0 for none.",
        ),
    ] = 0.05,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot measured and simulated patterns of the best to a .png, .pdf or .svg file.",
            show_default="none",
        ),
    ] = None,
    plots: Annotated[int, typer.Option(metavar="N", help="Number of structures in the plot.", min=1, max=20)] = 3,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Rank structures by the similarity of their powder pattern to a measured one.

    The cell of each structure is first adjusted to the pattern, so that the error of the potential in the lattice
    parameters does not decide.
    """
    from hybridcsp.analysis.plots import check_picture
    from hybridcsp.analysis.powder_report import (
        comparison_rows,
        comparison_table,
        plot_comparison_with_pattern,
        ranked,
    )
    from hybridcsp.powder import PatternSimilarity, read_pattern, read_wavelength

    check_formats(as_json=as_json, as_csv=as_csv)
    if plot is not None:
        check_picture(plot, "--plot")
    if not path.exists():
        raise InputError("path", path, reason="there is no such file or folder")
    length = read_wavelength(wavelength, "--wavelength")
    measured = read_pattern(pattern, wavelength=length, axis=axis, key="--pattern", axis_key="--axis")
    try:
        similarity = PatternSimilarity(measured, cell_change=cell_change)
    except InputError as error:
        named = {"cell_change": ("--cell-change", cell_change), "pattern": ("--pattern", pattern)}
        raise error.renamed(*named[error.key]) from None
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
        console.print(
            f"Structures compared: {len(best)}. λ = {length:g} Å; peaks are {similarity.profile.peak_width:.2f}° wide.",
            highlight=False,
        )
    for reason in failed[:_SHOWN]:
        errors.print(f"Not compared: {reason}", markup=False, highlight=False, soft_wrap=True)
    if len(failed) > _SHOWN:
        errors.print(f"Not compared: {len(failed) - _SHOWN} more", highlight=False)
    if plot is not None:
        plot_comparison_with_pattern(best[:plots], similarity.profile, plot)
        messages = errors if as_json or as_csv else console
        messages.print(f"Wrote {plot}", markup=False, highlight=False, soft_wrap=True)


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
