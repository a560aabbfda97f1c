"""The ranking of minima that counts: by the last follow-up calculator as far as it has results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hybridcsp.archive.basins import Basin
from hybridcsp.archive.follow_up_events import FollowUpRelaxed
from hybridcsp.archive.follow_ups import FollowUpMinimum
from hybridcsp.archive.state import SearchState
from hybridcsp.core.minimum import FollowUpResult, Minimum
from hybridcsp.core.outcomes import Relaxed


class FinalRanking:
    """The minima of a search in the order that counts; iterating reads their structures.

    Minima with a result of the last follow-up calculator come first, in the order of its enthalpies, then those that
    only the calculator before it has relaxed, and so on, then the others in the order of the search. Minima of the
    search that ended in the same minimum of a follow-up calculator are one: that of lowest enthalpy by the search.

    Parameters
    ----------
    state
        State of the search.
    read_minimum
        Function that reads a minimum of the search without its follow-ups.
    read_relaxed
        Function that reads the relaxation of an event.
    """

    def __init__(
        self,
        state: SearchState,
        read_minimum: Callable[[Basin], Minimum],
        read_relaxed: Callable[[FollowUpRelaxed], Relaxed],
    ) -> None:
        self._read_minimum = read_minimum
        self._read_relaxed = read_relaxed
        self._ranked = state.ranked()
        self._ranks = {basin.id: rank for rank, basin in enumerate(self._ranked, start=1)}
        self._follow_ups = state.follow_ups
        self._levels = [
            (level, {minimum.id: (rank, minimum) for rank, minimum in enumerate(level.ranked(), start=1)})
            for level in state.follow_ups
        ]

    def __iter__(self) -> Iterator[Minimum]:
        for basin, merged in self.order():
            yield self._minimum(basin, merged)

    def order(self) -> Iterator[tuple[Basin, tuple[int, ...]]]:
        """Yield the basins in order, each with the ids of others that became the same minimum."""
        done: set[int] = set()
        for level, minima in reversed(self._levels):
            members = level.members()
            for number in minima:  # best first
                group = self._follow_ups.same_as(members.get(number, ()), below=level.number)
                ids = sorted((id_ for id_ in group - done if id_ in self._ranks), key=self._ranks.__getitem__)
                if ids and not group & done:
                    yield self._ranked[self._ranks[ids[0]] - 1], tuple(sorted(ids[1:]))
                done |= group
        for basin in self._ranked:
            if basin.id not in done:
                yield basin, ()

    def _minimum(self, basin: Basin, merged: Sequence[int]) -> Minimum:
        found = self._read_minimum(basin)
        results: list[FollowUpResult] = []
        groups = found.spacegroups
        for level, minima in self._levels:
            own = _first(level.result(id_) for id_ in (basin.id, *merged))
            if own is None or own.minimum is None:
                continue
            rank, minimum = minima[own.minimum]
            lowest = level.lowest()
            assert lowest is not None  # there is a minimum
            results.append(self._result(level.spec, own, rank, minimum, minimum.enthalpy_per_atom - lowest))
            strict, loose = minimum.best.spacegroup, minimum.best.spacegroup_loose
            groups = None if strict is None or loose is None else (strict, loose)
        return replace(
            found,
            spacegroups=groups,
            follow_ups=tuple(results),
            merged=tuple(merged),
            search_rank=self._ranks[basin.id],
            search_height=basin.enthalpy_per_atom - self._ranked[0].enthalpy_per_atom,
        )

    def _result(
        self, spec: str, own: FollowUpRelaxed, rank: int, minimum: FollowUpMinimum, height: float
    ) -> FollowUpResult:
        return FollowUpResult(
            spec=spec,
            relaxed=self._read_relaxed(minimum.best),
            minimum=minimum.id,
            rank=rank,
            height=height,
            same_structure=own.same_structure,
        )


def _first(results: Iterator[FollowUpRelaxed | None]) -> FollowUpRelaxed | None:
    return next((result for result in results if result is not None), None)
