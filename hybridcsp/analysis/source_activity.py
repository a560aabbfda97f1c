"""Report which sources improved the best of a search, which took part in runs, and which runs are identical."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hybridcsp.analysis.run_results import RANDOM, RunResult, SourceRole, is_random
from hybridcsp.archive.archive import Archive
from hybridcsp.archive.basins import Basin
from hybridcsp.archive.history import Improvement
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState

#: Largest height of a low niche above the best in eV/atom.
LOW = 0.05

#: Smallest fall of the lowest enthalpy that counts as an improvement, in eV/atom.
SMALLEST_FALL = 1e-4


@dataclass(frozen=True, kw_only=True)
class SourceShare:
    """The share of one source in all relaxations of a strategy.

    Attributes
    ----------
    source
        Name of the source.
    relaxations, share
        Number of relaxations of candidates made by its own method, failures included, and their fraction of all
        relaxations.
    random
        Number of relaxations of random crystals that it proposed instead.
    """

    source: str
    relaxations: int
    share: float
    random: int


@dataclass(frozen=True, kw_only=True)
class IdenticalRuns:
    """Two strategies with runs that relaxed the same candidates in the same order.

    Attributes
    ----------
    strategies
        Names of the two strategies.
    runs, of
        Number of identical pairs of runs, and number of pairs with the same problem and seed.
    """

    strategies: tuple[str, str]
    runs: int
    of: int


def improvements(archive: Archive) -> list[Improvement]:
    """Return the relaxations that lowered the lowest enthalpy of a search, with their sources, oldest first.

    Each is a named tuple ``(relaxation, force_calls, enthalpy_per_atom, source, operator)``. Only energies of the
    calculator in use count. Falls by 0.1 meV/atom or less are left out: they are those of minima relaxed further.
    """
    found: list[Improvement] = []
    for one in archive.state.improvements:
        if not found or one.enthalpy_per_atom < found[-1].enthalpy_per_atom - SMALLEST_FALL:
            found.append(one)
    return found


def niches_reached_alone(state: SearchState) -> Counter[tuple[str, str]]:
    """Return the number of low niches that one relaxation alone has reached, by its source and operator.

    They are what the allocation credits a source with: a source that still finds such niches may find one below the
    best. Suspect minima do not count. In a chemical system those of all compositions are added up.
    """
    if isinstance(state, SystemState):
        return sum(map(niches_reached_alone, state.parts.values()), Counter[tuple[str, str]]())
    reached: defaultdict[int, list[Basin]] = defaultdict(list)
    for basin in state.comparable():
        if not basin.suspect:
            reached[basin.niche].append(basin)
    if not reached:
        return Counter()
    highest = LOW + min(basin.enthalpy_per_atom for basins in reached.values() for basin in basins)
    alone = [
        state.candidates[basins[0].found_by]
        for basins in reached.values()
        if sum(basin.multiplicity for basin in basins) == 1 and basins[0].enthalpy_per_atom <= highest
    ]
    return Counter((candidate.source, candidate.operator) for candidate in alone)


def source_shares(results: Sequence[RunResult]) -> list[SourceShare]:
    """Return the share of each source in the relaxations of one strategy, given the results of its runs."""
    total = sum(result.relaxations for result in results)
    shares = []
    for source in dict.fromkeys(part.source for result in results for part in result.parts):
        parts = [part for result in results for part in result.parts if part.source == source]
        own = sum(part.relaxations for part in parts)
        random = sum(part.random for part in parts)
        shares.append(SourceShare(source=source, relaxations=own, share=own / total if total else 0.0, random=random))
    return shares


def identical_runs(results: Sequence[RunResult]) -> list[IdenticalRuns]:
    """Return the pairs of strategies that have runs with the same candidates."""
    by_strategy: dict[str, dict[tuple[str, int], RunResult]] = {}
    for result in results:
        by_strategy.setdefault(result.strategy, {})[result.problem, result.seed] = result
    found = []
    for (first, ours), (second, theirs) in combinations(by_strategy.items(), 2):
        both = [(ours[key], theirs[key]) for key in ours if key in theirs]
        same = sum(bool(a.candidates) and a.relaxations > 0 and a.candidates == b.candidates for a, b in both)
        if same:
            found.append(IdenticalRuns(strategies=(first, second), runs=same, of=len(both)))
    return found


def comparison_notes(
    results: Sequence[RunResult], roles: Mapping[str, Mapping[str, SourceRole]] | None = None
) -> list[str]:
    """Return a sentence for each reason why the runs do not compare the strategies that their names state.

    Parameters
    ----------
    results
        Results of all runs; the strategy of the first is the baseline.
    roles
        The sources of each strategy by name.
    """
    by_strategy: dict[str, list[RunResult]] = {}
    for result in results:
        by_strategy.setdefault(result.strategy, []).append(result)
    sentences: list[str] = []
    baseline = next(iter(by_strategy), "")
    for strategy, own in by_strategy.items():
        of_strategy = (roles or {}).get(strategy, {})
        idle = [text for share in source_shares(own) if (text := _idle(share, own, of_strategy))]
        base = by_strategy[baseline]
        some_idle = idle or any(_idle(share, base, {}) for share in source_shares(base))
        if strategy != baseline and some_idle and _methods(own) == _methods(base):
            methods = " and ".join(sorted(_methods(own))) or "nothing"
            sentences.append(f"{strategy}: {'; '.join([*idle, f'this compares {methods} with {methods}'])}.")
        elif idle:
            sentences.append(f"{strategy}: {'; '.join(idle)}.")
        sentences += _untrained(strategy, own)
        sentences += _exhausted(strategy, own)
    for same in identical_runs(results):
        first, second = same.strategies
        sentences.append(
            f"{second} and {first} relaxed identical candidates in {same.runs} of {same.of} run{'s' * (same.of != 1)}; "
            "these runs are not independent evidence."
        )
    return sentences


def _methods(results: Sequence[RunResult]) -> set[str]:
    shares = source_shares(results)
    found = {RANDOM if is_random(share.source) else share.source for share in shares if share.relaxations}
    return found | ({RANDOM} if any(share.random for share in shares) else set())


def _idle(share: SourceShare, results: Sequence[RunResult], roles: Mapping[str, SourceRole]) -> str:
    """Return a clause if a source took no part in all or some of the runs, with the reason; otherwise an empty text."""
    parts = [part for result in results for part in result.parts if part.source == share.source]
    active = sum(part.relaxations > 0 for part in parts)
    if active == len(parts):
        return ""
    total = sum(result.relaxations for result in results)
    role = roles.get(share.source, SourceRole())
    reasons = [role.waiting_for] if role.waiting_for else []
    proposed, rejected = sum(part.proposed for part in parts), sum(part.rejected for part in parts)
    errors = [part.error for part in parts if part.error]
    if share.random:
        reasons.append(f"it proposed {share.random} random crystals instead")
    elif not share.relaxations and not proposed and not reasons:
        reasons.append("it proposed nothing")
    elif not share.relaxations and proposed and rejected == proposed:
        reasons.append(f"all {proposed} proposals were rejected")
    if errors and not share.relaxations:
        reasons.append(f"its error: {' '.join(errors[-1].split())[:100]}")
    reason = f" ({'; '.join(reasons)})" if reasons else ""
    if not share.relaxations:
        return f"{share.source} contributed 0 of {total} relaxations{reason}"
    return f"{share.source} contributed no relaxation in {len(parts) - active} of {len(parts)} runs{reason}"


def _untrained(strategy: str, results: Sequence[RunResult]) -> list[str]:
    sentences = []
    for source in dict.fromkeys(part.source for result in results for part in result.parts):
        trainings = [part.trainings for result in results for part in result.parts if part.source == source]
        counts = [count for count in trainings if count is not None]
        if counts and not any(counts):
            sentences.append(
                f"{strategy}: {source} was not retrained in any of {len(counts)} "
                f"run{'s' * (len(counts) != 1)}; the runs were too short."
            )
    return sentences


def _exhausted(strategy: str, results: Sequence[RunResult]) -> list[str]:
    early = [result for result in results if result.ended and result.solved_at is None]
    if not early:
        return []
    return [
        f"{strategy}: {len(early)} of {len(results)} runs ended early without success ({early[0].ended}); they count "
        "as unsuccessful up to the length of the longest run of their problem."
    ]
