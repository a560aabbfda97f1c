"""Tabulate the Pareto fronts of a search with objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridcsp.analysis.fronts import FrontMember, Fronts
from hybridcsp.analysis.objective_values import (
    failure_notes,
    failure_rows,
    objective_cells,
    objective_columns,
    objective_rows,
    objective_values,
)
from hybridcsp.analysis.report import source_name, spacegroup_name
from hybridcsp.analysis.text_tables import Column, FittingTable
from hybridcsp.structure.symmetry import spacegroup_symbol


def front_rows(members: Sequence[FrontMember], fronts: Fronts) -> list[dict[str, Any]]:
    """Return the properties of members as plain data; the units of objectives are those of :func:`front_content`."""
    height = "above_hull_mev_per_atom" if fronts.has_hull else "above_best_mev_per_atom"
    return [
        {
            "front": member.front,
            "minimum": member.id,
            "candidate": member.candidate,
            **({"composition": member.composition} if fronts.is_system else {}),
            height: 1000 * member.height,
            **objective_values(fronts.goals.objectives, member.values),
            "enthalpy_ev_per_atom": member.enthalpy_per_atom,
            "spacegroup": member.spacegroup,
            "spacegroup_symbol": None if member.spacegroup is None else spacegroup_symbol(member.spacegroup),
            "prototype": member.prototype or None,
            "source": member.source,
            "operator": member.operator,
            "found_in_relaxation": member.relaxation,
            "found_after_force_calls": member.force_calls,
        }
        for member in members
    ]


def front_content(rows: Sequence[Mapping[str, Any]], fronts: Fronts) -> dict[str, Any]:
    """Return the goals, the counts of minima and the rows of :func:`front_rows` as a JSON object."""
    return {
        "formula": fronts.name,
        "calculator": fronts.calculator,
        "relaxations": fronts.relaxations,
        "force_calls": fronts.force_calls,
        "objectives": objective_rows(fronts.goals.objectives),
        "where": fronts.goals.condition.text or None,
        "number_of_minima": fronts.minima,
        "suspect_minima": fronts.suspects,
        "excluded_by_condition": fronts.excluded,
        "excluded_by_comparison": dict(fronts.unmet),
        "without_value": dict(fronts.missing),
        "failed_values": failure_rows(fronts.failures),
        "number_of_fronts": fronts.number,
        "on_fronts": len(fronts.members),
        "minima": list(rows),
    }


def front_table(members: Sequence[FrontMember], fronts: Fronts, ranks: int, most: int) -> FittingTable:
    """Return members as a table for the terminal.

    Parameters
    ----------
    members
        Members of the first ``ranks`` fronts.
    fronts
        The fronts.
    ranks
        Number of fronts.
    most
        Largest number of lines.
    """
    above = "the convex hull" if fronts.has_hull else "the best of the composition" if fronts.is_system else "the best"
    columns = [
        *([Column(heading="front")] if ranks > 1 else []),
        Column(heading="id", meaning="number of the minimum"),
        *([Column(heading="formula")] if fronts.is_system else []),
        Column(heading="ΔmeV", meaning=f"meV/atom above {above}, as small as possible"),
        *objective_columns(fronts.goals.objectives),
        Column(heading="structure", meaning="space group (tolerance 0.01 Å) and prototype, if known", words=True),
        Column(heading="source", words=True, dispensable=2),
        Column(heading="found", meaning="relaxation that reached it first", dispensable=4),
    ]
    cells = [
        [
            *([str(member.front)] if ranks > 1 else []),
            str(member.id),
            *([member.composition] if fronts.is_system else []),
            f"{1000 * member.height + 0.0:.1f}",
            *objective_cells(fronts.goals.objectives, member.values),
            f"{'' if member.spacegroup is None else spacegroup_name(member.spacegroup)} {member.prototype}".strip(),
            source_name(member.source, member.operator),
            str(member.relaxation),
        ]
        for member in members[:most]
    ]
    notes = []
    if len(members) > most:
        notes.append(f"{len(members) - most} more minima are listed by --json or --csv.")
    if fronts.is_system and not fronts.has_hull:
        notes.append("There is no hull yet, because not every element has a minimum.")
    title = f"Pareto front of {fronts.name}" if ranks == 1 else f"The first {ranks} Pareto fronts of {fronts.name}"
    return FittingTable(title, columns, cells, notes)


def front_summary(fronts: Fronts) -> list[str]:
    """Return sentences on the numbers of minima on fronts and on none, and on values that could not be computed."""
    first = len(fronts.up_to(1))
    lines = [
        f"{_minima(first)} of {fronts.minima} {'is' if first == 1 else 'are'} on the Pareto front; "
        f"{_minima(len(fronts.members))} {'has' if len(fronts.members) == 1 else 'have'} a place on one of "
        f"{fronts.number} front{'s' * (fronts.number != 1)}."
    ]
    if fronts.goals.condition:
        parts = ", ".join(f"{number} without {text}" for text, number in fronts.unmet.items())
        why = f" ({parts})" if len(fronts.unmet) > 1 else ""
        meets = "does" if fronts.excluded == 1 else "do"
        lines.append(f"{_minima(fronts.excluded)} {meets} not meet the condition {fronts.goals.condition.text}{why}.")
    if fronts.missing:
        lines.append(f"Without a value: {', '.join(f'{name} ({n} minima)' for name, n in fronts.missing.items())}.")
    if fronts.suspects:
        lines.append(f"{_minima(fronts.suspects)} left out as probable holes of the potential.")
    return [*lines, *failure_notes(fronts.failures)]


def _minima(number: int) -> str:
    return f"{number} minim{'um' if number == 1 else 'a'}"
