"""Tabulate the values of objectives, and the reasons for which some could not be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hybridcsp.analysis.report import shortened
from hybridcsp.analysis.text_tables import Column
from hybridcsp.core.minimum import keys_of_objectives
from hybridcsp.objectives.goals import BestValue, Goal


def objective_values(objectives: Sequence[Goal], values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the values of objectives with their keys in tables; ``None`` for a missing one."""
    keys: dict[str, float | None] = dict.fromkeys(keys_of_objectives({one.name: 0.0 for one in objectives}))
    return keys | keys_of_objectives({one.name: values[one.name] for one in objectives if one.name in values})


def objective_rows(objectives: Sequence[Goal]) -> list[dict[str, Any]]:
    """Return names, units and goals of objectives, and the keys of their values, as plain data."""
    return [
        {"name": one.name, "key": next(iter(keys_of_objectives({one.name: 0.0}))), "unit": one.unit, "goal": one.goal}
        for one in objectives
    ]


def failure_rows(failures: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """Return how often values of objectives could not be computed, the most frequent first, as plain data."""
    ordered = sorted(failures.items(), key=lambda one: (-one[1], one[0]))
    return [{"objective": name, "reason": reason, "times": number} for (name, reason), number in ordered]


def failure_notes(failures: Mapping[tuple[str, str], int], most: int = 5) -> list[str]:
    """Return sentences on values of objectives that could not be computed, for tables."""
    rows = failure_rows(failures)
    notes = [
        f"{row['objective']} could not be computed {_times(row)}: {shortened(row['reason'])}" for row in rows[:most]
    ]
    return [*notes, f"{len(rows) - most} more reasons are listed by --json."] if len(rows) > most else notes


def _times(row: Mapping[str, Any]) -> str:
    return "once" if row["times"] == 1 else f"{row['times']} times"


def objective_columns(objectives: Sequence[Goal]) -> list[Column]:
    """Return the columns of the values of objectives."""
    return [
        Column(heading=goal.name, meaning=_meaning(goal), dispensable=0 if goal.is_optimised else 3)
        for goal in objectives
    ]


def comparison_columns(
    strategies: Sequence[str], values: Sequence[tuple[str, Sequence[BestValue]]]
) -> tuple[list[Column], list[tuple[str, ...]]]:
    """Return columns with the mean over runs of the best value of each objective, and their cells for each strategy.

    Parameters
    ----------
    strategies
        Strategies in the order of the rows.
    values
        Strategy and best values of each run; a run without a value is left out of the mean.
    """
    goals = {one.name: one for _, found in values for one in found}
    columns = [
        Column(heading=one.name, meaning=f"mean over runs of the best, {_meaning(one)}") for one in goals.values()
    ]
    cells: list[tuple[str, ...]] = []
    for strategy in strategies:
        own = [one for name, found in values if name == strategy for one in found]
        known = {name: [one.value for one in own if one.name == name and one.value is not None] for name in goals}
        cells.append(tuple(f"{fmean(found):.4g}" if found else "-" for found in known.values()))
    return columns, cells


def objective_cells(objectives: Sequence[Goal], values: Mapping[str, float]) -> list[str]:
    """Return the cells of the values of objectives; ``"-"`` for a missing one."""
    return ["-" if goal.name not in values else f"{values[goal.name]:.4g}" for goal in objectives]


def _meaning(goal: Goal) -> str:
    _, _, wanted = goal.in_words.partition(": ")
    return f"{goal.unit}, {wanted}" if goal.unit else wanted
