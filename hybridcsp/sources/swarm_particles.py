"""Provide the particles of a swarm, their velocities, and the order in which they move."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.archive.heights import Heights
from hybridcsp.core.outcomes import Outcome, Rejected, Relaxed
from hybridcsp.core.records import REFINE, Candidate
from hybridcsp.sources.random import RandomSource

Floats = NDArray[np.float64]

#: Fraction of moves of existing particles among the proposals after a sub-swarm's first ones; the others are new.
PSO_RATIO = 0.6

#: Initial and final inertia, and number of outcomes per particle after which the final one is reached.
INERTIA, HORIZON = (0.9, 0.4), 10

#: Largest displacement of an atom in one move, in cube roots of the volume per atom, and largest logarithmic strain.
MAX_DISPLACEMENT, MAX_STRAIN = 0.4, 0.2

#: Number of rejections and failures in a row after which a particle is replaced.
TROUBLES = 3


@dataclass(frozen=True, eq=False, slots=True)
class Velocity:
    """Represent the change of a structure in one step.

    Attributes
    ----------
    positions
        Displacements in fractions of the cell, shape ``(n_atoms, 3)``.
    strain
        Symmetric logarithmic strain of the cell, shape ``(3, 3)``.
    """

    positions: Floats
    strain: Floats

    def capped(self, atoms: Atoms) -> Velocity:
        """Return the velocity with displacements and strain limited to the largest allowed for a structure."""
        lengths = np.linalg.norm(self.positions @ atoms.cell.array, axis=1)
        limit = MAX_DISPLACEMENT * (atoms.get_volume() / len(atoms)) ** (1 / 3)
        slower = np.minimum(1.0, limit / np.maximum(lengths, 1e-12))
        largest = float(np.abs(np.linalg.eigvalsh(self.strain)).max())
        return Velocity(self.positions * slower[:, None], self.strain * min(1.0, MAX_STRAIN / max(largest, 1e-12)))

    def scaled(self, factor: float) -> Velocity:
        """Return the velocity multiplied by a factor."""
        return Velocity(self.positions * factor, self.strain * factor)

    def to_tag(self) -> dict[str, Any]:
        """Return the velocity as plain JSON."""
        return {"positions": self.positions.tolist(), "strain": self.strain.tolist()}

    @classmethod
    def from_tag(cls, tag: Mapping[str, Any]) -> Velocity:
        """Return the velocity that :meth:`to_tag` wrote."""
        return cls(np.array(tag["positions"], dtype=float), np.array(tag["strain"], dtype=float))

    @classmethod
    def random(cls, atoms: Atoms, rng: np.random.Generator, *, fixed_cell: bool) -> Velocity:
        """Return a random velocity in any direction, up to the largest allowed."""
        fractions = rng.normal(size=(len(atoms), 3)) @ np.linalg.inv(atoms.cell.array)
        strain = rng.normal(size=(3, 3)) * (not fixed_cell)
        fastest = cls(1e3 * (fractions - fractions.mean(axis=0)), 1e3 * (strain + strain.T)).capped(atoms)
        return cls(fastest.positions * rng.random((len(atoms), 1)), fastest.strain * rng.random())


@dataclass(eq=False, slots=True)
class Particle:
    """Represent one particle: its position (before relaxation), velocity, and best relaxation."""

    generation: int = 0
    start: Atoms | None = None
    velocity: Velocity | None = None
    best: Relaxed | None = None
    waiting: bool = False
    troubles: int = 0
    free_since: int = 0


def beginning(end: Relaxed) -> Atoms:
    """Return the start of a relaxation, or its end if it is unknown which of several structures was the start."""
    begun = end.starting_structures
    return begun[0] if len(begun) == 1 else end.atoms


@dataclass(eq=False, slots=True)
class SubSwarm:
    """Represent the particles with the same cell contents, and their counters.

    Attributes
    ----------
    heights
        Heights of the minima, by which particles and minima are compared.
    known
        First relaxation of each minimum, of any source, by minimum.
    visited
        Minima that a particle has visited.
    suspects
        Minima that are probably holes of the potential: no particle begins there, and one whose best it is is replaced.
    """

    random: RandomSource
    size: int
    heights: Heights = field(default_factory=Heights)
    particles: dict[int, Particle] = field(default_factory=dict)
    known: dict[int, Relaxed] = field(default_factory=dict)
    visited: set[int] = field(default_factory=set)
    suspects: frozenset[int] = frozenset()
    born: int = 0
    proposals: int = 0
    outcomes: int = 0
    moved: int = 0
    refreshed: int = 0

    @property
    def inertia(self) -> float:
        """Weight of the last velocity, which decreases linearly with the number of outcomes."""
        progress = min(1.0, self.outcomes / (HORIZON * self.size))
        return INERTIA[0] + progress * (INERTIA[1] - INERTIA[0])

    def to_replace(self) -> int | None:
        """Return the particle that a new one replaces now; ``None`` if none is due."""
        idle = [id_ for id_, particle in self.particles.items() if not particle.waiting]
        hopeless = [id_ for id_ in idle if self._hopeless(self.particles[id_])]
        if hopeless:
            return hopeless[0]
        due = self.refreshed + 1 <= (1 - PSO_RATIO) * (self.refreshed + self.moved + 1)
        ranked = self._ranked(idle)
        return ranked[-1] if due and len(ranked) > 1 else None

    def to_move(self) -> int | None:
        """Return the particle that moves next: the one of the better particles that has been idle for longest."""
        ranked = self._ranked(self.particles)
        better = ranked[: math.ceil(PSO_RATIO * self.size)]
        for group in (better, ranked):
            idle = [id_ for id_ in group if not self.particles[id_].waiting]
            if idle:
                return min(idle, key=lambda id_: self.particles[id_].free_since)
        return None

    def unvisited(self) -> list[Relaxed]:
        """Return the minima that meet the condition of the search and no particle has visited, the lowest first."""
        ends = [end for minimum, end in self.known.items() if minimum not in self.visited and self._allows(end)]
        return sorted(ends, key=lambda end: (self.heights.shifted(end), end.candidate.id))

    def meet(self, outcome: Outcome) -> None:
        """Record a new minimum of any source."""
        if not isinstance(outcome, Relaxed) or outcome.level == REFINE or outcome.suspect:
            return
        if outcome.converged and outcome.is_new_minimum:
            assert outcome.minimum is not None
            self.known[outcome.minimum] = outcome

    def observe(self, id_: int, outcome: Outcome) -> None:
        """Move a particle to its candidate if that was relaxed; otherwise it stays."""
        particle = self.particles[id_]
        particle.waiting = False
        if isinstance(outcome, Rejected):
            self._count(outcome.candidate, -1)
        else:
            self.outcomes += 1
        particle.free_since = self.proposals
        if not (isinstance(outcome, Relaxed) and outcome.converged) or outcome.suspect:
            particle.troubles += 1
            return
        if outcome.minimum is not None:
            self.visited.add(outcome.minimum)
        tag = outcome.candidate.proposal.tag
        particle.start = outcome.candidate.atoms
        particle.velocity = Velocity.from_tag(tag["velocity"])
        particle.generation = tag["generation"]
        particle.troubles = 0
        if not self.heights.allow(outcome):
            return
        if particle.best is None or self.heights.shifted(outcome) < self.heights.shifted(particle.best):
            particle.best = outcome

    def proposed(self, candidate: Candidate) -> int:
        """Record that a move of a particle is being relaxed; return the particle."""
        tag = candidate.proposal.tag
        self.proposals += 1
        self._count(candidate, 1)
        id_ = int(tag["particle"])
        if "replaces" in tag:
            self.born += 1
            self.particles.pop(tag["replaces"], None)
            self.particles[id_] = self.settled(tag["minimum"], tag["leaves"]) if "minimum" in tag else Particle()
        self.particles[id_].waiting = True
        return id_

    def settled(self, minimum: int, velocity: Mapping[str, Any]) -> Particle:
        """Return a particle at a known minimum with this velocity; the minimum counts as visited."""
        end = self.known.get(minimum)
        self.visited.add(minimum)
        if end is None:  # its calculator is not in use any more
            return Particle()
        return Particle(start=beginning(end), velocity=Velocity.from_tag(velocity), best=end)

    def _count(self, candidate: Candidate, change: int) -> None:
        tag = candidate.proposal.tag
        if "replaces" not in tag:
            self.moved += change
        elif tag["replaces"] is not None:
            self.refreshed += change

    def _hopeless(self, particle: Particle) -> bool:
        best = particle.best
        return best is None or particle.troubles >= TROUBLES or not self._allows(best)

    def _allows(self, end: Relaxed) -> bool:
        return end.minimum not in self.suspects and self.heights.allow(end)

    def _ranked(self, ids: Iterable[int]) -> list[int]:
        found = {id_: best for id_ in ids if (best := self.particles[id_].best) is not None}
        return sorted(found, key=lambda id_: (self.heights.shifted(found[id_]), id_))
