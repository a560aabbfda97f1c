"""Names of the calculators of a search, and results of its follow-up relaxations, for tables and plots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from hybridcsp.analysis.report import duration, shortened
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.follow_up_events import FollowUpFailed
from hybridcsp.archive.follow_ups import FollowUpLevel
from hybridcsp.core.minimum import DISAGREEMENT, FollowUpResult, Minimum
from hybridcsp.prototypes.names import prototype_name
from hybridcsp.structure.symmetry import spacegroup_symbol, spacegroups
from hybridcsp.utils.text import printable_line

#: Longest name of a calculator, in characters.
_LONGEST = 24

#: Marks of minima about which calculators disagree: about the height above the best, and about the structure.
HEIGHT_MARK, STRUCTURE_MARK = "!", "*"


def levels_with_results(archive: Archive) -> list[FollowUpLevel]:
    """Return the follow-up calculators that have a result for any minimum, in their order."""
    return [level for level in archive.state.follow_ups.levels if level.results]


def calculator_names(archive: Archive) -> list[str]:
    """Return short, different names of the calculator of a search and of its follow-up calculators with results."""
    state = archive.state
    given = state.settings[-1].get("calculator") if state.settings else None
    names = [given if isinstance(given, str) and given else state.calculator or "the search"]
    names += [level.spec for level in levels_with_results(archive)]
    names = [calculator_name(name) for name in names]
    counts = Counter(names)
    return [f"{name}#{n}" if counts[name] > 1 else name for n, name in enumerate(names)]


def calculator_name(text: str) -> str:
    """Return the short name of a calculator: without the folders of a file, packages, version and parameters."""
    name = re.sub(r"[^:\s]*/(?=[^/])", "", printable_line(text).partition(" (")[0])
    name = PurePath(name).stem if name.endswith(".toml") else name
    name = re.sub(r"^\w+\.[\w.]*[.:](?=[A-Za-z_]\w*$)", "", name)  # package.module:factory, package.module.Class
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def disagreement(archive: Archive) -> float:
    """Return the difference of heights from which calculators disagree in eV/atom, by the settings of the search."""
    for settings in reversed(archive.state.settings):
        then: Mapping[str, Any] | None = settings.get("then")
        if then and "disagreement" in then:
            return float(then["disagreement"])
    return DISAGREEMENT


def result_by(minimum: Minimum, spec: str) -> FollowUpResult | None:
    """Return the result of a follow-up calculator for a minimum; ``None`` if there is none."""
    return next((result for result in minimum.follow_ups if result.spec == spec), None)


def marks_of(minimum: Minimum, threshold: float) -> str:
    """Return the marks of a minimum about which a follow-up calculator disagrees with that of the search.

    Parameters
    ----------
    minimum
        The minimum.
    threshold
        Difference of the heights from which the calculators disagree, in eV/atom.
    """
    search, results = minimum.search_height, minimum.follow_ups
    by_height = search is not None and any(abs(result.height - search) > threshold for result in results)
    by_structure = not all(result.same_structure for result in results)
    return HEIGHT_MARK * by_height + STRUCTURE_MARK * by_structure


def follow_up_values(minimum: Minimum, number: int, spec: str) -> dict[str, Any]:
    """Return the result of a follow-up calculator for a minimum as plain data; ``None`` for what there is not.

    Parameters
    ----------
    minimum
        The minimum.
    number
        Number of the follow-up calculator from 1, for the keys.
    spec
        Name of the follow-up calculator as it was given.
    """
    result = result_by(minimum, spec)
    values: dict[str, Any] = dict.fromkeys(
        (
            "rank",
            "enthalpy_ev_per_atom",
            "above_best_mev_per_atom",
            "energy_ev_per_atom",
            "volume_a3_per_atom",
            "spacegroup",
            "spacegroup_symbol",
            "spacegroup_at_0.1_a",
            "prototype",
            "same_structure",
            "calculator",
        )
    )
    if result is not None:
        atoms, evaluation = result.relaxed.atoms, result.relaxed.evaluation
        strict, loose = spacegroups(atoms)
        values |= {
            "rank": result.rank,
            "enthalpy_ev_per_atom": result.relaxed.enthalpy_per_atom,
            "above_best_mev_per_atom": 1000 * result.height,
            "energy_ev_per_atom": evaluation.energy / len(atoms),
            "volume_a3_per_atom": atoms.get_volume() / len(atoms),
            "spacegroup": strict,
            "spacegroup_symbol": spacegroup_symbol(strict),
            "spacegroup_at_0.1_a": loose,
            "prototype": prototype_name(atoms) or None,
            "same_structure": result.same_structure,
            "calculator": evaluation.calculator,
        }
    return {f"follow_up_{number}_{key}": value for key, value in values.items()}


def follow_up_totals(archive: Archive) -> list[str]:
    """Return the numbers and costs of the follow-up relaxations with each calculator, one sentence each."""
    totals = []
    for row in follow_up_rows(archive):
        facts = [f"{row['relaxed']} {'minimum' if row['relaxed'] == 1 else 'minima'} relaxed"]
        facts += [f"{row[key]} {word}" for key, word in _ENDS.items() if row[key]]
        facts += [f"{row['force_calls']} force calls", f"{duration(row['seconds'])} of computing time"]
        failure = f"; last failure: {shortened(row['last_failure'])}" if row["last_failure"] else ""
        totals.append(printable_line(f"Follow-up with {row['calculator']}: {', '.join(facts)}{failure}"))
    return totals


_ENDS = {
    "given_up": "given up after one force call, being too high in energy",
    "unconverged": "not converged",
    "failed": "failed",
}


def follow_up_rows(archive: Archive) -> list[dict[str, Any]]:
    """Return the numbers and costs of the follow-up relaxations with each calculator as plain data."""
    return [
        {
            "calculator": level.spec,
            "label": level.label or None,
            "relaxed": level.results,
            "given_up": level.given_up,
            "unconverged": level.unconverged,
            "failed": level.failed.total(),
            "last_failure": _explained(level.failures[-1]) if level.failures else None,
            "force_calls": level.cost.force_calls,
            "seconds": level.cost.seconds,
        }
        for level in archive.state.follow_ups.levels
    ]


def _explained(failure: FollowUpFailed) -> str:
    return f"{failure.reason}: {failure.detail}" if failure.detail else failure.reason
