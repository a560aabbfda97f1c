"""Provide the source that builds crystals orbit after orbit by Monte-Carlo tree search."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from hybridcsp.archive.distances import search_distances
from hybridcsp.archive.heights import Heights
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Rejected, RejectionReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Cost, Proposal
from hybridcsp.errors import InputError
from hybridcsp.generators.base import Generator
from hybridcsp.generators.growing import GrowingGenerator
from hybridcsp.generators.loading import find_generator, shared_generator
from hybridcsp.objectives.goals import Goals
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.growth_policies import GeneratorPolicy, GrowthPolicy, RandomPolicy
from hybridcsp.sources.random import RandomSource
from hybridcsp.sources.search_tree import Growth, SearchTree, values_of
from hybridcsp.structure.wyckoff import point_group_order
from hybridcsp.utils.activity import announce

#: Reasons of rejections that say nothing about a candidate.
_UNTRIED = (RejectionReason.NOT_TAKEN, RejectionReason.OTHER_CALCULATOR)


class TreeSearchSource(BaseSource):
    r"""Monte-Carlo tree search over the steps by which a crystal is built.

    A crystal is built by choosing the number of formula units, the order of the point group, the space group, and then
    one occupied Wyckoff position after the other. Each candidate is a path from the root of a tree: through the known
    part of it, the child with the highest upper confidence bound

    .. math:: \frac{w}{v} + \frac{\sqrt 2}{4} (\max - \min) \sqrt{\frac{2 \ln v_\mathrm{parent}}{v}}

    follows, w being the sum of the values of the v candidates through it, and max and min the extremes of those through
    its parent: the adaptive constant of MDTS. The other steps, cell and coordinates are drawn by a policy: at random as
    in the source ``random``, or by a generator. The first of these steps becomes a node, so that the tree grows by one
    node with each candidate, up to 20,000. A node may have as many children as the square root of its visits
    (progressive widening), because there may be hundreds; growths that differ in the order of steps or in the origin of
    the cell share a node.

    The workers relax the candidates. The value of a relaxation is the share of all results that are worse: the best
    minimum has nearly 1, so that holes and outliers of the energy do not matter for the scale. Failures, rejected
    candidates, relaxations without a minimum, suspect minima, minima that do not meet the condition of the search, and
    minima of niches that were known before have 0: what is found again is no reason to return. Heights are those of the
    last follow-up calculator. Candidates without a result count as visits.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        Generator that completes crystals: ``"wyckoff"``, or a folder of its weights; by default crystals are completed
        at random.
    generator
        The generator itself, in place of an argument.

    Raises
    ------
    InputError
        If the generator is unknown or does not build crystals orbit after orbit, or the allowed space groups cannot
        hold the contents.

    References
    ----------
    MDTS: Dieb, Ju, Yoshizoe, Hou, Shiomi, Tsuda, Sci. Technol. Adv. Mater. 18, 498 (2017),
    doi:10.1080/14686996.2017.1344083. Upper confidence bounds: Kocsis, Szepesvári, doi:10.1007/11871842_29.
    Progressive widening: Couëtoux, Hoock, Sokolovska, Teytaud, Bonnard, doi:10.1007/978-3-642-25566-3_32. Running
    candidates as visits: Liu et al., doi:10.48550/arXiv.1810.11755.
    """

    def __init__(
        self, problem: Problem, argument: str | None = None, *, generator: GrowingGenerator | None = None
    ) -> None:
        self._problem = problem
        if argument is not None and generator is None:
            generator = _growing_generator(argument)
        if generator is None:
            RandomSource(problem)  # complains about space groups that cannot hold the contents
        self._completes = generator is not None
        self._policy: GrowthPolicy = RandomPolicy(problem) if generator is None else GeneratorPolicy(problem, generator)
        self._heights = Heights()
        self._suspects: frozenset[int] = frozenset()
        self._results: list[Relaxed | None] = []  # ``None`` for those of the lowest value
        self._sent: dict[int, list[Hashable]] = {}  # nodes of the candidates without a result
        self.tree = SearchTree()

    def pursue(self, goals: Goals) -> None:
        """Give minima that do not meet the condition of the search the lowest value."""
        self._heights = Heights(goals)

    def status(self) -> SourceStatus:
        """Return EXHAUSTED with a fixed cell if a generator completes crystals, because it cannot fill one."""
        return SourceStatus.EXHAUSTED if self._completes and self._problem.cell is not None else SourceStatus.READY

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return at most one proposal; its tag holds ``units``, ``spacegroup`` and ``sites`` (element and letter)."""
        start = time.perf_counter()
        rng, policy = context.rng, self._policy
        own = search_distances(context.archive, self._problem)
        values = self._values()
        failures: Counter[Hashable] = Counter()
        for attempt in range(policy.attempts):
            growth = self.tree.select(values, lambda part: policy.complete(part, rng), failures)
            if growth is None:
                continue
            atoms = policy.build(growth, attempt, own, rng)
            if atoms is not None:
                sites = [list(site) for site in growth.sites]
                tag = {"units": growth.units, "spacegroup": growth.spacegroup, "sites": sites}
                cost = Cost(seconds=time.perf_counter() - start)
                return [Proposal(atoms=atoms, operator="tree-search", tag=tag, cost=cost)]
            failures.update(step.key for step in growth.steps())
        return []

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Add the next step of each candidate to the tree."""
        for candidate in candidates:
            tag = candidate.proposal.tag
            group = int(tag["spacegroup"])
            sites = tuple((str(symbol), str(letter)) for symbol, letter in tag["sites"])
            growth = Growth(int(tag["units"]), point_group_order(group), group, sites)
            self._sent[candidate.id] = self.tree.add(growth)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Pass the results of candidates on to all nodes of their paths."""
        for outcome in outcomes:
            self._heights.observe(outcome)
            if isinstance(outcome, Relaxed):
                self._suspects = outcome.suspects_after(self._suspects)
            visited = self._sent.pop(outcome.candidate.id, None)
            if visited is None:
                continue
            if isinstance(outcome, Rejected) and outcome.reason in _UNTRIED:
                self.tree.end(visited, None)
                continue
            new = isinstance(outcome, Relaxed) and outcome.minimum is not None and outcome.is_new_niche
            self._results.append(outcome if new and isinstance(outcome, Relaxed) else None)
            self.tree.end(visited, len(self._results) - 1)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Note by how much follow-up relaxations shift minima."""
        for outcome in outcomes:
            self._heights.observe_follow_up(outcome)

    def _values(self) -> NDArray[np.float64]:
        """Return the values of all results."""
        return values_of(
            [
                self._heights.shifted(end)
                if end is not None and end.minimum not in self._suspects and self._heights.allow(end)
                else None
                for end in self._results
            ]
        )


def _growing_generator(argument: str) -> GrowingGenerator:
    allowed = "a generator that builds crystals orbit after orbit: tree-search:wyckoff, or a folder of its weights"
    entry, _ = find_generator(argument)
    if entry.package != "hybridcsp":
        raise InputError("source", f"tree-search:{argument}", allowed)
    announce(f"loading the generator {argument}")
    generator: Generator = shared_generator(argument)
    if not isinstance(generator, GrowingGenerator):
        raise InputError("source", f"tree-search:{argument}", allowed)
    return generator
