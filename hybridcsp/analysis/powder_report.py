"""Ranking of structures by their similarity to a measured powder pattern: tables and plots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.analysis.plots import check_picture, save_figure
from hybridcsp.analysis.text_tables import Column, FittingTable
from hybridcsp.archive.system_state import SystemState
from hybridcsp.errors import InputError
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.powder import PatternMatch, PatternSimilarity
from hybridcsp.structure.symmetry import spacegroup_symbol, spacegroups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hybridcsp.archive.archive import Archive
    from hybridcsp.powder.pattern import Profile


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedStructure:
    """A structure, its name and its comparison with the pattern.

    Attributes
    ----------
    name
        Name for tables: of a frame in a file, or of a minimum.
    atoms
        The structure before its cell was adjusted.
    match
        Its comparison with the pattern.
    height
        Enthalpy above the best minimum of the search, or above the hull of its chemical system, in eV/atom; ``None``
        for structures from files.
    rank
        Rank of the minimum in the search; ``None`` likewise.
    """

    name: str
    atoms: Atoms
    match: PatternMatch
    height: float | None = None
    rank: int | None = None


def compare_minima(archive: Archive, similarity: PatternSimilarity, most: int) -> Iterator[ComparedStructure | str]:
    """Yield the comparisons of the best minima of a search, or the reason why one cannot be compared.

    Parameters
    ----------
    archive
        The archive of the search.
    similarity
        The measured pattern.
    most
        Largest number of minima, in the order of their ranking.
    """
    state, lowest = archive.state, None
    for rank, minimum in enumerate(archive.stream_final_minima(most), 1):
        final = minimum.final
        lowest = final.enthalpy_per_atom if lowest is None else lowest
        if isinstance(state, SystemState):
            height = state.height(state.basins[minimum.id])
        else:
            height = final.enthalpy_per_atom - lowest
        yield _compared(f"minimum {rank}", final.atoms, similarity, height=height, rank=rank)


def compare_structures(path: Path, similarity: PatternSimilarity) -> Iterator[ComparedStructure | str]:
    """Yield the comparisons of the structures of a file or folder, or the reason why one cannot be compared."""
    for found in read_structures(path):
        if isinstance(found, ReadFailure):
            yield str(found)
        else:
            name = found.name or f"{found.file.name}{f'#{found.number + 1}' if found.number else ''}"
            yield _compared(name, found.atoms, similarity)


def _compared(name: str, atoms: Atoms, similarity: PatternSimilarity, **more: Any) -> ComparedStructure | str:
    try:
        return ComparedStructure(name=name, atoms=atoms, match=similarity.match(atoms), **more)
    except InputError as error:
        return f"{name}: {error}"


def ranked(compared: Iterable[ComparedStructure]) -> list[ComparedStructure]:
    """Return structures in the order of their similarity, highest first."""
    return sorted(compared, key=lambda one: -one.match.similarity)


def comparison_rows(compared: Sequence[ComparedStructure]) -> list[dict[str, Any]]:
    """Return compared structures as plain data with units in the keys, in the given order."""
    rows = []
    for rank, one in enumerate(compared, 1):
        strict, loose = spacegroups(one.atoms)
        cell = one.match.atoms.cell
        rows.append(
            {
                "rank": rank,
                "structure": one.name,
                "formula": one.atoms.get_chemical_formula("metal"),
                "similarity": one.match.similarity,
                "similarity_without_adjustment": one.match.unadjusted,
                "volume_change_percent": 100 * one.match.volume_change,
                "spacegroup": strict,
                "spacegroup_symbol": spacegroup_symbol(strict),
                "spacegroup_at_0.1_a": loose,
                "adjusted_primitive_cell": [round(float(value), 5) for value in cell.cellpar()],
                "rank_in_search": one.rank,
                "height_mev_per_atom": None if one.height is None else 1000 * one.height,
            }
        )
    return rows


def comparison_table(compared: Sequence[ComparedStructure]) -> FittingTable:
    """Return compared structures as a table for the terminal, in the given order."""
    columns = [
        Column(heading="rank"),
        Column(heading="similarity", meaning="to the measured pattern, from 0 to 1, with the adjusted cell"),
        Column(heading="as is", meaning="similarity without adjustment of the cell", dispensable=1),
        Column(heading="ΔV %", meaning="change of the volume by the adjustment", dispensable=2),
        Column(heading="structure", words=True),
        Column(heading="formula", words=True),
        Column(heading="space group", meaning="tolerance 0.01 Å; after ≈: 0.1 Å, if different", words=True),
    ]
    searched = any(one.height is not None for one in compared)
    if searched:
        columns.append(Column(heading="ΔmeV", meaning="meV/atom above the best, or above the hull of a system"))
    cells = []
    for row in comparison_rows(compared):
        loose = row["spacegroup_at_0.1_a"]
        group = row["spacegroup_symbol"]
        cells.append(
            [
                str(row["rank"]),
                f"{row['similarity']:.3f}",
                f"{row['similarity_without_adjustment']:.3f}",
                f"{row['volume_change_percent']:+.1f}",
                row["structure"],
                row["formula"],
                group if loose == row["spacegroup"] else f"{group} ≈ {spacegroup_symbol(loose)}",
                *([f"{row['height_mev_per_atom']:.1f}"] if searched else []),
            ]
        )
    return FittingTable("similarity to the powder pattern", columns, cells)


def plot_comparison_with_pattern(compared: Sequence[ComparedStructure], profile: Profile, output: Path) -> None:
    """Plot the simulated patterns of structures over the measured one, with the differences, to a file.

    Parameters
    ----------
    compared
        Structures, one panel each, from top to bottom.
    profile
        The measured pattern without its background.
    output
        File to write: PNG, PDF or SVG by its ending.

    Raises
    ------
    InputError
        If the file cannot be written or has an unknown ending.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(output)
    figure = Figure(figsize=(10, 1 + 3.0 * len(compared)), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Sequence[Axes] = figure.subplots(len(compared), 1, sharex=True, squeeze=False)[:, 0].tolist()
    for rank, (axes, one) in enumerate(zip(panels, compared, strict=True), 1):
        _draw(axes, one, profile)
        axes.set_title(title_of(rank, one), fontsize="small", loc="left", parse_math=False)
    panels[-1].set_xlabel(f"2θ (degrees, λ = {profile.wavelength:g} Å)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    save_figure(figure, output)


def title_of(rank: int, one: ComparedStructure) -> str:
    """Return the title of the picture of a structure."""
    group = spacegroup_symbol(spacegroups(one.atoms)[0])
    height = "" if one.height is None else f", {1000 * one.height:.1f} meV/atom"
    formula = one.atoms.get_chemical_formula("metal")
    return f"{rank}: {one.name}, {formula}, {group}{height}, similarity {one.match.similarity:.3f}"


def difference_below(one: ComparedStructure, profile: Profile) -> tuple[NDArray[np.float64], float]:
    """Return the measured minus the simulated pattern, moved below both, and the distance by which it was moved."""
    difference = profile.intensity - one.match.simulated
    shift = 0.16 + max(0.0, float(difference.max()))
    return difference - shift, shift


def _draw(axes: Axes, one: ComparedStructure, profile: Profile) -> None:
    """Draw the measured and simulated pattern, marks of the reflections, and the difference below them."""
    x, measured, simulated = profile.two_theta, profile.intensity, one.match.simulated
    axes.plot(x, measured, color="black", linewidth=0.8, label="measured, without background")
    axes.plot(x, simulated, color="tab:red", linewidth=0.8, alpha=0.85, label="simulated, cell adjusted")
    marks = np.unique(np.round(one.match.angles, 2))
    axes.plot(marks, np.full(len(marks), -0.07), "|", color="tab:blue", markersize=6, label="reflections")
    difference, shift = difference_below(one, profile)
    axes.plot(x, difference, color="grey", linewidth=0.7, label="difference")
    axes.axhline(-shift, color="grey", linewidth=0.4)
    axes.set(xlim=(x[0], x[-1]), yticks=[0, 0.5, 1], ylabel="intensity")
