"""The population of evolution: diverse low minima, with the weights by which they become parents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.preferred import PreferredMinimum
from hybridcsp.similarity import compute_descriptors
from hybridcsp.similarity.fingerprint import Floats
from hybridcsp.sources.selection import Fitness, Individual
from hybridcsp.sources.survivors import Criteria, survival

#: Smallest and largest number of members, number of lowest minima from which they are chosen, and fraction of the
#: diverse ones that is kept; the worst 40 % have no children, as in USPEX (doi:10.1016/j.cpc.2012.12.009).
FEWEST, POPULATION, LOOKED_AT, KEPT = 6, 24, 100, 0.6

#: Radius of a niche (root mean square difference of fingerprints), and largest number of members of the population
#: within it. Displacements of 0.1 to 0.2 Å make such a difference; rutile and anatase differ by 0.08, and 1 % of pairs
#: of random TiO₂ crystals by less than 0.07.
NICHE = 0.05
PLACES = 3

#: Number of children without success that halves the weight of a parent.
HALF_LIFE = 8

#: Penalty in selection temperatures of a niche for each doubling of the number of its visits.
PENALTY = 0.5


class Population:
    """The population of one search, which is derived from its archive at every call.

    It consists of the lowest minima, at most three of each niche or of similar fingerprints, of which the best 60 % are
    kept, at least six. So the best of every low niche stays, and no family of distorted relatives or supercells can
    fill it. In a search with objectives, NSGA-II or NSGA-III chooses instead among twice as many diverse minima of the
    first Pareto fronts (:func:`~hybridcsp.sources.survivors.survival`). The weight of a member has three factors:

    - a Boltzmann factor of its height above the best. The temperature is the median of the heights of the members,
      at most 40 meV/atom: it follows the spread of a population that has converged, and never lets high minima breed
      as often as low ones. With objectives it is the weight that the rule of selection gives;
    - a penalty for visits to its niche (antiseeds): each visit adds a Gaussian of the fingerprint to the energy
      landscape, whose total grows with the logarithm of their number;
    - 1/2 for every eight children of its own without success: without a new minimum at or below it.

    References
    ----------
    Antiseeds, and the worst 40 % that are dropped: Lyakhov, Oganov, Stokes, Zhu, Comput. Phys. Commun. 184, 1172
    (2013), doi:10.1016/j.cpc.2012.12.009. Niches: Goldberg, Richardson, Proc. 2nd Int. Conf. Genetic Algorithms, 41
    (1987).
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._fingerprints: dict[int, tuple[int, Floats]] = {}  # by minimum: sequence and fingerprint of its end

    def members(self, archive: Archive) -> list[Individual]:
        """Return the members with their weights, the lowest minimum first, or with objectives in no special order."""
        rule = survival(archive.state.goals)
        chosen: list[PreferredMinimum] = []
        fingerprints: list[Floats] = []
        for preferred in archive.preferred_minima(LOOKED_AT):
            own = self._fingerprint(preferred)
            near = sum(
                one.niche == preferred.niche or _distance(own, other) < NICHE
                for one, other in zip(chosen, fingerprints, strict=True)
            )
            if near < PLACES:
                chosen.append(preferred)
                fingerprints.append(own)
            if len(chosen) == rule.choices * POPULATION:
                break
        kept = max(FEWEST, math.ceil(KEPT * min(len(chosen), POPULATION)))
        heights, criteria = [one.height for one in chosen], _criteria(archive, chosen)
        weight_of = rule.weights(heights, criteria, kept, seed=archive.state.relaxations)
        chosen = [chosen[place] for place in weight_of]
        fingerprints = [fingerprints[place] for place in weight_of]
        visits = _visits(archive, chosen, fingerprints)
        failures = children_without_success(archive, self._source, chosen)
        return [
            Individual(
                one.minimum,
                one.end,
                Fitness((weight * math.exp(-PENALTY * math.log2(visited)) * 2 ** (-failed / HALF_LIFE),)),
            )
            for one, weight, visited, failed in zip(chosen, weight_of.values(), visits, failures, strict=True)
        ]

    def _fingerprint(self, preferred: PreferredMinimum) -> Floats:
        id_, end = preferred.minimum.id, preferred.end
        known = self._fingerprints.get(id_)
        if known is None or known[0] != end.sequence:
            known = self._fingerprints[id_] = end.sequence, compute_descriptors(end.atoms).fingerprint
        return known[1]


def children_without_success(archive: Archive, source: str, minima: Sequence[PreferredMinimum]) -> list[int]:
    """Return the number of children of each minimum since the last that found a new minimum at or below it.

    Only children that the source has made itself count: those of other sources, which displace minima again and again,
    tell nothing of what the operators of evolution can make of a parent.
    """
    found = {basin.found_by: height for basin, height in archive.state.preferred()}
    levels = {one.minimum.found_by.id: one.height for one in minima}
    failures: Counter[int] = Counter()
    for event in archive.state.candidates_of(source):
        for parent in event.parents:
            if found.get(event.candidate, math.inf) <= levels.get(parent, -math.inf):
                failures[parent] = 0
            else:
                failures[parent] += 1
    return [failures[one.minimum.found_by.id] for one in minima]


def _criteria(archive: Archive, minima: Sequence[PreferredMinimum]) -> list[Criteria]:
    """Return the criteria of minima by which a search with objectives compares them."""
    goals = archive.state.goals
    if not goals.optimised:
        return [None for _ in minima]
    heights = {basin.id: height for basin, height in archive.state.heights()}
    return [goals.criteria(one.minimum.objectives, heights[one.minimum.id]) for one in minima]


def _visits(archive: Archive, minima: Sequence[PreferredMinimum], fingerprints: Sequence[Floats]) -> list[float]:
    """Return the number of visits to the surroundings of each minimum.

    Visits to its own niche count fully, and those to the niches of the others with a Gaussian of the fingerprints.
    """
    visited: Counter[int] = Counter()
    for basin in archive.state.basins.values():
        visited[basin.niche] += basin.multiplicity
    members = Counter(one.niche for one in minima)
    return [
        sum(
            visited[other.niche] / members[other.niche] * (1.0 if other.niche == one.niche else _closeness(own, theirs))
            for other, theirs in zip(minima, fingerprints, strict=True)
        )
        for one, own in zip(minima, fingerprints, strict=True)
    ]


def _closeness(first: Floats, second: Floats) -> float:
    return math.exp(-((_distance(first, second) / NICHE) ** 2))


def _distance(first: Floats, second: Floats) -> float:
    """Return the root mean square difference of two fingerprints without their volumes."""
    return float(np.sqrt(np.mean((first[:-1] - second[:-1]) ** 2)))
