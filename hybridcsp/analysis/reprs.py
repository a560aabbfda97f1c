"""Represent searches, minima and summaries as text and HTML, for Python and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from hybridcsp.analysis.follow_ups import calculator_name, levels_with_results
from hybridcsp.analysis.minima_report import minima_table
from hybridcsp.analysis.report import duration, source_name, spacegroup_name
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.problem import Problem
from hybridcsp.core.system import System
from hybridcsp.prototypes.names import prototype_name
from hybridcsp.utils.text import printable_line

if TYPE_CHECKING:
    from hybridcsp.archive.archive import Archive
    from hybridcsp.core.minimum import FollowUpResult, Minimum
    from hybridcsp.search.progress import Summary

#: Number of minima in the HTML of a search.
_SHOWN = 5


def text_of_minimum(minimum: Minimum) -> str:
    """Return a minimum in one line."""
    atoms = minimum.final.atoms
    facts = {
        _enthalpy_name(minimum): f"{minimum.best.enthalpy_per_atom:.4f} eV/atom",
        **({} if minimum.above_hull is None else {"above the hull": f"{1000 * minimum.above_hull:.1f} meV/atom"}),
        **{name: f"{value:.4g}" for name, value in minimum.objectives.items()},
        **{f"by {calculator_name(result.spec)}": _result_text(result) for result in minimum.follow_ups},
        "spacegroup": spacegroup_name(minimum.spacegroup),
        "source": _source(minimum),
        "found": "once" if minimum.multiplicity == 1 else f"{minimum.multiplicity} times",
    }
    shown = ", ".join(f"{key}: {value}" for key, value in facts.items())
    return printable_line(f"<Minimum {minimum.id}: {atoms.get_chemical_formula('metal')}, {shown}>")


def _enthalpy_name(minimum: Minimum) -> str:
    """Return "energy", or "enthalpy" under pressure."""
    evaluation = minimum.best.evaluation
    return "energy" if evaluation.energy == evaluation.enthalpy else "enthalpy"


def _result_text(result: FollowUpResult) -> str:
    """Return energy, rank and height of a follow-up relaxation."""
    changed = "" if result.same_structure else ", another structure"
    return (
        f"{result.relaxed.enthalpy_per_atom:.4f} eV/atom (rank {result.rank}, {1000 * result.height:.1f} meV/atom "
        f"above its best{changed})"
    )


def html_of_minimum(minimum: Minimum) -> str:
    """Return a minimum as an HTML table."""
    atoms = minimum.final.atoms
    a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
    return _html_table(
        [],
        [
            ["formula", atoms.get_chemical_formula("metal")],
            ["enthalpy", f"{minimum.best.enthalpy_per_atom:.4f} eV/atom"],
            *([] if minimum.above_hull is None else [["above the hull", f"{1000 * minimum.above_hull:.1f} meV/atom"]]),
            *([name, f"{value:.4g}"] for name, value in minimum.objectives.items()),
            *([f"enthalpy by {calculator_name(one.spec)}", _result_text(one)] for one in minimum.follow_ups),
            ["space group", spacegroup_name(minimum.spacegroup)],
            ["prototype", prototype_name(atoms) or "–"],
            ["cell", f"{a:.3f}, {b:.3f}, {c:.3f} Å; {alpha:.2f}, {beta:.2f}, {gamma:.2f}°"],
            ["volume", f"{atoms.get_volume() / len(atoms):.2f} Å³/atom"],
            ["source", _source(minimum)],
            ["times found", str(minimum.multiplicity)],
            ["calculator", minimum.best.evaluation.calculator],
            *(["follow-up calculator", one.relaxed.evaluation.calculator] for one in minimum.follow_ups),
        ],
    )


def text_of_search(problem: Problem | System, archive: Archive) -> str:
    """Return the state of a search in one line."""
    best = archive.best_enthalpy_per_atom
    lowest = "" if best is None else f", best {best:.4f} eV/atom"
    state = archive.state
    if isinstance(state, SystemState) and state.hull.is_complete:
        lowest = f", on the hull {' '.join(state.hull.stable)}"
    for level in levels_with_results(archive):
        lowest += f", {level.lowest():.4f} by {calculator_name(level.spec)}"
    return printable_line(
        f"<Search {_title(problem)} in {archive.directory}: {archive.state.relaxations} relaxations, "
        f"{archive.number_of_minima} minima{lowest}>"
    )


def html_of_search(problem: Problem | System, archive: Archive) -> str:
    """Return the state of a search and its best minima as HTML."""
    head = f"<p>{escape(text_of_search(problem, archive).strip('<>'))}</p>"
    minima = archive.final_minima(_SHOWN)
    if not minima:
        return head
    table = minima_table(minima, archive)
    notes = "".join(f"<p>{escape(printable_line(note))}</p>" for note in table.explanations())
    return head + _html_table([column.name for column in table.columns], table.rows) + notes


def text_of_summary(summary: Summary) -> str:
    """Return the summary of a run in one line."""
    return f"<Summary: {_facts(summary)}>"


def html_of_summary(summary: Summary) -> str:
    """Return the summary of a run as an HTML paragraph."""
    return f"<p>{escape(_facts(summary))}</p>"


def _facts(summary: Summary) -> str:
    progress = summary.progress
    best = "" if progress.best is None else f", best {progress.best:.4f} eV/atom"
    followed = f", {progress.follow_ups_done} follow-up relaxations" if progress.follow_ups_done else ""
    return printable_line(
        f"{summary.stopped}; {progress.relaxations} relaxations ({progress.failed} failed), "
        f"{progress.force_calls} force calls, {progress.minima} minima{best}{followed}; this run took "
        f"{duration(progress.run_seconds)}"
    )


def _title(problem: Problem | System) -> str:
    return problem.formula + (f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else "")


def _source(minimum: Minimum) -> str:
    return source_name(minimum.found_by.source, minimum.found_by.operator)


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(printable_line(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if headings else ''}<tbody>{body}</tbody></table>"
