"""Tabulate the minima of a search, with the rankings by its follow-up calculators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridcsp.analysis.follow_ups import (
    HEIGHT_MARK,
    STRUCTURE_MARK,
    calculator_names,
    disagreement,
    follow_up_values,
    levels_with_results,
    marks_of,
)
from hybridcsp.analysis.objective_values import failure_notes, objective_cells, objective_columns, objective_values
from hybridcsp.analysis.predicted_values import PredictedValues
from hybridcsp.analysis.report import source_name, spacegroup_name
from hybridcsp.analysis.text_tables import Column, FittingTable, heading_lines
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.records import REFINE
from hybridcsp.prototypes.names import prototype_name
from hybridcsp.structure.symmetry import spacegroup_symbol, spacegroups

_FAMILY = "rank of the best of its family: minima with small distortions between them, or with the same layers"

_SUSPECT = (
    "?: probably a hole of the potential and not a crystal; it lies far below all others, with atoms closer than in "
    "any of them. The search makes no use of it."
)

_NONE = PredictedValues()

_NOT_REFINED = "*: not refined; energy and space group are those of a quick relaxation."


def minima_rows(
    minima: Sequence[Minimum], archive: Archive, predicted: PredictedValues = _NONE
) -> list[dict[str, Any]]:
    """Return the properties of minima as plain data with units in the keys.

    Energies and structures are those of the search's own calculator. If follow-up calculators have results, those of
    the k-th follow under keys that begin with ``follow_up_k_``. ``family`` is the rank of the best minimum of the same
    niche; see :mod:`hybridcsp.similarity.niches`. Values of objectives, ``objective_NAME``, are of the search's own
    calculator, and ``None`` if they could not be computed.

    Parameters
    ----------
    minima
        Minima in the order of their ranks, best first.
    archive
        Archive that holds them.
    predicted
        Predictors whose values for the final structures are added, see :meth:`PredictedValues.of`.
    """
    threshold = disagreement(archive)
    specs = [level.spec for level in levels_with_results(archive)] if _are_followed_up(minima) else []
    rows = []
    families: dict[int, int] = {}  # ranks of the best of each niche
    predictions = predicted.of([minimum.final.atoms for minimum in minima])
    for rank, (minimum, prediction) in enumerate(zip(minima, predictions, strict=True), start=1):
        best = minimum.best
        own = spacegroups(best.atoms) if minimum.follow_ups else (minimum.spacegroup, minimum.spacegroup_loose)
        row = {
            "rank": rank,
            "candidate": minimum.found_by.id,
            "enthalpy_ev_per_atom": minimum.best.enthalpy_per_atom,
            **_height(minimum, archive),
            **objective_values(archive.state.goals.objectives, minimum.objectives),
            **prediction,
            "energy_ev_per_atom": best.evaluation.energy / len(best.atoms),
            "volume_a3_per_atom": best.atoms.get_volume() / len(best.atoms),
            "spacegroup": own[0],
            "spacegroup_symbol": spacegroup_symbol(own[0]),
            "spacegroup_at_0.1_a": own[1],
            "prototype": prototype_name(best.atoms) or None,
            "formula": best.atoms.get_chemical_formula("metal"),
            "formula_units": archive.of_candidate(minimum.found_by.id).problem.units_of(best.atoms.numbers),
            "source": minimum.found_by.source,
            "operator": minimum.found_by.operator,
            "found_in_relaxation": minimum.first_relaxation,
            "found_after_force_calls": minimum.first_force_calls,
            "times_found": minimum.multiplicity,
            "suspect": minimum.suspect,
            "refined": best.level == REFINE,
            "family": families.setdefault(minimum.niche, rank),
            "calculator": best.evaluation.calculator,
        }
        if specs:
            row |= {
                "search_rank": minimum.search_rank,
                "merged_minima": len(minimum.merged),
                "disagrees": minimum.disagrees(threshold),
            }
        for number, spec in enumerate(specs, start=1):
            row |= follow_up_values(minimum, number, spec)
        rows.append(row)
    return rows


def _height(minimum: Minimum, archive: Archive) -> dict[str, Any]:
    """Return the height of a minimum, above the best or in a chemical system above the hull, with its name."""
    state = archive.state
    if isinstance(state, SystemState):
        return {
            "composition": minimum.composition,
            "above_hull_mev_per_atom": 1000 * state.height(state.basins[minimum.id]),
            "known_phase": minimum.is_known_phase,
        }
    lowest = archive.best_enthalpy_per_atom or 0.0
    return {"above_best_mev_per_atom": 1000 * (minimum.best.enthalpy_per_atom - lowest)}


def minima_table(minima: Sequence[Minimum], archive: Archive, predicted: PredictedValues = _NONE) -> FittingTable:
    """Return minima as a table for the terminal, in the given order (best first).

    If follow-up calculators have results, each calculator has a column of heights above its lowest minimum, and all but
    the last, whose ranking counts, have one of ranks. The values of predictors have a column each.
    """
    problem, rows = archive.system or archive.problem, minima_rows(minima, archive, predicted)
    quantity = "enthalpy" if problem.pressure_gpa else "energy"
    if isinstance(archive.state, SystemState):
        columns, cells, notes = _heights_above_hull(rows, archive.state, quantity)
    elif _are_followed_up(minima):
        columns, cells, notes = _rankings(minima, rows, archive, quantity)
    else:
        columns = [
            Column(heading="rank"),
            Column(heading="eV/atom", meaning=quantity),
            Column(heading="ΔmeV", meaning="meV/atom above the best"),
        ]
        cells = [
            [str(row["rank"]), _number(row["enthalpy_ev_per_atom"], 4), _number(row["above_best_mev_per_atom"], 1)]
            for row in rows
        ]
        notes = []
    objectives = archive.state.goals.objectives
    columns += objective_columns(objectives) + predicted.columns()
    columns += [
        Column(
            heading="structure",
            meaning="space group (tolerance 0.01 Å; after ≈: 0.1 Å, if different) and prototype, if known",
            words=True,
        ),
        Column(heading="Å³", meaning="volume per atom", dispensable=2),
        Column(heading="Z", meaning="formula units in the primitive cell", dispensable=1),
        Column(heading="source", words=True, dispensable=4),
        Column(heading="found", meaning="first relaxation that reached it", dispensable=5),
        Column(heading="times", meaning="number of relaxations that reached it", dispensable=3),
    ]
    if has_families := any(row["family"] != row["rank"] for row in rows):
        columns.append(Column(heading="like", meaning=_FAMILY, dispensable=4))
    numbers = {level.spec: number for number, level in enumerate(levels_with_results(archive), start=1)}
    for line, row, minimum in zip(cells, rows, minima, strict=True):
        final = _prefix(numbers[minimum.follow_ups[-1].spec] if minimum.follow_ups else 0)
        line += [
            *objective_cells(objectives, minimum.objectives),
            *predicted.cells(row),
            _structure(row, final),
            _number(row[f"{final}volume_a3_per_atom"], 2),
            str(row["formula_units"]),
            source_name(row["source"], row["operator"]),
            str(row["found_in_relaxation"]),
            str(row["times_found"]),
        ]
        if has_families:
            line.append("" if row["family"] == row["rank"] else str(row["family"]))
    if not all(row["refined"] or minimum.follow_ups for row, minimum in zip(rows, minima, strict=True)):
        notes.append(_NOT_REFINED)
    notes += failure_notes(archive.state.objective_failures) + predicted.notes(rows)
    if any(row["suspect"] for row in rows):
        notes.append(_SUSPECT)
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    return FittingTable(f"Minima of {problem.formula}{pressure}", columns, cells, notes)


def _heights_above_hull(
    rows: Sequence[Mapping[str, Any]], state: SystemState, quantity: str
) -> tuple[list[Column], list[list[str]], list[str]]:
    """Return columns with the compositions and heights of minima of a chemical system, their cells, and notes."""
    columns = [
        Column(heading="rank"),
        Column(heading="composition"),
        Column(heading="ΔmeV", meaning="meV/atom above the convex hull of the minima of this search"),
        Column(heading="eV/atom", meaning=quantity, dispensable=6),
    ]
    cells = [
        [
            str(row["rank"]),
            row["composition"],
            _number(row["above_hull_mev_per_atom"], 1),
            _number(row["enthalpy_ev_per_atom"], 4),
        ]
        for row in rows
    ]
    if state.references:
        columns.append(Column(heading="known", meaning="known phase that was given, or the same as one"))
        for line, row in zip(cells, rows, strict=True):
            line.append("known" if row["known_phase"] else "")
    if state.hull.is_complete:
        return columns, cells, []
    missing = ", ".join(element for element in state.system.elements if not state.part(element).number_of_minima)
    return columns, cells, [f"There is no hull yet, because {missing} has no minimum; ΔmeV is above the best of each."]


def _rankings(
    minima: Sequence[Minimum], rows: Sequence[Mapping[str, Any]], archive: Archive, quantity: str
) -> tuple[list[Column], list[list[str]], list[str]]:
    """Return columns with the heights and ranks by each calculator, their cells, and notes that explain them."""
    names, threshold = calculator_names(archive), disagreement(archive)
    search, last = names[0], names[-1]
    columns = [Column(heading="rank"), Column(heading="eV/atom", meaning=f"{quantity} by {last}", dispensable=6)]
    cells = [[str(row["rank"]), _number(row[f"{_prefix(len(names) - 1)}enthalpy_ev_per_atom"], 4)] for row in rows]
    for number, name in reversed(list(enumerate(names))):
        shown = [("ΔmeV", "above_best_mev_per_atom", 1, 0)]
        if name != last:
            shown.append(("rank", "rank" if number else "search_rank", 0, 7 if number else 0))
        for heading, key, digits, dispensable in shown:
            columns.append(Column(heading=heading_lines([heading, name]), dispensable=dispensable))
            for line, row in zip(cells, rows, strict=True):
                line.append(_number(row[f"{_prefix(number)}{key}"], digits))
    notes = [f"ΔmeV: meV/atom above the lowest minimum of the same calculator. The ranking that counts is by {last}."]
    if any(line[1] == "-" for line in cells):
        notes.append(f"Minima without a result of {last} (-) follow in the order of the calculator before it.")
    marks = [marks_of(minimum, threshold) for minimum in minima]
    if any(marks):
        columns.append(Column(heading="", words=True))
        for line, mark in zip(cells, marks, strict=True):
            line.append(mark)
    if any(HEIGHT_MARK in mark for mark in marks):
        other = last if len(names) == 2 else "a follow-up calculator"
        notes.append(
            f"{HEIGHT_MARK}: the calculators disagree; ΔmeV by {search} and by {other} differ by more than "
            f"{1000 * threshold:g}."
        )
    if any(STRUCTURE_MARK in mark for mark in marks):
        notes.append(f"{STRUCTURE_MARK}: the follow-up relaxation ended in another structure, which is the one shown.")
    if merged := sum(len(minimum.merged) for minimum in minima):
        more = f"{merged} more minim{'um' if merged == 1 else 'a'} of the search"
        notes.append(f"{more} became the same as one of these in follow-up relaxations.")
    return columns, cells, notes


def _are_followed_up(minima: Sequence[Minimum]) -> bool:
    return any(minimum.follow_ups for minimum in minima)


def _prefix(number: int) -> str:
    """Return the beginning of the keys of the results of a calculator; 0 is the calculator of the search."""
    return f"follow_up_{number}_" if number else ""


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _structure(row: Mapping[str, Any], prefix: str) -> str:
    strict, loose, prototype = (row[prefix + key] for key in ("spacegroup", "spacegroup_at_0.1_a", "prototype"))
    near = "" if loose == strict else f" ≈ {spacegroup_name(loose)}"
    marks = f"{'? ' if row['suspect'] else ''}{'' if row['refined'] or prefix else '* '}"
    return f"{marks}{spacegroup_name(strict)}{near} {prototype or ''}".rstrip()
