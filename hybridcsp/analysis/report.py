"""Tabulate the minima of a search and the activity of its sources."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hybridcsp.analysis.text_tables import Column, FittingTable
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.events import ModelUpdated
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import FailureReason
from hybridcsp.prototypes.names import prototype_name
from hybridcsp.structure.symmetry import spacegroup_symbol

# Failure reasons that need the original error message as an explanation.
_UNCLEAR = (
    FailureReason.CALCULATOR,
    FailureReason.WRONG_RESULTS,
    FailureReason.NON_FINITE,
    FailureReason.WORKER_DIED,
)

#: Longest error message that is printed, in characters.
_LONGEST = 200


def minima_rows(minima: Sequence[Minimum], problem: Problem) -> list[dict[str, Any]]:
    """Return the properties of minima, in the given order (best first), as plain data with units in the keys."""
    return [
        {
            "rank": rank,
            "candidate": minimum.found_by.id,
            "enthalpy_ev_per_atom": minimum.enthalpy_per_atom,
            "above_best_mev_per_atom": 1000 * (minimum.enthalpy_per_atom - minima[0].enthalpy_per_atom),
            "energy_ev_per_atom": minimum.best.evaluation.energy / len(minimum.best.atoms),
            "volume_a3_per_atom": minimum.best.atoms.get_volume() / len(minimum.best.atoms),
            "spacegroup": minimum.spacegroup,
            "spacegroup_symbol": spacegroup_symbol(minimum.spacegroup),
            "spacegroup_at_0.1_a": minimum.spacegroup_loose,
            "prototype": prototype_name(minimum.best.atoms) or None,
            "formula": minimum.best.atoms.get_chemical_formula("metal"),
            "formula_units": problem.units_of(minimum.best.atoms.numbers),
            "source": minimum.found_by.source,
            "operator": minimum.found_by.operator,
            "found_in_relaxation": minimum.first_relaxation,
            "found_after_force_calls": minimum.first_force_calls,
            "times_found": minimum.multiplicity,
            "calculator": minimum.best.evaluation.calculator,
        }
        for rank, minimum in enumerate(minima, start=1)
    ]


def minima_table(minima: Sequence[Minimum], problem: Problem) -> FittingTable:
    """Return minima as a table for the terminal, in the given order (best first)."""
    columns = [
        Column(heading="rank"),
        Column(heading="eV/atom", meaning="enthalpy" if problem.pressure_gpa else "energy"),
        Column(heading="ΔmeV", meaning="meV/atom above the best"),
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
    rows = [
        [
            str(row["rank"]),
            f"{row['enthalpy_ev_per_atom']:.4f}",
            f"{row['above_best_mev_per_atom']:.1f}",
            _structure(row),
            f"{row['volume_a3_per_atom']:.2f}",
            str(row["formula_units"]),
            _name(row["source"], row["operator"]),
            str(row["found_in_relaxation"]),
            str(row["times_found"]),
        ]
        for row in minima_rows(minima, problem)
    ]
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    return FittingTable(f"Minima of {problem.formula}{pressure}", columns, rows)


def sources_rows(archive: Archive) -> list[dict[str, Any]]:
    """Return the activity of each operator of each source, as plain data with units in the keys."""
    total = sum(tally.cost.force_calls for tally in archive.state.tallies.values())
    return [
        {
            "source": source,
            "operator": operator,
            "proposed": tally.proposed,
            "rejected": tally.rejected.total(),
            "relaxed": tally.relaxed,
            "failed": tally.failed.total(),
            "unconverged": tally.unconverged,
            "minima_reached_first": tally.first_reached,
            "best_enthalpy_ev_per_atom": tally.best,
            "force_calls": tally.cost.force_calls,
            "share_of_force_calls": tally.cost.force_calls / total if total else None,
            "seconds": tally.cost.seconds,
        }
        for (source, operator), tally in archive.state.tallies.items()
    ]


def sources_table(archive: Archive) -> FittingTable:
    """Return the activity of each operator of each source as a table for the terminal."""
    columns = [
        Column(heading="source", words=True),
        Column(heading="prop.", meaning="proposed candidates", dispensable=3),
        Column(heading="rej.", meaning="rejected before relaxation", dispensable=4),
        Column(heading="relaxed"),
        Column(heading="failed", dispensable=2),
        Column(heading="new", meaning="minima that it found first"),
        Column(heading="best", meaning="lowest enthalpy in eV/atom", dispensable=1),
        Column(heading="f.calls", meaning="force calls", dispensable=7),
        Column(heading="share", meaning="share of all force calls", dispensable=5),
        Column(heading="time", meaning="computing time", dispensable=6),
    ]
    rows = [
        [
            _name(row["source"], row["operator"]),
            str(row["proposed"]),
            str(row["rejected"]),
            str(row["relaxed"]),
            str(row["failed"]),
            str(row["minima_reached_first"]),
            "" if row["best_enthalpy_ev_per_atom"] is None else f"{row['best_enthalpy_ev_per_atom']:.4f}",
            str(row["force_calls"]),
            "" if row["share_of_force_calls"] is None else f"{row['share_of_force_calls']:.0%}",
            duration(row["seconds"]),
        ]
        for row in sources_rows(archive)
    ]
    return FittingTable("Sources", columns, rows, _notes(archive))


def duration(seconds: float) -> str:
    """Return a duration for display: ``"48 s"``, ``"3:07 min"``, ``"2:05 h"``."""
    if round(seconds) < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _notes(archive: Archive) -> list[str]:
    """Return rejections, failures, errors and trainings, one sentence per operator, reason or source."""
    state = archive.state
    notes = []
    for (source, operator), tally in state.tallies.items():
        counts = {**tally.rejected, **tally.failed, "not converged": tally.unconverged}
        if counted := ", ".join(f"{count} {reason}" for reason, count in counts.items() if count):
            notes.append(f"{_name(source, operator)}: {counted}")
    notes += [
        f"{reason}, first message: {_in_short(state.explanations[reason])}"
        for reason in _UNCLEAR
        if state.explanations.get(reason)
    ]
    notes += [
        f"{source}: {count} errors, last message: {_ends_of(state.last_errors[source])}"
        for source, count in state.errors.items()
        if count
    ]
    return notes + [_trainings(source, updates) for source, updates in state.model_updates.items()]


def _structure(row: Mapping[str, Any]) -> str:
    loose = row["spacegroup_at_0.1_a"]
    near = "" if loose == row["spacegroup"] else f" ≈ {spacegroup_name(loose)}"
    return f"{spacegroup_name(row['spacegroup'])}{near} {row['prototype'] or ''}".rstrip()


def _name(source: str, operator: str) -> str:
    """Return ``source/operator``, or the source alone if its operator has the same name."""
    return source if operator == source else f"{source}/{operator}"


def spacegroup_name(number: int) -> str:
    """Return symbol and number of a space group, such as ``"C2/m (12)"``."""
    return f"{spacegroup_symbol(number)} ({number})"


def _ends_of(text: str) -> str:
    """Return beginning and end of an error message; the cause is often at the end of a program's traceback."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _in_short(text: str) -> str:
    return textwrap.shorten(text, _LONGEST, placeholder=" …")


def _trainings(source: str, updates: Sequence[ModelUpdated]) -> str:
    trained = [update for update in updates if "version" in update.training]
    seconds = sum(update.cost.seconds for update in updates)
    versions = " and ".join(str(version) for version in updates[-1].versions) or "none"
    failed = [update.detail for update in updates if update.training.get("failed")]
    failures = f"; failed {len(failed)} times, last message: {_in_short(failed[-1])}" if failed else ""
    return f"{source}: retrained {len(trained)} times in {seconds:.0f} s, current version {versions}{failures}"
