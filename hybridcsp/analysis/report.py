"""Tables of what a search has found and of what each source has done for it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hybridcsp.archive import Archive
from hybridcsp.ledger import Tally
from hybridcsp.problem import Problem
from hybridcsp.records import FailureReason, Minimum

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


def minima_table(minima: Sequence[Minimum], problem: Problem) -> Table:
    """Return the best minima as a table, best first."""
    table = plain_table(
        f"Minima of {problem.formula}" + (f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else "")
    )
    for heading in ("rank", "eV/atom", "ΔmeV", "space group", "0.1 Å", "Z", "source", "found", "times"):
        if heading == "source":
            table.add_column(heading)
        else:
            table.add_column(heading, justify="left" if heading == "space group" else "right", no_wrap=True)
    for rank, minimum in enumerate(minima, start=1):
        loose = minimum.spacegroup_loose
        table.add_row(
            str(rank),
            f"{minimum.enthalpy_per_atom:.4f}",
            f"{1000 * (minimum.enthalpy_per_atom - minima[0].enthalpy_per_atom):.1f}",
            spacegroup_name(minimum.spacegroup),
            "" if loose == minimum.spacegroup else str(loose),
            str(problem.units_of(minimum.best.atoms.numbers)),
            _Name(minimum.found_by.source, minimum.found_by.operator),
            str(minimum.first_relaxation),
            str(minimum.multiplicity),
        )
    table.caption = (
        "enthalpy per atom; above the best; space group at 0.01 Å, and at 0.1 Å where it differs; formula units; "
        "relaxation that found it first; relaxations that ended there"
    )
    return table


def sources_table(archive: Archive) -> Table:
    """Return what each operator of each source has done, as a table."""
    table = plain_table("Sources")
    table.add_column("source")
    for heading in ("prop.", "rej.", "relaxed", "failed", "new", "best", "f.calls", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    reasons = []
    total = sum(tally.cost.force_calls for tally in archive.ledger.tallies.values())
    for (source, operator), tally in archive.ledger.tallies.items():
        name = _Name(source, operator)
        table.add_row(name, *_cells(tally, total))
        counts = {**tally.rejected, **tally.failed, "not converged": tally.unconverged}
        if said := ", ".join(f"{count} {reason}" for reason, count in counts.items() if count):
            reasons.append(f"{name}: {said}")
    reasons += [
        f"{reason}, the first time: {_in_short(archive.ledger.explanations[reason])}"
        for reason in _UNCLEAR
        if archive.ledger.explanations.get(reason)
    ]
    reasons += [
        f"{source}: {count} errors, the last: {_ends_of(archive.ledger.last_errors[source])}"
        for source, count in archive.ledger.errors.items()
        if count
    ]
    reasons += [_learned(source, changes) for source, changes in archive.ledger.adoptions.items()]
    legend = "proposed, rejected, relaxed candidates; failures; minima that it reached first; force calls"
    table.caption = escape("\n".join([legend, *reasons]))
    return table


def spacegroup_name(number: int) -> str:
    """Return symbol and number of a space group: ``"P4_2/mnm (136)"``."""
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    return f"{sg_symbol_from_int_number(number)} ({number})"


def plain_table(title: str) -> Table:
    """Return an empty table in the style of all of ours."""
    return Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


class _Name:
    """A source with its operator, where there is another; in a narrow column the operator gets a line of its own."""

    def __init__(self, source: str, operator: str) -> None:
        self._parts = [source] if operator == source else [f"{source}/", operator]

    def __str__(self) -> str:
        return "".join(self._parts)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(max(map(len, self._parts)), len(str(self))).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = str(self) if len(str(self)) <= options.max_width else "\n".join(self._parts)
        yield Text(shown, overflow="fold")


def _ends_of(text: str) -> str:
    """Beginning and end of an error: a program's traceback says at its end what went wrong."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _in_short(text: str) -> str:
    return textwrap.shorten(text, _LONGEST, placeholder=" …")


def _learned(source: str, changes: Sequence[Mapping[str, Any]]) -> str:
    trained = [change for change in changes if "version" in change["training"]]
    seconds = sum(change["cost"]["seconds"] for change in changes)
    versions = " and ".join(str(version) for version in changes[-1]["versions"]) or "none"
    failed = [change["detail"] for change in changes if change["training"].get("failed")]
    failures = f"; failed {len(failed)} times, the last: {_in_short(failed[-1])}" if failed else ""
    return f"{source}: trained {len(trained)} times in {seconds:.0f} s, now version {versions}{failures}"


def _cells(tally: Tally, total: int) -> list[str]:
    return [
        str(tally.proposed),
        str(tally.rejected.total()),
        str(tally.relaxed),
        str(tally.failed.total()),
        str(tally.first_reached),
        "" if tally.best is None else f"{tally.best:.4f}",
        str(tally.cost.force_calls),
        f"{tally.cost.force_calls / total:.0%}" if total else "",
    ]
