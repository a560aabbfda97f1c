"""Comparison of strategies on chemical systems, also with every composition searched alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp import config
from hybridcsp.analysis.run_results import SourceRole
from hybridcsp.core.system import System
from hybridcsp.errors import InputError
from hybridcsp.search.references import read_references
from hybridcsp.workflows.compare import PlannedRun, check_not_empty, folder_name, plan

#: Prefix of a strategy that searches every composition alone, with an equal share of the relaxations.
SEPARATE = "separate:"

#: Folder in which known phases are relaxed.
KNOWN_PHASES = "known-phases"


@dataclass(frozen=True, kw_only=True)
class SystemRun:
    """One run of a comparison on a chemical system.

    Attributes
    ----------
    problem, strategy, seed
        The name of the problem, the strategy and the random seed.
    system
        The chemical system.
    parts
        Its searches: one of the system, or one for each composition.
    sources
        The expected roles of the sources, by their names in the archives.
    """

    problem: str
    strategy: str
    seed: int
    system: System
    parts: tuple[PlannedRun, ...]
    sources: Mapping[str, SourceRole] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SystemPlan:
    """All searches of a comparison on chemical systems.

    Attributes
    ----------
    runs
        The runs, sorted by seed.
    known
        The searches that relax the known phases that were given, by problem.
    """

    runs: tuple[SystemRun, ...]
    known: Mapping[str, PlannedRun]

    @property
    def searches(self) -> list[PlannedRun]:
        """The searches to execute, those of known phases first."""
        return [*self.known.values(), *(part for run in self.runs for part in run.parts)]


def plan_systems(
    problems: Mapping[str, Mapping[str, Any]],
    strategies: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    *,
    trust: bool = False,
    trust_commands: bool = False,
) -> SystemPlan:
    """Plan all runs of a comparison on chemical systems.

    Known phases (``references``) are not given to the runs: they are what the runs are measured by, and are relaxed in
    a search of their own, with the same calculator.

    Parameters
    ----------
    problems
        Configurations as TOML tables, by the names of the problems; each is a chemical system.
    strategies
        Strategies, as for formulas; with the prefix ``separate:`` every composition is searched alone.
    seeds
        Random seeds of the runs.
    directory
        The folder of the run directories: ``problem/strategy/seed-N``, with the prefix
        ``problem/separate/composition/strategy/seed-N``.
    trust, trust_commands
        As for :func:`hybridcsp.workflows.compare.plan`.

    Raises
    ------
    InputError
        As for :func:`hybridcsp.workflows.compare.plan`; also if a file of known phases cannot be used, or there are
        fewer relaxations than compositions that are searched alone.
    """
    check_not_empty(problems, strategies, seeds)
    agreed = {"trust": trust, "trust_commands": trust_commands}
    strategies = list(dict.fromkeys(strategies))
    together = [strategy for strategy in strategies if not strategy.startswith(SEPARATE)]
    known: dict[str, PlannedRun] = {}
    found: dict[tuple[int, str, str], SystemRun] = {}
    for problem, base in problems.items():
        search = dict(base.get("search", {}))
        given = search.pop("references", ())
        raw = {**base, "search": search}
        system = config.parse(raw, problem).problem
        assert isinstance(system, System)
        parts: dict[tuple[int, str], tuple[PlannedRun, ...]] = {}
        if together:
            parts |= {
                (run.seed, run.strategy): (run,) for run in plan({problem: raw}, together, seeds, directory, **agreed)
            }
        for strategy in strategies:
            if strategy.startswith(SEPARATE):
                alone = strategy.removeprefix(SEPARATE)
                own = _separate(raw, system, alone, seeds, directory / folder_name(problem) / "separate", agreed)
                parts |= {(seed, strategy): searches for seed, searches in own.items()}
        for (seed, strategy), searches in parts.items():
            found[seed, problem, strategy] = SystemRun(
                problem=problem,
                strategy=strategy,
                seed=seed,
                system=system,
                parts=searches,
                sources=searches[0].sources,
            )
        if given:
            budget = {**raw.get("budget", {}), "relaxations": len(read_references(given, system))}
            tables = {**raw, "search": {**search, "references": list(given)}, "budget": budget}
            (known[problem],) = plan({problem: tables}, ["random"], [0], directory / KNOWN_PHASES, **agreed)
    order = [
        found[seed, problem, strategy]
        for seed in dict.fromkeys(seeds)
        for problem in problems
        for strategy in strategies
    ]
    return SystemPlan(runs=tuple(order), known=known)


def _separate(
    raw: Mapping[str, Any],
    system: System,
    strategy: str,
    seeds: Sequence[int],
    directory: Path,
    agreed: Mapping[str, bool],
) -> dict[int, tuple[PlannedRun, ...]]:
    """Plan one search of each composition for each seed; relaxations left over go to compositions drawn at random."""
    number = len(system.compositions)
    relaxations = config.parse(raw, system.formula).budget.relaxations or 0
    if relaxations < number:
        allowed = f"at least {number}, one for each composition of {system.formula} that is searched alone"
        raise InputError("budget.relaxations", relaxations, allowed)
    problems = {}
    for formula in system.compositions:
        described = system.problem(formula).describe()
        problems[formula] = {**raw, "problem": {key: one for key, one in described.items() if one is not None}}
    runs = plan(problems, [strategy], seeds, directory, **agreed)
    each, rest = divmod(relaxations, number)
    found = {}
    for seed in dict.fromkeys(seeds):
        more = set(np.random.default_rng(seed).permutation(number)[:rest].tolist())
        own = [run for run in runs if run.seed == seed]
        found[seed] = tuple(
            replace(run, raw={**run.raw, "budget": {**run.raw["budget"], "relaxations": each + (place in more)}})
            for place, run in enumerate(own)
        )
    return found
