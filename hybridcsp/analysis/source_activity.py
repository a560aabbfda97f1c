"""Find out which sources really acted in the runs of a comparison, and which runs are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hybridcsp.analysis.run_results import RANDOM, Role, Trace, is_random


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share that one source has in all relaxations of a strategy.

    Attributes
    ----------
    source
        Its name.
    relaxations, share
        Of candidates that its own method made, failures included, and which part of all relaxations they are.
    random
        Relaxations of random crystals that it proposed instead.
    """

    source: str
    relaxations: int
    share: float
    random: int


@dataclass(frozen=True, kw_only=True)
class Same:
    """Two strategies with runs that relaxed the same candidates one by one.

    Attributes
    ----------
    strategies
        The two.
    runs, of
        How many pairs of runs, of the same problem and seed, are the same, and how many there are.
    """

    strategies: tuple[str, str]
    runs: int
    of: int


def shares(traces: Sequence[Trace]) -> list[Share]:
    """Return what each source of one strategy made of its relaxations; ``traces`` are the runs of that strategy."""
    total = sum(trace.relaxations for trace in traces)
    found = []
    for source in dict.fromkeys(part.source for trace in traces for part in trace.parts):
        parts = [part for trace in traces for part in trace.parts if part.source == source]
        own = sum(part.relaxations for part in parts)
        random = sum(part.random for part in parts)
        found.append(Share(source=source, relaxations=own, share=own / total if total else 0.0, random=random))
    return found


def same_runs(traces: Sequence[Trace]) -> list[Same]:
    """Return the pairs of strategies that have runs with the same candidates."""
    by_strategy: dict[str, dict[tuple[str, int], Trace]] = {}
    for trace in traces:
        by_strategy.setdefault(trace.strategy, {})[trace.problem, trace.seed] = trace
    found = []
    for (first, ours), (second, theirs) in combinations(by_strategy.items(), 2):
        both = [(ours[key], theirs[key]) for key in ours if key in theirs]
        same = sum(bool(a.candidates) and a.relaxations > 0 and a.candidates == b.candidates for a, b in both)
        if same:
            found.append(Same(strategies=(first, second), runs=same, of=len(both)))
    return found


def notes(traces: Sequence[Trace], roles: Mapping[str, Mapping[str, Role]] | None = None) -> list[str]:
    """Say in sentences what was not compared although the names of the strategies promise it.

    Parameters
    ----------
    traces
        All runs; the strategy of the first is the baseline.
    roles
        By strategy, its sources by name.
    """
    by_strategy: dict[str, list[Trace]] = {}
    for trace in traces:
        by_strategy.setdefault(trace.strategy, []).append(trace)
    said: list[str] = []
    baseline = next(iter(by_strategy), "")
    for strategy, own in by_strategy.items():
        of_strategy = (roles or {}).get(strategy, {})
        idle = [text for share in shares(own) if (text := _idleness(share, own, of_strategy))]
        also_idle = idle or any(_idleness(share, by_strategy[baseline], {}) for share in shares(by_strategy[baseline]))
        if strategy != baseline and also_idle and _methods(own) == _methods(by_strategy[baseline]):
            methods = " and ".join(sorted(_methods(own))) or "nothing"
            said.append(f"{strategy}: {'; '.join([*idle, f'this compares {methods} with {methods}'])}.")
        elif idle:
            said.append(f"{strategy}: {'; '.join(idle)}.")
        said += _untrained(strategy, own)
        said += _early(strategy, own)
    for same in same_runs(traces):
        first, second = same.strategies
        said.append(
            f"{second} and {first} relaxed the same candidates, one by one, in {same.runs} of {same.of} "
            f"run{'s' * (same.of != 1)}: these are no independent evidence."
        )
    return said


def _methods(traces: Sequence[Trace]) -> set[str]:
    found = {RANDOM if is_random(share.source) else share.source for share in shares(traces) if share.relaxations}
    return found | ({RANDOM} if any(share.random for share in shares(traces)) else set())


def _idleness(share: Share, traces: Sequence[Trace], roles: Mapping[str, Role]) -> str:
    """Say that a source made no relaxations, or none in some runs, and why; nothing if it acted in all."""
    parts = [part for trace in traces for part in trace.parts if part.source == share.source]
    acted = sum(part.relaxations > 0 for part in parts)
    if acted == len(parts):
        return ""
    total = sum(trace.relaxations for trace in traces)
    role = roles.get(share.source, Role())
    why = [role.starts] if role.starts else []
    proposed, rejected = sum(part.proposed for part in parts), sum(part.rejected for part in parts)
    errors = [part.error for part in parts if part.error]
    if share.random:
        why.append(f"{share.random} were random crystals in its name")
    elif not share.relaxations and not proposed and not why:
        why.append("it proposed nothing")
    elif not share.relaxations and proposed and rejected == proposed:
        why.append(f"all {proposed} proposals were rejected")
    if errors and not share.relaxations:
        why.append(f"its error: {' '.join(errors[-1].split())[:100]}")
    reason = f" ({'; '.join(why)})" if why else ""
    if not share.relaxations:
        return f"{share.source} made 0 of {total} relaxations{reason}"
    return f"{share.source} made no relaxation in {len(parts) - acted} of {len(parts)} runs{reason}"


def _untrained(strategy: str, traces: Sequence[Trace]) -> list[str]:
    said = []
    for source in dict.fromkeys(part.source for trace in traces for part in trace.parts):
        made = [part.trainings for trace in traces for part in trace.parts if part.source == source]
        counts = [count for count in made if count is not None]
        if counts and not any(counts):
            said.append(
                f"{strategy}: {source} was not retrained in any of {len(counts)} "
                f"run{'s' * (len(counts) != 1)}, which were too short for that."
            )
    return said


def _early(strategy: str, traces: Sequence[Trace]) -> list[str]:
    early = [trace for trace in traces if trace.ended and trace.solved_at is None]
    if not early:
        return []
    return [
        f"{strategy}: {len(early)} of {len(traces)} runs ended early without success ({early[0].ended}); they count as "
        f"if they had gone on in vain for as long as the longest run of their problem."
    ]
