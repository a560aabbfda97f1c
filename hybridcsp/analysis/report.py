"""Tabulate the activity of the sources of a search."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hybridcsp.analysis.source_activity import LOW, improvements, niches_reached_alone
from hybridcsp.analysis.text_tables import Column, FittingTable
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.events import ModelUpdated
from hybridcsp.core.outcomes import FailureReason
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


def sources_rows(archive: Archive) -> list[dict[str, Any]]:
    """Return the activity of each operator of each source, as plain data with units in the keys."""
    total = sum(tally.cost.force_calls for tally in archive.state.tallies.values())
    alone = niches_reached_alone(archive.state)
    lowered = Counter((one.source, one.operator) for one in improvements(archive))
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
            "low_niches_reached_alone": alone[source, operator],
            "times_lowered_best": lowered[source, operator],
            **({} if archive.system else {"best_enthalpy_ev_per_atom": tally.best}),
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
        Column(heading="alone", meaning=f"niches up to {1000 * LOW:.0f} meV/atom that it alone found", dispensable=2),
        Column(heading="lowered", meaning="times that it lowered the best", dispensable=1),
        Column(heading="best", meaning="lowest enthalpy in eV/atom", dispensable=1),
        Column(heading="f.calls", meaning="force calls", dispensable=7),
        Column(heading="share", meaning="share of all force calls", dispensable=5),
        Column(heading="time", meaning="computing time", dispensable=6),
    ]
    if archive.system is not None:  # enthalpies of different compositions are not compared
        columns = [column for column in columns if column.heading != "best"]
    rows = [
        [
            source_name(row["source"], row["operator"]),
            str(row["proposed"]),
            str(row["rejected"]),
            str(row["relaxed"]),
            str(row["failed"]),
            str(row["minima_reached_first"]),
            str(row["low_niches_reached_alone"]),
            str(row["times_lowered_best"]),
            *_best(row),
            str(row["force_calls"]),
            "" if row["share_of_force_calls"] is None else f"{row['share_of_force_calls']:.0%}",
            duration(row["seconds"]),
        ]
        for row in sources_rows(archive)
    ]
    return FittingTable("Sources", columns, rows, _notes(archive))


def _best(row: Mapping[str, Any]) -> list[str]:
    """Return the cell of the lowest enthalpy, if the row has one."""
    if "best_enthalpy_ev_per_atom" not in row:
        return []
    best = row["best_enthalpy_ev_per_atom"]
    return ["" if best is None else f"{best:.4f}"]


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
            notes.append(f"{source_name(source, operator)}: {counted}")
    notes += [
        f"{reason}, first message: {_in_short(state.explanations[reason])}"
        for reason in _UNCLEAR
        if state.explanations.get(reason)
    ]
    notes += [
        f"{source}: {count} errors, last message: {shortened(state.last_errors[source])}"
        for source, count in state.errors.items()
        if count
    ]
    return notes + [_trainings(source, updates) for source, updates in state.model_updates.items()]


def source_name(source: str, operator: str) -> str:
    """Return ``source/operator``, or the source alone if its operator has the same name."""
    return source if operator == source else f"{source}/{operator}"


def spacegroup_name(number: int) -> str:
    """Return symbol and number of a space group, such as ``"C2/m (12)"``."""
    return f"{spacegroup_symbol(number)} ({number})"


def shortened(text: str) -> str:
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
