"""Tables of what a search has found and of what each source has done for it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hybridcsp.analysis.text_tables import Column, FittingTable
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.events import ModelUpdated
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import FailureReason, Minimum
from hybridcsp.prototypes.names import prototype_name
from hybridcsp.structure.symmetry import spacegroup_symbol

# Failures that only the words of whoever failed explain, and how many characters of these are shown.
_UNCLEAR = (
    FailureReason.CALCULATOR,
    FailureReason.WRONG_RESULTS,
    FailureReason.NON_FINITE,
    FailureReason.WORKER_DIED,
)
_LONGEST = 200


def problem_of(archive: Archive) -> Problem:
    """Return the problem of the archive's last session."""
    return archive.problem


def minima_rows(minima: Sequence[Minimum], problem: Problem) -> list[dict[str, Any]]:
    """Return what there is to say of minima, best first, as plain data with the units in the keys."""
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
    """Return the best minima as a table, best first."""
    columns = [
        Column(heading="rank"),
        Column(heading="eV/atom", meaning="enthalpy" if problem.pressure_gpa else "energy"),
        Column(heading="ΔmeV", meaning="above the best, per atom"),
        Column(
            heading="structure",
            meaning="space group at 0.01 Å (≈ at 0.1 Å, where that differs), and prototype where it has a name",
            words=True,
        ),
        Column(heading="Å³", meaning="volume per atom", dispensable=2),
        Column(heading="Z", meaning="formula units in the primitive cell", dispensable=1),
        Column(heading="source", words=True, dispensable=4),
        Column(heading="found", meaning="the relaxation that reached it first", dispensable=5),
        Column(heading="times", meaning="relaxations that ended there", dispensable=3),
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
    """Return what each operator of each source has done, as plain data with the units in the keys."""
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
    """Return what each operator of each source has done, as a table."""
    columns = [
        Column(heading="source", words=True),
        Column(heading="prop.", meaning="candidates that were proposed", dispensable=3),
        Column(heading="rej.", meaning="of these, rejected before relaxation", dispensable=4),
        Column(heading="relaxed"),
        Column(heading="failed", dispensable=2),
        Column(heading="new", meaning="minima that it reached first"),
        Column(heading="best", meaning="its lowest, in eV/atom", dispensable=1),
        Column(heading="f.calls", meaning="force calls", dispensable=7),
        Column(heading="share", meaning="of all force calls", dispensable=5),
        Column(heading="time", meaning="of computing", dispensable=6),
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
    return FittingTable("Sources", columns, rows, _reasons(archive))


def duration(seconds: float) -> str:
    """Return a time as people write it: ``"48 s"``, ``"3:07 min"``, ``"2:05 h"``."""
    if round(seconds) < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _reasons(archive: Archive) -> list[str]:
    """Say why candidates were rejected or failed, what went wrong, and what was learned."""
    state = archive.state
    reasons = []
    for (source, operator), tally in state.tallies.items():
        counts = {**tally.rejected, **tally.failed, "not converged": tally.unconverged}
        if said := ", ".join(f"{count} {reason}" for reason, count in counts.items() if count):
            reasons.append(f"{_name(source, operator)}: {said}")
    reasons += [
        f"{reason}, the first time: {_in_short(state.explanations[reason])}"
        for reason in _UNCLEAR
        if state.explanations.get(reason)
    ]
    reasons += [
        f"{source}: {count} errors, the last: {_ends_of(state.last_errors[source])}"
        for source, count in state.errors.items()
        if count
    ]
    return reasons + [_learned(source, updates) for source, updates in state.model_updates.items()]


def _structure(row: Mapping[str, Any]) -> str:
    loose = row["spacegroup_at_0.1_a"]
    near = "" if loose == row["spacegroup"] else f" ≈ {spacegroup_name(loose)}"
    return f"{spacegroup_name(row['spacegroup'])}{near} {row['prototype'] or ''}".rstrip()


def _name(source: str, operator: str) -> str:
    """Return a source with its operator, where there is another."""
    return source if operator == source else f"{source}/{operator}"


def spacegroup_name(number: int) -> str:
    """Return symbol and number of a space group: ``"C2/m (12)"``."""
    return f"{spacegroup_symbol(number)} ({number})"


def _ends_of(text: str) -> str:
    """Beginning and end of an error: a program's traceback says at its end what went wrong."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _in_short(text: str) -> str:
    return textwrap.shorten(text, _LONGEST, placeholder=" …")


def _learned(source: str, updates: Sequence[ModelUpdated]) -> str:
    trained = [update for update in updates if "version" in update.training]
    seconds = sum(update.cost.seconds for update in updates)
    versions = " and ".join(str(version) for version in updates[-1].versions) or "none"
    failed = [update.detail for update in updates if update.training.get("failed")]
    failures = f"; failed {len(failed)} times, the last: {_in_short(failed[-1])}" if failed else ""
    return f"{source}: trained {len(trained)} times in {seconds:.0f} s, now version {versions}{failures}"
