"""Files of runs: one line of JSON for each run, to which lines are only added."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of runs; none if there is no file yet."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append_line(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a file of runs, in a folder that is made if it does not exist."""
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def execute_missing(
    plan: Sequence[Mapping[str, Any]],
    file: Path,
    name_of: Callable[[Mapping[str, Any]], str],
    execute: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    seconds_per_relaxation: float,
) -> None:
    """Execute the runs of a plan that a file of runs lacks, and add their lines, after printing the planned core-hours.

    Parameters
    ----------
    plan
        Runs, with their ``relaxations``.
    file
        File of runs, whose lines have the names of runs as ``id``.
    name_of
        Function that returns the name of a run.
    execute
        Function that executes a run and returns its line.
    seconds_per_relaxation
        Estimate of the cost.
    """
    finished = {line["id"] for line in read_lines(file)}
    todo = [run for run in plan if name_of(run) not in finished]
    hours = sum(run["relaxations"] for run in todo) * seconds_per_relaxation / 3600
    print(f"{len(todo)} of {len(plan)} runs to do, about {hours:.2f} core-hours", flush=True)
    for run in todo:
        line = execute(run)
        append_line(file, line)
        print(line["id"], line["force_calls"], "force calls,", line["processor_seconds"], "s", flush=True)


def searched_by_all(searches: Iterable[tuple[str, *tuple[Any, ...]]], arms: Sequence[str]) -> set[tuple[Any, ...]]:
    """Return what all arms have searched, given the arm of each search and what it searched, such as problem and seed.

    Raises
    ------
    SystemExit
        If the arms have no search in common; the message lists the arms with their numbers of searches.
    """
    of_arms: dict[str, set[tuple[Any, ...]]] = {arm: set() for arm in arms}
    others: Counter[str] = Counter()
    for arm, *searched in searches:
        if arm in of_arms:
            of_arms[arm].add(tuple(searched))
        else:
            others[arm] += 1
    common = set.intersection(*of_arms.values()) if of_arms else set()
    if common:
        return common
    counts = {arm: len(own) for arm, own in of_arms.items()} | others
    listed = "".join(f"\n  {arm}: {count} searches" for arm, count in sorted(counts.items()))
    if not any(counts.values()):
        raise SystemExit("No searches have been recorded: run some first.")
    raise SystemExit(f"No search has been made by all of these arms; choose arms that have some in common:{listed}")
