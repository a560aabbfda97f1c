"""Represent searches, minima and summaries as text and HTML, for Python and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hybridcsp.analysis.report import duration, minima_rows, spacegroup_name
from hybridcsp.core.problem import Problem
from hybridcsp.prototypes.names import prototype_name
from hybridcsp.utils.text import printable_line

if TYPE_CHECKING:
    from hybridcsp.archive.archive import Archive
    from hybridcsp.core.minimum import Minimum
    from hybridcsp.search.run import Summary

#: Number of minima in the HTML of a search.
_SHOWN = 5


def text_of_minimum(minimum: Minimum) -> str:
    """Return a minimum in one line."""
    atoms = minimum.best.atoms
    facts = {
        _enthalpy_name(minimum): f"{minimum.enthalpy_per_atom:.4f} eV/atom",
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


def html_of_minimum(minimum: Minimum) -> str:
    """Return a minimum as an HTML table."""
    atoms = minimum.best.atoms
    a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
    return _html_table(
        [],
        [
            ["formula", atoms.get_chemical_formula("metal")],
            ["enthalpy", f"{minimum.enthalpy_per_atom:.4f} eV/atom"],
            ["space group", spacegroup_name(minimum.spacegroup)],
            ["prototype", prototype_name(atoms) or "–"],
            ["cell", f"{a:.3f}, {b:.3f}, {c:.3f} Å; {alpha:.2f}, {beta:.2f}, {gamma:.2f}°"],
            ["volume", f"{atoms.get_volume() / len(atoms):.2f} Å³/atom"],
            ["source", _source(minimum)],
            ["times found", str(minimum.multiplicity)],
            ["calculator", minimum.best.evaluation.calculator],
        ],
    )


def text_of_search(problem: Problem, archive: Archive) -> str:
    """Return the state of a search in one line."""
    best = archive.best_enthalpy_per_atom
    lowest = "" if best is None else f", best {best:.4f} eV/atom"
    return printable_line(
        f"<Search {_title(problem)} in {archive.directory}: {archive.state.relaxations} relaxations, "
        f"{archive.number_of_minima} minima{lowest}>"
    )


def html_of_search(problem: Problem, archive: Archive) -> str:
    """Return the state of a search and its best minima as HTML."""
    head = f"<p>{escape(text_of_search(problem, archive).strip('<>'))}</p>"
    minima = archive.minima(_SHOWN)
    if not minima:
        return head
    headings = [
        "rank",
        "eV/atom",
        "meV/atom above the best",
        "space group",
        "prototype",
        "Å³/atom",
        "source",
        "times found",
    ]
    return head + _html_table(headings, [_cells(row) for row in minima_rows(minima, problem)])


def text_of_summary(summary: Summary) -> str:
    """Return the summary of a run in one line."""
    return f"<Summary: {_facts(summary)}>"


def html_of_summary(summary: Summary) -> str:
    """Return the summary of a run as an HTML paragraph."""
    return f"<p>{escape(_facts(summary))}</p>"


def _facts(summary: Summary) -> str:
    progress = summary.progress
    best = "" if progress.best is None else f", best {progress.best:.4f} eV/atom"
    return printable_line(
        f"{summary.stopped}; {progress.relaxations} relaxations ({progress.failed} failed), "
        f"{progress.force_calls} force calls, {progress.minima} minima{best}; this run took "
        f"{duration(progress.run_seconds)}"
    )


def _title(problem: Problem) -> str:
    return problem.formula + (f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else "")


def _source(minimum: Minimum) -> str:
    source, operator = minimum.found_by.source, minimum.found_by.operator
    return source if source == operator else f"{source}/{operator}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    source, operator = row["source"], row["operator"]
    return [
        str(row["rank"]),
        f"{row['enthalpy_ev_per_atom']:.4f}",
        f"{row['above_best_mev_per_atom']:.1f}",
        f"{row['spacegroup_symbol']} ({row['spacegroup']})",
        row["prototype"] or "",
        f"{row['volume_a3_per_atom']:.2f}",
        source if source == operator else f"{source}/{operator}",
        str(row["times_found"]),
    ]


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(printable_line(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if headings else ''}<tbody>{body}</tbody></table>"
