"""Provide the source that does particle swarm optimisation, without generations."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from ase import Atoms

from hybridcsp.archive.heights import Heights
from hybridcsp.core.minimum import Minimum
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Cost, Proposal
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.objectives.goals import Goals
from hybridcsp.operators.common import bounded_attempts
from hybridcsp.similarity import compute_descriptors
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.random import RandomSource
from hybridcsp.sources.swarm_particles import Floats, Particle, SubSwarm, Velocity, beginning
from hybridcsp.structure.mapping import deformed, match

#: Number of particles of all sub-swarms together, and smallest number of one sub-swarm.
POPULATION, SMALLEST = 10, 5

#: Weights of the personal and of the common best.
C1 = C2 = 2.0

#: Largest number of draws of random weights for one move, until the structure obeys the distances.
DRAWS = 20

#: Number of minima from which a new particle tries to start, and fractions of the largest velocity that it tries.
HOMES, SLOWER = 3, (1.0, 0.5, 0.25)

#: Fraction of the known minima that form a niche (one in this number), and smallest number of minima in a niche.
NICHES, SMALLEST_NICHE = 4, 3

# Cells as alike as this (logarithmic strain) count as the fixed one.
_FIXED_CELL = 1e-3


class Attractor(Protocol):
    """Interface of the choice of the second minimum that attracts a particle, in addition to its own best."""

    def choose(self, best: Atoms, minima: Sequence[Minimum]) -> Minimum:
        """Return one of the known minima (at least one, best first) for a particle with this personal best."""


class GlobalBest:
    """Attract particles to the best of all minima: Wang, Lv, Zhu, Ma, doi:10.1103/PhysRevB.82.094116."""

    def choose(self, best: Atoms, minima: Sequence[Minimum]) -> Minimum:
        """Return the best minimum."""
        return minima[0]


class LocalBest:
    """Attract particles to the best minimum of their niche: Lv, Wang, Zhu, Ma, doi:10.1063/1.4746757.

    The niche is the quarter of the known minima whose fingerprints are nearest to that of the particle's personal best,
    in place of the paper's bond characterisation matrices.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[tuple[int, int], Floats] = {}  # a cache

    def choose(self, best: Atoms, minima: Sequence[Minimum]) -> Minimum:
        """Return the best of the minima that are most similar to the particle's best."""
        own = compute_descriptors(best).fingerprint
        distances = [float(np.mean((self._fingerprint(minimum) - own) ** 2)) for minimum in minima]
        size = max(SMALLEST_NICHE, math.ceil(len(minima) / NICHES))
        niche = np.argsort(distances, kind="stable")[:size]
        return minima[int(niche.min())]  # they are ranked

    def _fingerprint(self, minimum: Minimum) -> Floats:
        key = minimum.best.candidate.id, minimum.best.sequence
        if key not in self._fingerprints:
            self._fingerprints[key] = np.asarray(compute_descriptors(minimum.best.atoms).fingerprint)
        return self._fingerprints[key]


#: Modes by the argument that names them.
ATTRACTORS: Mapping[str, type[Attractor]] = {"local": LocalBest, "global": GlobalBest}


class SwarmSource(BaseSource):
    r"""Particle swarm optimisation of positions and cells, as in CALYPSO, asynchronously.

    A particle's velocity in fractions of the cell and logarithmic strain is

    .. math:: v' = w v + c_1 r_1 (p - x) + c_2 r_2 (g - x), \qquad x' = x + v',

    x being where it stood *before* its last relaxation, p the best that it has relaxed to, and g the attractor: in mode
    "local" the best minimum of its niche (:class:`LocalBest`), in mode "global" the best of all
    (:class:`GlobalBest`), whichever source found it. Differences are those of atoms matched under periodicity
    (:func:`~hybridcsp.structure.mapping.match`). The inertia w falls from 0.9 to 0.4, :math:`c_1 = c_2 = 2`, and
    :math:`r_1, r_2` are uniform in [0, 1], one pair for all atoms and the cell, so that what x, p and g have in common
    is kept. Velocities are capped. Cells evolve along with the positions (CALYPSO's first version let
    positions evolve alone).

    In contrast to the papers there are no generations. A particle moves when its own relaxation has ended, the inertia
    falls with the number of outcomes, and of every five proposals two are of new particles that take the place of the
    worst (the papers' 1 - PsoRatio of a generation). Each cell content has a swarm of its own; they take turns.

    A new particle begins at the lowest minimum of the archive that no particle has been to, as if it had found it
    itself, with a random velocity, and moves at once; where distances forbid that, more slowly, or from the next. If
    there is none, for instance if the swarm is the only source, it begins at a random structure, as in the papers.

    Where follow-up relaxations put a minimum higher or lower than the search does, "best" and "lowest" are by these
    heights (:class:`~hybridcsp.archive.heights.Heights`).

    A move is drawn again, up to twenty times, until it obeys the problem, with distances like those of p and g at
    first, at last those that the problem asks for; if that does not help, or after three rejections or failures in a
    row, a new particle takes its place.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        The mode, "local" (default) or "global".

    Raises
    ------
    InputError
        If the argument is another one, or the random source finds no structure.

    References
    ----------
    Wang, Lv, Zhu, Ma, Phys. Rev. B 82, 094116 (2010), doi:10.1103/PhysRevB.82.094116; Comput. Phys. Commun. 183,
    2063 (2012), doi:10.1016/j.cpc.2012.05.008; Lv, Wang, Zhu, Ma, J. Chem. Phys. 137, 084104 (2012),
    doi:10.1063/1.4746757.
    """

    waiting_for = f"it starts after {SMALLEST} minima"

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        mode = "local" if argument is None else argument
        if mode not in ATTRACTORS:
            raise UnknownNameError("swarm", mode, ATTRACTORS)
        self.attractor = ATTRACTORS[mode]()
        self._problem = problem
        self._fixed_cell = problem.cell is not None
        self._largest_strain = _FIXED_CELL if self._fixed_cell else math.inf
        sources = _random_sources(problem)
        size = max(SMALLEST, POPULATION // len(sources))
        self._heights = Heights()
        self.swarms = {units: SubSwarm(source, size, self._heights) for units, source in sources.items()}
        self._sent: dict[int, tuple[int, int]] = {}  # candidate -> cell content and particle

    def pursue(self, goals: Goals) -> None:
        """Let only minima that meet the condition of the search be the bests of particles and their beginnings."""
        self._heights = Heights(goals)
        for swarm in self.swarms.values():
            swarm.heights = self._heights

    def status(self) -> SourceStatus:
        """Return WAITING before there are enough minima to start from."""
        known = sum(len(swarm.known) for swarm in self.swarms.values())
        return SourceStatus.READY if known >= SMALLEST else SourceStatus.WAITING

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return one proposal for the cell contents with the fewest proposals.

        The tag holds ``units`` (the cell content), ``particle``, ``generation`` (moves of the particle so far) and
        ``velocity``; for a new particle ``replaces`` (the particle that ends, if any); for moves ``inertia`` and the
        ``weights`` that were drawn; for a new particle's move the ``minimum`` that it begins at and the velocity with
        which it ``leaves``.
        """
        start = time.perf_counter()
        units = min(self.swarms, key=lambda z: (self.swarms[z].proposals, z))
        swarm = self.swarms[units]
        full = len(swarm.particles) >= swarm.size
        replaces = swarm.to_replace() if full else None
        proposal = None
        if full and replaces is None and (moving := swarm.to_move()) is not None:
            particle = swarm.particles[moving]
            proposal = self._move(units, moving, particle, self._pull(units, particle, context), context)
            replaces = moving
        if proposal is None:
            proposal = self._settle(units, replaces, context) or self._random(units, replaces, context)
        if proposal is None:
            return []
        return [replace(proposal, cost=Cost(seconds=time.perf_counter() - start))]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Record which particles have a move that is being relaxed."""
        for candidate in candidates:
            units = int(candidate.proposal.tag["units"])
            self._sent[candidate.id] = units, self.swarms[units].proposed(candidate)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Move particles to their outcomes, and record the minima of other sources."""
        for outcome in outcomes:
            self._heights.observe(outcome)
            if isinstance(outcome, Relaxed):
                for swarm in self.swarms.values():
                    swarm.suspects = outcome.suspects_after(swarm.suspects)
            units = self._problem.units_of(outcome.candidate.atoms.numbers)
            if units in self.swarms:
                self.swarms[units].meet(outcome)
            sent = self._sent.pop(outcome.candidate.id, None)
            if sent is not None:
                self.swarms[sent[0]].observe(sent[1], outcome)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Note by how much follow-up relaxations shift minima."""
        for outcome in outcomes:
            self._heights.observe_follow_up(outcome)

    def _random(self, units: int, replaces: int | None, context: Context) -> Proposal | None:
        swarm = self.swarms[units]
        for drawn in swarm.random.propose(1, context):
            velocity = Velocity.random(drawn.atoms, context.rng, fixed_cell=self._fixed_cell)
            tag = {
                **drawn.tag,
                "units": units,
                "particle": swarm.born,
                "generation": 0,
                "replaces": replaces,
                "velocity": velocity.to_tag(),
            }
            return replace(drawn, tag=tag)
        return None

    def _settle(self, units: int, replaces: int | None, context: Context) -> Proposal | None:
        """Return the first move of a new particle, from a minimum that no particle has visited."""
        swarm = self.swarms[units]
        for end in swarm.unvisited()[:HOMES]:
            begun = beginning(end)
            pull = self._pull(units, Particle(start=begun, best=end), context)
            for slower in SLOWER:
                velocity = Velocity.random(begun, context.rng, fixed_cell=self._fixed_cell).scaled(slower)
                particle = Particle(start=begun, velocity=velocity, best=end)
                proposal = self._move(units, swarm.born, particle, pull, context)
                if proposal is not None:
                    origin = {"replaces": replaces, "minimum": end.minimum, "leaves": velocity.to_tag()}
                    return replace(proposal, tag={**proposal.tag, **origin})
        return None

    def _pull(self, units: int, particle: Particle, context: Context) -> _Pull:
        """Return the differences from a particle to its own best and to the attractor."""
        assert particle.start is not None and particle.best is not None
        start, best = particle.start, particle.best
        to_best = self._difference(start, best.atoms)
        preferred = [one.minimum for one in context.archive.preferred_minima()]
        minima = [m for m in preferred if self._problem.units_of(m.best.atoms.numbers) == units]
        attractor = self.attractor.choose(best.atoms, minima).best if minima else best
        if attractor.candidate.id == best.candidate.id:
            return _Pull(to_best, to_best, (best,))
        return _Pull(to_best, self._difference(start, attractor.atoms), (best, attractor))

    def _move(self, units: int, id_: int, particle: Particle, pull: _Pull, context: Context) -> Proposal | None:
        swarm = self.swarms[units]
        assert particle.start is not None and particle.velocity is not None
        start, old = particle.start, particle.velocity
        drawn: list[tuple[Floats, Velocity, Atoms]] = []

        def draw() -> Atoms:
            weights = context.rng.random(2)
            velocity = _combined(swarm.inertia, weights, old, pull).capped(start)
            flown = deformed(start, velocity.positions, velocity.strain)
            drawn.append((weights, velocity, flown))
            return flown

        moved = bounded_attempts(draw, [end.atoms for end in pull.ends], self._problem, DRAWS)
        if moved is None:
            return None
        weights, velocity, flown = drawn[-1]
        # The same crystal may have got another cell, if that was skewed.
        fractions = velocity.positions @ flown.cell.array @ np.linalg.inv(moved.cell.array)
        tag = {
            "units": units,
            "particle": id_,
            "generation": particle.generation + 1,
            "velocity": Velocity(fractions, velocity.strain).to_tag(),
            "inertia": swarm.inertia,
            "weights": weights.tolist(),
        }
        parents = tuple(end.candidate.id for end in pull.ends)
        return Proposal(atoms=moved, operator="swarm", parents=parents, tag=tag)

    def _difference(self, start: Atoms, end: Atoms) -> Velocity:
        found = match(start, end, largest_strain=self._largest_strain)
        return Velocity(found.displacements, found.strain * (not self._fixed_cell))


@dataclass(frozen=True, eq=False, slots=True)
class _Pull:
    """Represent the differences to a particle's best and to the attractor, and these ends without repetition."""

    to_best: Velocity
    to_attractor: Velocity
    ends: tuple[Relaxed, ...]


def _combined(inertia: float, weights: Floats, velocity: Velocity, pull: _Pull) -> Velocity:
    factors = inertia, C1 * float(weights[0]), C2 * float(weights[1])
    parts = velocity, pull.to_best, pull.to_attractor
    return Velocity(
        sum((f * part.positions for f, part in zip(factors, parts, strict=True)), np.zeros_like(velocity.positions)),
        sum((f * part.strain for f, part in zip(factors, parts, strict=True)), np.zeros((3, 3))),
    )


def _random_sources(problem: Problem) -> dict[int, RandomSource]:
    """Return a source of random structures for each number of formula units that the allowed space groups hold."""
    sources: dict[int, RandomSource] = {}
    complaints: list[InputError] = []
    for units in problem.units:
        try:
            sources[units] = RandomSource(replace(problem, formula_units=units))
        except InputError as complaint:
            complaints.append(complaint)
    if not sources:
        raise complaints[0]
    return sources
