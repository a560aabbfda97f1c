"""Print the tables of the recovery benchmark from the recorded runs, and write them to results/recovery.json.

python benchmarks/recovery_report.py
python benchmarks/recovery_report.py --markdown
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run_lines import read_lines

from hybridcsp.analysis.comparison_report import as_records, comparison_table, mean_ratio_text, ratio_text
from hybridcsp.analysis.run_results import RunResult
from hybridcsp.analysis.statistics import StrategyStatistics, compare

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "recovery_runs.jsonl"
REFERENCES = RESULTS / "recovery_references.json"

RELAXATIONS, SOLVED, HOLE, SMALL = 60, 0.002, 0.150, 10

#: In the order of the tables; the first is the baseline. Those of one source are compared with the portfolio.
ORDER = (
    "random",
    "evolution",
    "swarm",
    "prototypes",
    "basin-hopping",
    "random+shake",
    "optimisers",
    "wyckoff",
    "wyckoff+energies",
    "flow",
    "evolution+seeds",
    "frozen",
    "default",
    "ase-ga",
    "cryspy",
)
SINGLE = ("random", "evolution", "swarm", "prototypes", "basin-hopping")
PORTFOLIO = "optimisers"

#: Further seeds are of the comparison of these two: the same search, but for generators that learn or do not.
SEEDS = 3
RETRAINED, FROZEN = "default", "frozen"

#: A cell is hard if random solves it within so many relaxations for at most half of the seeds.
EASY_WITHIN = 10

Key = tuple[str, str, int]


def past_lines() -> list[dict[str, Any]]:
    """Every line that a run has left, those of methods that are not measured any more included."""
    return read_lines(RUNS)


def past_runs() -> dict[Key, dict[str, Any]]:
    """The last line of each run, by cell, method and seed; methods that are not measured any more are left out."""
    return {(one["cell"], one["method"], one["seed"]): one for one in past_lines() if one["method"] in ORDER}


def best_known() -> dict[str, float]:
    """Lowest enthalpy per atom of each cell: the reference or any minimum of any run, holes of the potential aside.

    What runs found whose lines have been retired since is kept beside the reference as ``lowest_found``.
    """
    best = {}
    if REFERENCES.exists():
        for cell, known in json.loads(REFERENCES.read_text()).items():
            best[cell] = min(known["energy_per_atom"], known.get("lowest_found", 0.0))
    for one in past_lines():
        cell = one["cell"]
        best[cell] = min([best.get(cell, one["reference"]), *(energy for *_, energy in one["improvements"])])
    return best


def report(console: Console) -> None:
    """Print the tables and write them as JSON."""
    best = best_known()
    every = list(past_runs().values())
    runs = sorted((one for one in every if one["seed"] < SEEDS), key=lambda one: ORDER.index(one["method"]))
    groups = {
        f"cells of at most {SMALL} atoms": [one for one in runs if one["atoms"] <= SMALL],
        "larger cells": [one for one in runs if one["atoms"] > SMALL],
        "all cells": runs,
    }
    crystals = {one["cell"]: one["reference"] for one in runs}
    goals = {"solved": ("the best minimum known", best), "recovered": ("the known crystal or lower", crystals)}
    summary = {
        name: {title: _group(console, f"{goal}, {title}", group, energies) for title, group in groups.items() if group}
        for name, (goal, energies) in goals.items()
    }
    console.print(_by_cell(runs, best))
    learning = {name: _learning(console, goal, every, energies) for name, (goal, energies) in goals.items()}
    content = {
        "runs": len(runs),
        "best_known": best,
        "crystals": crystals,
        "groups": summary,
        "retrained_over_frozen": learning,
    }
    RESULTS.joinpath("recovery.json").write_text(json.dumps(content, indent=1) + "\n")


def _group(
    console: Console, title: str, runs: Sequence[Mapping[str, Any]], goals: Mapping[str, float]
) -> dict[str, Any]:
    traces = [_trace(one, goals[one["cell"]]) for one in runs]
    rows = compare(traces)
    console.print(comparison_table(rows, traces, title))
    console.print(_within(runs, traces))
    hard = _hard_cells(traces)
    summary: dict[str, Any] = {
        "methods": {row["strategy"]: row for row in as_records(rows)},
        "hard_cells": sorted(hard),
    }
    for baseline in ("random", "ase-ga"):
        chosen = [trace for trace in traces if trace.problem in hard]
        chosen.sort(key=lambda trace: trace.strategy != baseline)
        if not any(trace.strategy == baseline for trace in chosen):
            continue
        ratios = {row.strategy: row for row in compare(chosen) if row.ratio is not None}
        text = ", ".join(f"{n} {ratio_text(r)}" for n, r in ratios.items())
        console.print(
            f"  {len(hard)} cells that random does not solve within {EASY_WITHIN} relaxations for most seeds; "
            f"expected force calls over {baseline}'s: {text}",
            highlight=False,
        )
        summary[f"hard_cells_over_{baseline}"] = {name: _ratios(row) for name, row in ratios.items()}
    for within in (20, RELAXATIONS):
        bound = _portfolio_bound(traces, within)
        if bound:
            name, difference, low = bound
            console.print(
                f"  {PORTFOLIO} against the best single source within {within} ({name}): "
                f"{100 * difference:+.0f} points solved, one-sided 90 % bound {100 * low:+.0f}",
                highlight=False,
            )
            summary[f"portfolio_within_{within}"] = {"best_single": name, "difference": difference, "bound": low}
    console.print()
    return summary


def _learning(
    console: Console, goal: str, runs: Sequence[Mapping[str, Any]], goals: Mapping[str, float]
) -> dict[str, Any]:
    """Compare pairs of runs that are the same up to the first training."""
    found = {(one["cell"], one["method"], one["seed"]): one for one in runs}
    pairs = [
        (found[cell, FROZEN, seed], one)
        for (cell, method, seed), one in sorted(found.items())
        if method == RETRAINED and (cell, FROZEN, seed) in found
    ]
    if not pairs:
        return {}
    trained = {learning["cell"] for frozen, learning in pairs if frozen["force_calls"] != learning["force_calls"]}
    summary = {}
    for title, chosen in (
        (f"all cells, {SEEDS} seeds", [pair for pair in pairs if pair[0]["seed"] < SEEDS]),
        ("cells where a training made a difference, all seeds", [p for p in pairs if p[0]["cell"] in trained]),
    ):
        traces = [_trace(one, goals[one["cell"]]) for place in (0, 1) for one in (pair[place] for pair in chosen)]
        _, row = compare(traces)
        solved = [
            sum(trace.solved_at is not None for trace in traces if trace.strategy == m) for m in (RETRAINED, FROZEN)
        ]
        differ = sum(a["force_calls"] != b["force_calls"] for a, b in chosen)
        console.print(
            f"Retrained against frozen, to {goal}, {title}: {len(chosen)} pairs, {differ} of which differ; "
            f"{solved[0]} and {solved[1]} got there, at {ratio_text(row)} "
            f"of the expected force calls, {mean_ratio_text(row)} of the restricted mean, p {row.p_value}",
            highlight=False,
        )
        summary[title] = {
            "pairs": len(chosen),
            "differ": differ,
            "got_there": dict(zip((RETRAINED, FROZEN), solved, strict=True)),
            "force_calls": _ratios(row),
        }
    return summary


def _ratios(row: StrategyStatistics) -> dict[str, list[float | None]]:
    (values,) = as_records([row])
    return {name: [values[name + end] for end in ("", "_low", "_high")] for name in ("ratio", "mean_ratio")}


#: Rows of the first table of the texts, of all cells; the second is of the core set and all methods.
_MAIN = ("random", FROZEN, RETRAINED)


def markdown() -> str:
    """Return the tables of benchmarks/README.md: all cells and the three main methods, then the core set."""
    best, every = best_known(), [one for one in past_runs().values() if one["seed"] < SEEDS]
    every.sort(key=lambda one: ORDER.index(one["method"]))
    core = {one["cell"] for one in every if one["method"] not in _MAIN}
    crystals = {one["cell"]: one["reference"] for one in every}
    lines = []
    for goal, energies in (("recovered", crystals), ("solved", best)):
        for chosen in ([one for one in every if one["method"] in _MAIN], [one for one in every if one["cell"] in core]):
            lines += [f"{goal}:", *_markdown_rows(chosen, energies), ""]
    return "\n".join(lines)


def _markdown_rows(runs: Sequence[Mapping[str, Any]], goals: Mapping[str, float]) -> list[str]:
    traces = [_trace(one, goals[one["cell"]]) for one in runs]
    atoms = {one["cell"]: one["atoms"] for one in runs}
    hard = _hard_cells(traces)
    of_hard = {row.strategy: row for row in compare([trace for trace in traces if trace.problem in hard])}
    rows = []
    for row in compare(traces):
        own = [trace for trace in traces if trace.strategy == row.strategy]
        small, large = (
            [trace for trace in own if (atoms[trace.problem] <= SMALL) == is_small] for is_small in (True, False)
        )
        counts = [_share(small, n) for n in (5, 20, 60)] + [_share(large, 60)]
        expected = "-" if row.expected_force_calls is None else f"{row.expected_force_calls:.0f}"
        baseline = row.strategy == "random"
        ratios = ["1", "1", "1"] if baseline else [ratio_text(row), mean_ratio_text(row)]
        if not baseline:
            ratios.append(ratio_text(of_hard[row.strategy]) if row.strategy in of_hard else "")
        rows.append("| " + " | ".join([f"`{row.strategy}`", *counts, expected, *ratios]) + " |")
    return rows


def _share(traces: Sequence[RunResult], within: int) -> str:
    return f"{sum(_solved_within(trace, within) for trace in traces)}/{len(traces)}" if traces else ""


def _within(runs: Sequence[Mapping[str, Any]], traces: Sequence[RunResult]) -> Table:
    shown = Table(box=SIMPLE_HEAD, caption_justify="left", title_justify="left", title="Solved within … relaxations")
    shown.add_column("method", no_wrap=True)
    for heading in (
        *(str(n) for n in (1, 5, 10, 20, 40, 60)),
        "matched",
        "f.calls/relax.",
        "outside",
        "holes",
        "failed",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for method in dict.fromkeys(trace.strategy for trace in traces):
        own = [trace for trace in traces if trace.strategy == method]
        lines = [one for one in runs if one["method"] == method]
        counts = [sum(_solved_within(trace, n) for trace in own) for n in (1, 5, 10, 20, 40, 60)]
        relaxations = sum(trace.relaxations for trace in own)
        outside = 1 - sum(one["calculator_seconds"] for one in lines) / sum(one["seconds"] for one in lines)
        shown.add_row(
            method,
            *(f"{count}/{len(own)}" for count in counts),
            f"{sum(one['matched_at'] is not None for one in lines)}/{len(own)}",
            f"{sum(trace.force_calls for trace in own) / max(relaxations, 1):.0f}",
            f"{100 * outside:.0f} %",
            str(sum(one["holes"] for one in lines)),
            f"{sum(trace.failed for trace in own)}/{relaxations}",
        )
    shown.caption = "matched: the reference itself was found before the end; outside: share of time not in relaxations."
    return shown


def _by_cell(runs: Sequence[Mapping[str, Any]], best: Mapping[str, float]) -> Table:
    """Where each method wins: how many seeds solve a cell, and the median force calls of those that do."""
    shown = Table(title="Seeds that solve each cell, (median force calls)", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("cell", no_wrap=True)
    methods = [name for name in ORDER if any(one["method"] == name for one in runs)]
    for name in methods:
        shown.add_column(name, justify="right", no_wrap=True)
    for cell in sorted(best, key=lambda name: int(name.partition("-")[0])):
        texts = []
        for method in methods:
            own = [_trace(one, best[cell]) for one in runs if (one["cell"], one["method"]) == (cell, method)]
            costs = [trace.solved_at[1] for trace in own if trace.solved_at]
            texts.append(f"{len(costs)}/{len(own)}" + (f" ({np.median(costs):.0f})" if costs else "") if own else "")
        shown.add_row(cell, *texts)
    return shown


def _hard_cells(traces: Sequence[RunResult]) -> set[str]:
    solved: dict[str, list[bool]] = {}
    for trace in traces:
        if trace.strategy == "random":
            solved.setdefault(trace.problem, []).append(_solved_within(trace, EASY_WITHIN))
    return {problem for problem, seeds in solved.items() if sum(seeds) <= len(seeds) / 2}


def _portfolio_bound(traces: Sequence[RunResult], within: int) -> tuple[str, float, float] | None:
    """Share solved by the portfolio less the best single source's, and its 10 % quantile over cells drawn anew."""
    keys = {name: {(t.problem, t.seed): t for t in traces if t.strategy == name} for name in (*SINGLE, PORTFOLIO)}
    keys = {name: own for name, own in keys.items() if own}
    if PORTFOLIO not in keys or len(keys) < 2:
        return None
    common = set.intersection(*(set(own) for own in keys.values()))
    cells = sorted({problem for problem, _ in common})
    if not cells:
        return None
    counts = {
        name: np.array(
            [[sum(_solved_within(own[k], within) for k in common if k[0] == cell)] for cell in cells]
        ).ravel()
        for name, own in keys.items()
    }
    size = np.array(list(Counter(sorted(problem for problem, _ in common)).values()))
    best = max((name for name in counts if name != PORTFOLIO), key=lambda name: counts[name].sum())
    difference = counts[PORTFOLIO] - counts[best]
    drawn = np.random.default_rng(0).integers(len(cells), size=(4000, len(cells)))
    shares = difference[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return best, float(difference.sum() / size.sum()), float(np.quantile(shares, 0.1))


def _solved_within(trace: RunResult, relaxations: int) -> bool:
    return trace.solved_at is not None and trace.solved_at[0] <= relaxations


def _trace(one: Mapping[str, Any], goal: float) -> RunResult:
    solved = next(((n, calls) for n, calls, energy in one["improvements"] if energy <= goal + SOLVED), None)
    return RunResult(
        problem=one["cell"],
        strategy=one["method"],
        seed=one["seed"],
        relaxations=one["relaxations"],
        failed=sum(sum(tally["failed"].values()) for tally in one["tallies"]),
        rejected=sum(sum(tally["rejected"].values()) for tally in one["tallies"]),
        force_calls=one["force_calls"],
        seconds=one["seconds"],
        best=one["improvements"][-1][2] if one["improvements"] else None,
        solved_at=solved,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the tables of benchmarks/README.md instead")
    if parser.parse_args().markdown:
        print(markdown())
    else:
        report(Console(width=150))
