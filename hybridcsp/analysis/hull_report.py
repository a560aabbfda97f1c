"""Tabulate the phases on and near the convex hull of a chemical system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridcsp.analysis.phases import Phase, Phases
from hybridcsp.analysis.predicted_values import PredictedValues
from hybridcsp.analysis.report import source_name, spacegroup_name
from hybridcsp.analysis.text_tables import Column, FittingTable
from hybridcsp.structure.symmetry import spacegroup_symbol

_NOTE = (
    "All energies are from {calculator}. Corrections of data bases, such as those of the Materials Project, are not "
    "applied; do not compare formation energies with theirs."
)


def phase_rows(selected: Sequence[Phase], phases: Phases) -> list[dict[str, Any]]:
    """Return the properties of phases as plain data with units in the keys.

    Parameters
    ----------
    selected
        Phases to describe.
    phases
        All phases of the search, which the hull consists of.
    """
    rows = []
    for phase in selected:
        stable_by, known = phases.stable_by(phase), phases.height_above_known(phase)
        row = {
            "formula": phase.formula,
            "spacegroup": phase.spacegroup,
            "spacegroup_symbol": None if phase.spacegroup is None else spacegroup_symbol(phase.spacegroup),
            "prototype": phase.prototype or None,
            "enthalpy_ev_per_atom": phase.enthalpy_per_atom,
            "formation_enthalpy_ev_per_atom": phases.formation(phase),
            "above_hull_mev_per_atom": 1000 * phases.height(phase),
            "on_hull": phases.on_hull(phase),
            "stable_by_mev_per_atom": None if stable_by is None else 1000 * stable_by,
            "decomposition": phases.hull.decomposition(phase.formula),
            "minimum": phase.id,
            "candidate": phase.candidate,
            "source": phase.source,
            "operator": phase.operator,
            "found_in_relaxation": phase.relaxation,
            "found_after_force_calls": phase.force_calls,
        }
        if phases.known_hull is not None:
            row |= {
                "known_phase": phase.known,
                "new": phases.is_new(phase),
                "above_known_hull_mev_per_atom": None if known is None else 1000 * known,
            }
        rows.append(row)
    return rows


def phase_annotations(phase: Phase, phases: Phases) -> dict[str, Any]:
    """Return what structure files say about a phase besides its height: formation (eV/atom) and decomposition."""
    return {
        "formation_enthalpy_per_atom": phases.formation(phase),
        "decomposition": in_words(phases.hull.decomposition(phase.formula)),
    }


def phase_table(
    rows: Sequence[Mapping[str, Any]],
    phases: Phases,
    window: float,
    most: int,
    predicted: PredictedValues | None = None,
) -> FittingTable:
    """Return rows of :func:`phase_rows` as a table for the terminal.

    Parameters
    ----------
    rows
        The rows.
    phases
        All phases of the search.
    window
        Height up to which phases were selected, in eV/atom.
    most
        Largest number of lines.
    predicted
        Predictors whose values the rows have, see :meth:`PredictedValues.of`.
    """
    predicted = predicted or PredictedValues()
    columns = [
        Column(heading="formula"),
        Column(heading="structure", meaning="space group (tolerance 0.01 Å) and prototype, if known", words=True),
        Column(heading="ΔHmeV", meaning=f"meV/atom of formation from the elements ({phases.quantity})"),
        Column(heading="ΔmeV", meaning="meV/atom above the hull"),
        *predicted.columns(),
        Column(
            heading="decomposes to",
            meaning="phases on the hull at this composition, with their fractions of the atoms",
            words=True,
            dispensable=2,
        ),
        Column(heading="by", meaning="meV/atom below the hull of the other compositions", dispensable=3),
        Column(heading="source", words=True, dispensable=4),
        Column(heading="found", meaning="relaxation that reached it first", dispensable=5),
        Column(heading="eV/atom", meaning=phases.quantity, dispensable=6),
    ]
    place = 5 + len(predicted.predictors)
    if has_known := phases.known_hull is not None:
        columns[place:place] = [
            Column(heading="", meaning="", words=True),
            Column(heading="Δknown", meaning="meV/atom above the hull of the known phases", dispensable=1),
        ]
    cells = [_cells(row, has_known=has_known) for row in rows[:most]]
    for line, row in zip(cells, rows, strict=False):
        line[4:4] = predicted.cells(row)
    notes = [_NOTE.format(calculator=phases.calculator or "one calculator"), *predicted.notes(rows[:most])]
    if has_known:
        notes.insert(0, "new: none of the known phases that were given; not given: an element without a known phase.")
    if len(rows) > most:
        notes.insert(0, f"{len(rows) - most} more phases are listed by --json, --csv or a smaller --window.")
    title = f"Phases of {phases.name} up to {1000 * window:g} meV/atom above the hull"
    return FittingTable(title, columns, cells, notes)


# Words for whether a phase is new; nothing is said about elements without a known phase.
_NOVELTY = {True: "new", False: "known", None: "not given"}


def _cells(row: Mapping[str, Any], *, has_known: bool) -> list[str]:
    group = "" if row["spacegroup"] is None else spacegroup_name(row["spacegroup"])
    parts = "" if row["on_hull"] else in_words(row["decomposition"])
    cells = [
        str(row["formula"]),
        f"{group} {row['prototype'] or ''}".strip(),
        _number(1000 * row["formation_enthalpy_ev_per_atom"]),
        "on hull" if row["on_hull"] else _number(row["above_hull_mev_per_atom"]),
        parts,
        _number(row["stable_by_mev_per_atom"]),
        source_name(row["source"], row["operator"]),
        str(row["found_in_relaxation"]),
        f"{row['enthalpy_ev_per_atom']:.4f}",
    ]
    if has_known:
        cells[5:5] = [_NOVELTY[row["new"]], _number(row["above_known_hull_mev_per_atom"])]
    return cells


def in_words(decomposition: Mapping[str, float]) -> str:
    """Return a decomposition for display: ``"0.40 Cu + 0.60 CuAu"``, or one formula alone."""
    if len(decomposition) == 1:
        return next(iter(decomposition))
    return " + ".join(f"{fraction:.2f} {formula}" for formula, fraction in decomposition.items())


def hull_summary(phases: Phases) -> list[str]:
    """Return sentences on the phases on the hull, and on what is new against the known phases."""
    stable = [phases.lowest[formula] for formula in phases.hull.stable]
    compounds = [phase.formula for phase in stable if phase.formula not in phases.elements]
    lines = [
        f"On the hull: {', '.join(compounds)} and the elements."
        if compounds
        else "No compound is on the hull: at every composition searched the elements are lower."
    ]
    known = phases.known_hull
    if known is None:
        return lines
    heights = {phase.id: phases.height_above_known(phase) or 0.0 for phase in stable}
    lower = [phase for phase in stable if heights[phase.id] < 0]
    names = ", ".join(f"{one.formula} by {_number(-1000 * heights[one.id])} meV/atom" for one in lower)
    lines.append(f"Below the hull of the known phases: {names}." if lower else "No phase is below the known ones.")
    left = [
        phase
        for phase in phases.phases
        if phase.known and phases.height_above_known(phase) == 0 and phase.formula in known.stable
    ]
    above = [(phase, 1000 * phases.height(phase)) for phase in left if phases.height(phase) > 0]
    if above:
        names = ", ".join(f"{phase.formula} by {_number(height)} meV/atom" for phase, height in above)
        lines.append(f"Known phases that were on their hull and are above the one found: {names}.")
    return lines


def snapshot_rows(snapshots: Sequence[Phases]) -> list[dict[str, Any]]:
    """Return the hull at several moments of a search, as plain data with units in the keys.

    ``mean_above_final_mev_per_atom`` is the mean height of the hull above the last one, over all compositions of the
    last one.
    """
    last = snapshots[-1]
    final = {formula: last.hull.energy(formula) or 0.0 for formula in last.lowest}
    rows = []
    for one in snapshots:
        heights = [(one.hull.energy(formula) or 0.0) - energy for formula, energy in final.items()]
        rows.append(
            {
                "relaxations": one.relaxations,
                "force_calls": one.force_calls,
                "phases": len(one.phases),
                "on_hull": list(one.hull.stable),
                "mean_above_final_mev_per_atom": max(0.0, 1000 * sum(heights) / len(heights)),
            }
        )
    return rows


def snapshot_table(rows: Sequence[Mapping[str, Any]]) -> FittingTable:
    """Return rows of :func:`snapshot_rows` as a table for the terminal."""
    columns = [
        Column(heading="relaxations"),
        Column(heading="force calls", dispensable=1),
        Column(heading="phases", meaning="all minima until then", dispensable=2),
        Column(heading="ΔmeV", meaning="meV/atom from the last hull up to this one, averaged over all compositions"),
        Column(heading="on the hull", words=True),
    ]
    cells = [
        [
            str(row["relaxations"]),
            str(row["force_calls"]),
            str(row["phases"]),
            _number(row["mean_above_final_mev_per_atom"]),
            " ".join(row["on_hull"]),
        ]
        for row in rows
    ]
    return FittingTable("The hull during the search", columns, cells, ["Enthalpies are those at the end."])


def _number(value: float | None) -> str:
    return "" if value is None else f"{round(value, 1) + 0.0:.1f}"  # without a negative zero
