"""Print the tables of the recovery benchmark from its recorded runs, and whether the bars are met.

    python benchmarks/recovery_table.py

The tables are written to results/recovery_sets.json too. Runs of `recovery.py` are compared by set, size, calculator
and budget. Of a run with a larger budget only what belongs to the smaller one counts.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from hybridcsp.analysis.comparison_report import as_records, interval_text, mean_ratio_text, ratio_text
from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.statistics import StrategyStatistics, compare

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "recovery_sets_runs.jsonl"
REFERENCES = RESULTS / "recovery_sets_references.json"
RESULT = RESULTS / "recovery_sets.json"

SOLVED, HOLE = 0.002, 0.150

#: Numbers of relaxations within which runs are counted, and those of them that strategies are compared at.
WITHIN, BUDGETS = (5, 20, 60, 300), (60, 300)

BASELINE = "random"
MIDDLE, LARGE = "12 to 20 atoms", "21 to 40 atoms"

Line = Mapping[str, Any]


def past_runs() -> dict[tuple[str, str, str, int], dict[str, Any]]:
    """Return the last line of each run, by cell, arm, calculator and seed."""
    lines = map(json.loads, RUNS.read_text().splitlines() if RUNS.exists() else ())
    return {(one["cell"], one["arm"], one["calculator"], one["seed"]): one for one in lines}


def report(console: Console) -> None:
    """Print the tables and write them as JSON."""
    lines = list(past_runs().values())
    if not lines:
        console.print("no runs are recorded")
        return
    tables = []
    for which in dict.fromkeys((one["calculator"], one["set"], one["group"]) for one in lines):
        chosen = [one for one in lines if (one["calculator"], one["set"], one["group"]) == which]
        rows = [_row(arm, chosen) for arm in _arms(chosen)]
        comparisons = [found for budget in BUDGETS if (found := _comparison(chosen, budget, "solved_at"))]
        comparisons += [found for budget in BUDGETS if (found := _comparison(chosen, budget, "found_at"))]
        title = f"{which[1]}, {which[2]}, {which[0]}: {len({one['cell'] for one in chosen})} cells"
        _print_counts(console, title, rows)
        for found in comparisons:
            _print_comparison(console, found)
        _print_sources(console, rows)
        tables.append(
            {"calculator": which[0], "set": which[1], "group": which[2], "rows": rows}
            | {"comparisons": [{**found, "rows": as_records(found["rows"])} for found in comparisons]}
        )
    judged = bars(lines)
    _print_bars(console, judged)
    RESULT.write_text(json.dumps({"runs": len(lines), "tables": tables, "bars": judged}, indent=1) + "\n")


def _arms(lines: Sequence[Line]) -> list[str]:
    """Return the names of the arms, the baseline first."""
    return sorted(dict.fromkeys(one["arm"] for one in lines), key=lambda arm: (arm != BASELINE, arm))


def reached(line: Line, budget: int) -> bool:
    """Return whether a run was meant to do so many relaxations, whether it needed them or not.

    A run that ended early tells nothing of a larger budget than its own: runs that did not end are missing there.
    """
    return bool(line["budget"] >= budget)


def trace(line: Line, budget: int, goal: str = "solved_at") -> RunResult:
    """Return what a run did within a budget, for :func:`hybridcsp.analysis.statistics.compare`.

    Parameters
    ----------
    line
        The run.
    budget
        Number of relaxations.
    goal
        ``"solved_at"`` or ``"found_at"``.
    """
    at = line[goal]
    done = min(line["relaxations"], budget)
    ended = "" if line["stopped"] in ("relaxations used up", "solved and found") else str(line["stopped"])
    return RunResult(
        problem=line["cell"],
        strategy=line["arm"],
        seed=line["seed"],
        relaxations=done,
        failed=sum(line["failed"].values()),
        rejected=0,
        force_calls=sum(line["calls"][:budget]),
        seconds=line["seconds"],
        best=line["improvements"][-1][2] if line["improvements"] else None,
        solved_at=tuple(at) if at is not None and at[0] <= budget else None,
        ended=ended,
    )


def _within(lines: Sequence[Line], goal: str, within: int) -> dict[str, Any] | None:
    """Return how many runs reached a goal within a number of relaxations, with Wilson's 95 % interval."""
    counted = [one for one in lines if reached(one, within)]
    if not counted:
        return None
    count = sum(one[goal] is not None and one[goal][0] <= within for one in counted)
    interval = binomtest(count, len(counted)).proportion_ci(method="wilson")
    return {"count": count, "of": len(counted), "low": float(interval.low), "high": float(interval.high)}


def _row(arm: str, lines: Sequence[Line]) -> dict[str, Any]:
    own = [one for one in lines if one["arm"] == arm]
    relaxations = sum(one["relaxations"] for one in own)
    solving = Counter(source for one in own if (source := solving_source(one)))
    return {
        "arm": arm,
        "runs": len(own),
        "solved": {str(n): _within(own, "solved_at", n) for n in WITHIN},
        "found": {str(n): _within(own, "found_at", n) for n in WITHIN},
        "calls_per_relaxation": sum(one["force_calls"] for one in own) / max(relaxations, 1),
        "minima_per_relaxation": sum(one["new_minima"] for one in own) / max(relaxations, 1),
        "captured": sum(one["captured"] for one in own),
        "holes": sum(one["holes"] for one in own),
        "failed": dict(sum((Counter(one["failed"]) for one in own), Counter())),
        "relaxations": relaxations,
        "processor": processor_shares(own),
        "solved_by": dict(solving.most_common()),
        "improved_by": dict(Counter(one[3] for run in own for one in run["improvements"]).most_common()),
        "codes": sorted({one["code"] for one in own}),
    }


def solving_source(line: Line) -> str | None:
    """Return the source and operator of the relaxation that solved a run."""
    if line["solved_at"] is None:
        return None
    return next(f"{one[3]}/{one[4]}" for one in line["improvements"] if one[0] == line["solved_at"][0])


def processor_shares(lines: Sequence[Line]) -> dict[str, float] | None:
    """Return the shares of the search process in the processor time, by concern and together, start-up aside."""
    counted = [one for one in lines if one.get("processor") and not one.get("partial")]
    concerns: Counter[str] = Counter()
    for one in counted:
        concerns.update({name: value for name, value in one["processor"].items() if name != "loading"})
    workers = sum(one["worker_processor_seconds"] + one["first_calculator_seconds"] for one in counted)
    total = workers + concerns.total()
    if not total:
        return None
    return {name: value / total for name, value in concerns.items()} | {"search": concerns.total() / total}


def _comparison(lines: Sequence[Line], budget: int, goal: str) -> dict[str, Any] | None:
    """Compare the arms with the baseline at a budget, on the runs that reached it."""
    traces = [trace(one, budget, goal) for one in lines if reached(one, budget)]
    traces.sort(key=lambda one: (one.strategy != BASELINE, one.strategy))
    if len({one.strategy for one in traces}) < 2 or traces[0].strategy != BASELINE:
        return None
    return {"goal": goal.removesuffix("_at"), "budget": budget, "rows": compare(traces)}


def _count(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['count']}/{found['of']}"


def _print_counts(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    shown = Table(box=SIMPLE_HEAD, caption_justify="left", title_justify="left", title=title)
    shown.add_column("arm", no_wrap=True)
    headings = [*(f"solved {n}" if n == WITHIN[0] else str(n) for n in WITHIN)]
    headings += [*(f"found {n}" if n == WITHIN[0] else str(n) for n in WITHIN)]
    headings += ["calls", "minima", "holes", "failed", "search", "sampling", "screening", "retraining"]
    for heading in headings:
        shown.add_column(heading, justify="right")
    for row in rows:
        shares = row["processor"] or {}
        shown.add_row(
            row["arm"],
            *(_count(row[goal][str(n)]) for goal in ("solved", "found") for n in WITHIN),
            f"{row['calls_per_relaxation']:.0f}",
            f"{row['minima_per_relaxation']:.2f}",
            str(row["holes"]),
            f"{sum(row['failed'].values())}/{row['relaxations']}",
            *(
                f"{100 * shares.get(name, 0.0):.1f} %" if shares else ""
                for name in ("search", "sampling", "screening", "retraining")
            ),
        )
    shown.caption = (
        "runs that solved the crystal, and that found it, within so many relaxations; calls, minima: force calls and "
        "new minima per relaxation; search … retraining: shares of the search process, and of parts of it, in all "
        "processor time, start-up aside"
    )
    console.print(shown)


def _print_comparison(console: Console, found: Mapping[str, Any]) -> None:
    title = f"{found['goal']} within {found['budget']} relaxations, against {BASELINE}"
    shown = Table(box=SIMPLE_HEAD, title_justify="left", title=title)
    shown.add_column("arm", no_wrap=True)
    for heading in (f"{found['goal']} (95 %)", "expected calls (95 %)", "ratio (95 %)", "of means (95 %)", "p"):
        shown.add_column(heading, justify="right", no_wrap=True)
    rows: Sequence[StrategyStatistics] = found["rows"]
    for row in rows:
        p_value = "" if row.p_value is None else "<0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
        shown.add_row(
            row.strategy,
            f"{row.solved}/{row.runs} ({100 * row.low:.0f}-{100 * row.high:.0f} %)",
            interval_text(row.expected_force_calls, row.expected_low, row.expected_high, decimals=0),
            ratio_text(row),
            mean_ratio_text(row),
            p_value,
        )
    console.print(shown)


def _print_sources(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        if len(row["improved_by"]) > 1:
            solved = ", ".join(f"{name} {count}" for name, count in row["solved_by"].items()) or "nothing"
            better = ", ".join(f"{name} {count}" for name, count in row["improved_by"].items())
            console.print(f"  {row['arm']}: solved by {solved}; improvements of {better}", highlight=False)
    console.print()


# Bars


def bars(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return each bar with what was measured and whether it is met; ``None`` if there are no runs for it."""
    middle = [one for one in lines if (one["set"], one["group"], one["calculator"]) == ("hard", MIDDLE, "chgnet")]
    large = [one for one in lines if (one["set"], one["calculator"]) == ("large", "chgnet")]
    easy = [one for one in lines if (one["set"], one["calculator"]) == ("easy", "chgnet")]
    judged = [
        _judge(
            "12 to 20 atoms, 60 relaxations: the default solves at least twice as many as random",
            _counts(middle, "default", BASELINE, 60),
            lambda value: bool(value["default"] >= 2 * value[BASELINE]),
        ),
        _ratio_bar(middle, "default", BASELINE, 300, 0.5),
        _ratio_bar(middle, "evolution", "random@before", 300, 0.5),
        _ratio_bar(middle, "evolution", BASELINE, 300, 1.0),
        _judge(
            "learning against frozen, 21 to 40 atoms: at most 0.8, with an interval below 1",
            _ratio(large, "default", "frozen", 60),
            lambda value: value["ratio"] <= 0.8 and value["high"] is not None and value["high"] < 1,
        ),
        _judge(
            "easy cells: the default solves at least as many within 5 relaxations as before",
            _counts(easy, "default", "default@before", 5),
            lambda value: bool(value["default"] >= value["default@before"]),
        ),
    ]
    for arm, most in (("default", 0.15), ("frozen", 0.05)):
        shares = processor_shares([one for one in middle if one["arm"] == arm and one["relaxations"] >= BUDGETS[0]])
        value = None if shares is None else {"search": shares["search"]}
        name = f"12 to 20 atoms: the search process takes at most {100 * most:.0f} % of the processor time of {arm}"
        judged.append(_judge(name, value, lambda value, most=most: bool(value["search"] <= most)))
    return judged


def _judge(name: str, value: Mapping[str, Any] | None, is_met: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    return {"bar": name, "measured": value, "met": None if value is None else is_met(value)}


def _common(lines: Sequence[Line], first: str, second: str, budget: int) -> tuple[list[Line], list[Line]]:
    """Return the runs of two arms with cells and seeds in common that reached a budget."""
    found = [
        {(one["cell"], one["seed"]): one for one in lines if one["arm"] == arm and reached(one, budget)}
        for arm in (first, second)
    ]
    both = sorted(found[0].keys() & found[1].keys())
    return [found[0][key] for key in both], [found[1][key] for key in both]


def _counts(lines: Sequence[Line], first: str, second: str, budget: int) -> dict[str, Any] | None:
    pairs = _common(lines, first, second, budget)
    if not pairs[0]:
        return None
    solved = [sum(trace(one, budget).solved_at is not None for one in own) for own in pairs]
    return {first: solved[0], second: solved[1], "runs": len(pairs[0])}


def _ratio(lines: Sequence[Line], first: str, second: str, budget: int) -> dict[str, Any] | None:
    own, others = _common(lines, first, second, budget)
    rows = compare([trace(one, budget) for one in (*others, *own)])
    if len(rows) < 2 or rows[1].ratio is None:
        return None
    row = rows[1]
    high = None if row.ratio_high is None or not np.isfinite(row.ratio_high) else row.ratio_high
    return {"ratio": row.ratio, "low": row.ratio_low, "high": high, "p": row.p_value, "runs": len(own)}


def _ratio_bar(lines: Sequence[Line], first: str, second: str, budget: int, most: float) -> dict[str, Any]:
    return _judge(
        f"12 to 20 atoms, {budget} relaxations: {first} needs at most {most:g} of the expected force calls of {second}",
        _ratio(lines, first, second, budget),
        lambda value: bool(value["ratio"] <= most),
    )


def _print_bars(console: Console, judged: Sequence[Mapping[str, Any]]) -> None:
    for one in judged:
        verdict = {None: "no runs", True: "met", False: "NOT MET"}[one["met"]]
        values = one["measured"] or {}
        text = ", ".join(f"{name} {value:.3g}" for name, value in values.items() if value is not None)
        console.print(f"{verdict:8} {one['bar']}" + (f" ({text})" if text else ""), highlight=False)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    report(Console(width=160))
