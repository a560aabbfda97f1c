"""Particle swarm: structures that fly towards better ones, in CALYPSO's scheme, without generations."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.matching import deformed, match
from hybridcsp.operators.offspring import bounded_attempts
from hybridcsp.problem import Problem
from hybridcsp.records import Candidate, Cost, Minimum, Outcome, Proposal, Rejected, Relaxed
from hybridcsp.similarity import describe
from hybridcsp.sources import Context
from hybridcsp.sources.random import RandomSource

Floats = NDArray[np.float64]

#: Particles of all sub-swarms together, and the fewest of one.
POPULATION, SMALLEST = 10, 5

#: Share of moves among the proposals that follow a sub-swarm's first structures; the others are random.
PSO_RATIO = 0.6

#: Inertia at first and in the end, and after how many outcomes per particle the end is reached.
INERTIA, HORIZON = (0.9, 0.4), 10

#: Weights of the personal and of the common best.
C1 = C2 = 2.0

#: Largest displacement of an atom in one move, in cube roots of the volume per atom, and largest logarithmic strain.
MAX_DISPLACEMENT, MAX_STRAIN = 0.4, 0.2

#: Draws of random weights for one move, until a structure keeps its distances.
DRAWS = 20

#: Rejections and failures of one particle in a row, after which it begins anew.
TROUBLES = 3

#: A niche is the nearest of this many parts of the known minima, but at least so many minima.
NICHES, SMALLEST_NICHE = 4, 3

# Cells as alike as this (logarithmic strain) count as the fixed one.
_FIXED_CELL = 1e-3


@dataclass(frozen=True, eq=False, slots=True)
class Velocity:
    """Change of a structure in one step.

    Attributes
    ----------
    positions
        In fractions of the cell, shape ``(n_atoms, 3)``.
    strain
        Symmetric logarithmic strain of the cell, shape ``(3, 3)``.
    """

    positions: Floats
    strain: Floats

    def capped(self, atoms: Atoms) -> Velocity:
        """Return it with no atom faster, and no strain larger, than allowed for a structure."""
        lengths = np.linalg.norm(self.positions @ atoms.cell.array, axis=1)
        limit = MAX_DISPLACEMENT * (atoms.get_volume() / len(atoms)) ** (1 / 3)
        slower = np.minimum(1.0, limit / np.maximum(lengths, 1e-12))
        largest = float(np.abs(np.linalg.eigvalsh(self.strain)).max())
        return Velocity(self.positions * slower[:, None], self.strain * min(1.0, MAX_STRAIN / max(largest, 1e-12)))

    def to_tag(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"positions": self.positions.tolist(), "strain": self.strain.tolist()}

    @classmethod
    def from_tag(cls, tag: Mapping[str, Any]) -> Velocity:
        """Return what :meth:`to_tag` wrote."""
        return cls(np.array(tag["positions"], dtype=float), np.array(tag["strain"], dtype=float))

    @classmethod
    def random(cls, atoms: Atoms, rng: np.random.Generator, *, fixed_cell: bool) -> Velocity:
        """Draw one in any direction, up to the largest allowed."""
        fractions = rng.normal(size=(len(atoms), 3)) @ np.linalg.inv(atoms.cell.array)
        strain = rng.normal(size=(3, 3)) * (not fixed_cell)
        fastest = cls(1e3 * (fractions - fractions.mean(axis=0)), 1e3 * (strain + strain.T)).capped(atoms)
        return cls(fastest.positions * rng.random((len(atoms), 1)), fastest.strain * rng.random())


class Attractor(Protocol):
    """What all particles of a mode fly to besides their own best."""

    def choose(self, best: Atoms, minima: Sequence[Minimum]) -> Minimum:
        """Return one of the known minima (at least one, best first) for a particle with this personal best."""


class GlobalBest:
    """The best of all minima: Wang, Lv, Zhu, Ma, doi:10.1103/PhysRevB.82.094116."""

    def choose(self, best: Atoms, minima: Sequence[Minimum]) -> Minimum:
        """Return the best of all."""
        return minima[0]


class LocalBest:
    """The best minimum of a particle's own niche: Lv, Wang, Zhu, Ma, doi:10.1063/1.4746757.

    The niche is the quarter of the known minima whose fingerprints are nearest to that of the particle's personal best,
    in place of the paper's bond characterisation matrices.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[tuple[int, int], Floats] = {}  # a cache

    def choose(self, best: Atoms, minima: Sequence[Minimum]) -> Minimum:
        """Return the best of those that are nearest to the particle's best."""
        own = describe(best).fingerprint
        distances = [float(np.mean((self._fingerprint(minimum) - own) ** 2)) for minimum in minima]
        size = max(SMALLEST_NICHE, math.ceil(len(minima) / NICHES))
        niche = np.argsort(distances, kind="stable")[:size]
        return minima[int(niche.min())]  # they are ranked

    def _fingerprint(self, minimum: Minimum) -> Floats:
        key = minimum.best.candidate.id, minimum.best.sequence
        if key not in self._fingerprints:
            self._fingerprints[key] = np.asarray(describe(minimum.best.atoms).fingerprint)
        return self._fingerprints[key]


#: Modes by the argument that names them.
ATTRACTORS: Mapping[str, type[Attractor]] = {"local": LocalBest, "global": GlobalBest}


@dataclass(eq=False, slots=True)
class Particle:
    """One particle: where it is (before relaxation), how fast, and the best it has found."""

    generation: int = 0
    start: Atoms | None = None
    velocity: Velocity | None = None
    best: Relaxed | None = None
    waiting: bool = False
    troubles: int = 0
    free_since: int = 0


@dataclass(eq=False, slots=True)
class SubSwarm:
    """The particles of one cell content, and what was counted for them."""

    random: RandomSource
    size: int
    particles: dict[int, Particle] = field(default_factory=dict)
    born: int = 0
    proposals: int = 0
    outcomes: int = 0
    moved: int = 0
    refreshed: int = 0

    @property
    def inertia(self) -> float:
        """Weight of the last velocity: falls linearly with the number of outcomes."""
        progress = min(1.0, self.outcomes / (HORIZON * self.size))
        return INERTIA[0] + progress * (INERTIA[1] - INERTIA[0])

    def to_replace(self) -> int | None:
        """Return the particle in whose place a random structure is due."""
        idle = [id_ for id_, particle in self.particles.items() if not particle.waiting]
        hopeless = [id_ for id_ in idle if self._hopeless(self.particles[id_])]
        if hopeless:
            return hopeless[0]
        due = self.refreshed + 1 <= (1 - PSO_RATIO) * (self.refreshed + self.moved + 1)
        ranked = self._ranked(idle)
        return ranked[-1] if due and len(ranked) > 1 else None

    def to_move(self) -> int | None:
        """Return the particle that moves next: of the better ones the one that has been free for longest."""
        ranked = self._ranked(self.particles)
        better = ranked[: math.ceil(PSO_RATIO * self.size)]
        for group in (better, ranked):
            idle = [id_ for id_ in group if not self.particles[id_].waiting]
            if idle:
                return min(idle, key=lambda id_: self.particles[id_].free_since)
        return None

    def observe(self, id_: int, outcome: Outcome) -> None:
        """Bring a particle to where it was sent if that was relaxed; else it stays."""
        particle = self.particles[id_]
        particle.waiting = False
        if isinstance(outcome, Rejected):
            self._count(outcome.candidate, -1)
        else:
            self.outcomes += 1
        particle.free_since = self.proposals
        if not (isinstance(outcome, Relaxed) and outcome.converged):
            particle.troubles += 1
            return
        tag = outcome.candidate.proposal.tag
        particle.start = outcome.candidate.atoms
        particle.velocity = Velocity.from_tag(tag["velocity"])
        particle.generation = tag["generation"]
        particle.troubles = 0
        if particle.best is None or outcome.enthalpy_per_atom < particle.best.enthalpy_per_atom:
            particle.best = outcome

    def proposed(self, candidate: Candidate) -> int:
        """Take note that a particle was sent off; return which."""
        tag = candidate.proposal.tag
        self.proposals += 1
        self._count(candidate, 1)
        id_ = int(tag["particle"])
        if tag["generation"] == 0:
            self.born += 1
            self.particles.pop(tag["replaces"], None)
            self.particles[id_] = Particle()
        self.particles[id_].waiting = True
        return id_

    def _count(self, candidate: Candidate, change: int) -> None:
        tag = candidate.proposal.tag
        if tag["generation"] > 0:
            self.moved += change
        elif tag["replaces"] is not None:
            self.refreshed += change

    def _hopeless(self, particle: Particle) -> bool:
        return particle.best is None or particle.troubles >= TROUBLES

    def _ranked(self, ids: Any) -> list[int]:
        found = {id_: best for id_ in ids if (best := self.particles[id_].best) is not None}
        return sorted(found, key=lambda id_: (found[id_].enthalpy_per_atom, id_))


class SwarmSource:
    r"""Particle swarm optimisation of positions and cells, as in CALYPSO, asynchronously.

    A particle's velocity in fractions of the cell and logarithmic strain is

    .. math:: v' = w v + c_1 r_1 (p - x) + c_2 r_2 (g - x), \qquad x' = x + v',

    x being where it stood *before* its last relaxation, p the best that it has relaxed to, and g the attractor: in mode
    "local" the best minimum of its niche (:class:`LocalBest`), in mode "global" the best of all
    (:class:`GlobalBest`), whichever source found it. Differences are those of atoms matched under periodicity
    (:func:`~hybridcsp.matching.match`). The inertia w falls from 0.9 to 0.4, :math:`c_1 = c_2 = 2`, and
    :math:`r_1, r_2` are uniform in [0, 1], one pair for all atoms and the cell, so that what x, p and g have in common
    is kept. Velocities are capped. Cells evolve along with the positions (CALYPSO's first version let
    positions evolve alone).

    What differs from the papers: there are no generations. A particle moves when its own relaxation has come
    back, the inertia falls with the number of outcomes, and of every five proposals two are random structures that take
    the place of the worst particle (the papers' 1 - PsoRatio of a generation). Each cell content has a swarm of its
    own; they take turns.

    A move is drawn again, up to twenty times, until it obeys the problem, with distances like those of p and g at
    first, at last those that the problem asks for; if that does not help, or after three rejections or failures in a
    row, the particle begins anew at a random structure.

    Parameters
    ----------
    problem
        What is searched.
    argument
        The mode, "local" (default) or "global".

    Raises
    ------
    InputError
        For another argument, or where the random source finds no structure.

    References
    ----------
    Wang, Lv, Zhu, Ma, Phys. Rev. B 82, 094116 (2010), doi:10.1103/PhysRevB.82.094116; Comput. Phys. Commun. 183,
    2063 (2012), doi:10.1016/j.cpc.2012.05.008; Lv, Wang, Zhu, Ma, J. Chem. Phys. 137, 084104 (2012),
    doi:10.1063/1.4746757.
    """

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
        self.swarms = {units: SubSwarm(source, size) for units, source in sources.items()}
        self._sent: dict[int, tuple[int, int]] = {}  # candidate -> cell content and particle

    @property
    def exhausted(self) -> bool:
        """Never."""
        return False

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return one proposal, of the cell content that has had least.

        The tag holds ``units`` (the cell content), ``particle``, ``generation`` (moves of the particle so far),
        ``replaces`` (for a random structure: the particle that ends) and ``velocity``; for moves also ``inertia`` and
        the ``weights`` that were drawn.
        """
        start = time.perf_counter()
        units = min(self.swarms, key=lambda z: (self.swarms[z].proposals, z))
        swarm = self.swarms[units]
        proposal = None
        replaces = None
        if len(swarm.particles) >= swarm.size:
            replaces = swarm.to_replace()
            moving = swarm.to_move() if replaces is None else None
            if moving is not None:
                proposal = self._move(units, moving, context)
                replaces = moving
        if proposal is None:
            proposal = self._random(units, replaces, context)
        if proposal is None:
            return []
        return [replace(proposal, cost=Cost(seconds=time.perf_counter() - start))]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Send particles off."""
        for candidate in candidates:
            units = int(candidate.proposal.tag["units"])
            self._sent[candidate.id] = units, self.swarms[units].proposed(candidate)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Let the particles whose outcomes these are arrive."""
        for outcome in outcomes:
            sent = self._sent.pop(outcome.candidate.id, None)
            if sent is not None:
                self.swarms[sent[0]].observe(sent[1], outcome)

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

    def _move(self, units: int, id_: int, context: Context) -> Proposal | None:
        swarm = self.swarms[units]
        particle = swarm.particles[id_]
        assert particle.start is not None and particle.velocity is not None and particle.best is not None
        start, old, best = particle.start, particle.velocity, particle.best
        minima = [m for m in context.archive.minima() if self._problem.units_of(m.best.atoms.numbers) == units]
        parents, relatives = [best.candidate.id], [best.atoms]
        to_best = self._difference(start, best.atoms)
        to_attractor = to_best
        if minima:
            attractor = self.attractor.choose(best.atoms, minima)
            if attractor.best.candidate.id != best.candidate.id:
                to_attractor = self._difference(start, attractor.best.atoms)
                parents.append(attractor.best.candidate.id)
                relatives.append(attractor.best.atoms)
        drawn: list[tuple[Floats, Velocity, Atoms]] = []

        def fly() -> Atoms:
            weights = context.rng.random(2)
            velocity = _combined(swarm.inertia, weights, old, to_best, to_attractor).capped(start)
            flown = deformed(start, velocity.positions, velocity.strain)
            drawn.append((weights, velocity, flown))
            return flown

        moved = bounded_attempts(fly, relatives, self._problem, DRAWS)
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
        return Proposal(atoms=moved, operator="swarm", parents=tuple(parents), tag=tag)

    def _difference(self, start: Atoms, end: Atoms) -> Velocity:
        found = match(start, end, largest_strain=self._largest_strain)
        return Velocity(found.displacements, found.strain * (not self._fixed_cell))


def _combined(
    inertia: float, weights: Floats, velocity: Velocity, to_best: Velocity, to_attractor: Velocity
) -> Velocity:
    factors = inertia, C1 * float(weights[0]), C2 * float(weights[1])
    parts = velocity, to_best, to_attractor
    return Velocity(
        sum((f * part.positions for f, part in zip(factors, parts, strict=True)), np.zeros_like(velocity.positions)),
        sum((f * part.strain for f, part in zip(factors, parts, strict=True)), np.zeros((3, 3))),
    )


def _random_sources(problem: Problem) -> dict[int, RandomSource]:
    """Make a source of random structures for each number of formula units that the allowed space groups hold."""
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
