"""Provide the source that does basin hopping with several walkers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from hybridcsp.archive.heights import Heights
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Rejected, RejectionReason, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import RELAX, Candidate, Cost, Proposal
from hybridcsp.errors import UnknownNameError
from hybridcsp.objectives.goals import Goals
from hybridcsp.operators.common import bounded_attempts
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.sources.random import RandomSource
from hybridcsp.structure.mapping import deformed

#: Number of walkers; there are more only if more workers need candidates.
WALKERS = 3

#: Temperature of the Metropolis criterion in eV/atom, about the energy difference of the low minima of a crystal.
TEMPERATURE = 0.03

#: Fraction of accepted moves to which the strength is adapted, and change of its logarithm per outcome.
TARGET_ACCEPTANCE, ADAPTATION = 0.5, 0.2

#: Number of moves in a row without progress after which a walker restarts elsewhere, and smallest progress in eV/atom.
PATIENCE, PROGRESS = 10, 0.001

#: Fraction of swaps among the moves of cells with unlike atoms.
SWAPS = 0.2

#: Largest strain of a hop (Frobenius norm of its logarithm) divided by its strength.
STRAIN = 0.5

#: Largest number of draws of a move, and factors of the strength with which hops are drawn one after the other.
DRAWS, WEAKER = 10, (1.0, 0.7, 0.5, 0.3)


@dataclass(frozen=True, eq=False, slots=True)
class Move:
    """Represent a move from a minimum.

    Attributes
    ----------
    atoms
        Structure with which the job starts.
    operator, level
        Operator and level of the proposal.
    tag
        Additional entries of the tag of the proposal.
    raises, lowers
        Whether the strength may grow if it is accepted, and shrink if not.
    """

    atoms: Atoms
    operator: str
    level: str = RELAX
    tag: Mapping[str, Any] = field(default_factory=dict)
    raises: bool = True
    lowers: bool = True


class MoveStrategy(Protocol):
    """Interface of a way to leave a minimum.

    Attributes
    ----------
    bounds
        Smallest, initial and largest strength.
    """

    bounds: tuple[float, float, float]

    def move(self, atoms: Atoms, strength: float, rng: np.random.Generator) -> Move | None:
        """Return a move from a minimum, or ``None`` if none was found."""


class HopsAndSwaps:
    """Random displacements of all atoms and of the cell, and swaps of two unlike atoms.

    A hop moves each atom evenly within a sphere, whose radius is the strength in cube roots of the volume per atom, and
    strains the cell in proportion. Moves are drawn again until they obey the problem, hops weaker in the end.
    """

    bounds = 0.05, 0.25, 0.8

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def move(self, atoms: Atoms, strength: float, rng: np.random.Generator) -> Move | None:
        """Return a swap or a hop."""
        if len(set(atoms.numbers)) > 1 and rng.random() < SWAPS:
            swapped = bounded_attempts(lambda: _swapped(atoms, rng), [atoms], self._problem, DRAWS)
            if swapped is not None:
                return Move(swapped, "swap", raises=False, lowers=False)
        for weaker in WEAKER:
            used = weaker * strength
            hop = partial(self._hop, atoms, used, rng)
            moved = bounded_attempts(hop, [atoms], self._problem, DRAWS)
            if moved is not None:
                # If distances allow no stronger hop, the strength must not grow.
                return Move(moved, "hop", tag={"strength": used}, raises=weaker == 1)
        return None

    def _hop(self, atoms: Atoms, strength: float, rng: np.random.Generator) -> Atoms:
        directions = rng.normal(size=(len(atoms), 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        radius = strength * (atoms.get_volume() / len(atoms)) ** (1 / 3)
        steps = radius * directions * rng.random((len(atoms), 1)) ** (1 / 3)
        strain = rng.normal(size=(3, 3))
        strain += strain.T
        size = 0.0 if self._problem.cell is not None else STRAIN * strength * rng.random()
        return deformed(atoms, steps @ np.linalg.inv(atoms.cell.array), strain * size / np.linalg.norm(strain))


class DynamicsEscapes:
    """Molecular dynamics from the minimum, as in minima hopping; the strength is the temperature in K.

    A worker runs it as the first part of the job, where it is counted
    (:func:`hybridcsp.relaxation.displacements.escape`).
    """

    bounds = 200.0, 1000.0, 5000.0

    def __init__(self, problem: Problem) -> None:
        pass

    def move(self, atoms: Atoms, strength: float, rng: np.random.Generator) -> Move | None:
        """Return the minimum itself, with the temperature and seed of the dynamics."""
        bare = atoms.copy()
        tag = {"temperature": strength, "seed": int(rng.integers(2**32))}
        return Move(bare, "escape", level="escape", tag=tag)


#: Ways to leave a minimum, by the argument that names them.
MOVE_STRATEGIES: Mapping[str, Callable[[Problem], MoveStrategy]] = {"hops": HopsAndSwaps, "dynamics": DynamicsEscapes}


@dataclass(eq=False, slots=True)
class Walker:
    """Represent one walker.

    Attributes
    ----------
    place
        Candidate whose relaxed structure is its position.
    end
        That relaxation if it was a move of the walker; otherwise it is in the archive.
    waiting
        Whether a move of it is being relaxed.
    lowest
        Lowest enthalpy per atom in eV since it started, shifted as below.
    futile
        Number of moves in a row since then.
    free_since
        Number of outcomes when its last move ended.
    """

    place: int | None = None
    end: Relaxed | None = None
    waiting: bool = False
    lowest: float = math.inf
    futile: int = 0
    free_since: int = 0


class BasinHoppingSource(BaseSource):
    r"""Basin hopping on enthalpies per atom, with walkers that start at the best minima of the archive.

    A walker's move is relaxed, and accepted with the chance :math:`\min(1, \exp(-\Delta h / T))`. The strength of moves
    is multiplied by :math:`\exp(\eta (a - 1/2))` after each, a being 1 for an accepted move and 0 for others: it grows
    while walkers come back to where they were, and shrinks while they end too high up.

    Walkers start at the best minima of all sources, each at a different one, or at a random structure if walkers have
    visited all minima. After ten moves in a row without a lower minimum a walker restarts.

    Where follow-up relaxations put a minimum higher or lower than the search does, the best minima are chosen by these
    heights, and the enthalpy of the minimum in the Metropolis criterion is shifted by the difference
    (:class:`~hybridcsp.archive.heights.Heights`): a walker leaves a minimum more easily that is too low by the
    calculator of the search.

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        Kind of moves: "hops" (default, :class:`HopsAndSwaps`) or "dynamics" (:class:`DynamicsEscapes`).

    Attributes
    ----------
    strength
        Strength of the next move.

    Raises
    ------
    InputError
        If the argument is another one.

    References
    ----------
    Wales, Doye, J. Phys. Chem. A 101, 5111 (1997), doi:10.1021/jp970984n. Escapes by molecular dynamics: Goedecker,
    J. Chem. Phys. 120, 9911 (2004), doi:10.1063/1.1724816, who adapts temperature and acceptance separately.
    """

    waiting_for = "it starts after the first minimum"

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        mode = "hops" if argument is None else argument
        if mode not in MOVE_STRATEGIES:
            raise UnknownNameError("basin-hopping", mode, MOVE_STRATEGIES)
        self._strategy: MoveStrategy = MOVE_STRATEGIES[mode](problem)
        self._random = RandomSource(problem)
        self.strength = self._strategy.bounds[1]
        self.walkers: dict[int, Walker] = {}
        self._visited: set[int] = set()  # minima of the archive that a walker has started from
        self._sent: dict[int, int] = {}  # candidate -> walker
        self._outcomes = 0
        self._begun = False
        self._heights = Heights()

    def pursue(self, goals: Goals) -> None:
        """Let walkers stay where the condition of the search is met."""
        self._heights = Heights(goals)

    def status(self) -> SourceStatus:
        """Return WAITING before the first minimum."""
        return SourceStatus.READY if self._begun else SourceStatus.WAITING

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return one move of the walker that has been idle for longest.

        The tag holds ``walker``; ``enthalpy`` per atom (shifted), its ``calculator``, and ``place`` (the candidate)
        that it leaves; ``minimum``, where it starts at one of the archive; ``uniform``, the number that decides in the
        Metropolis criterion; whether its outcome ``raises`` or ``lowers`` the strength; and the entries of
        :attr:`Move.tag`. Random starts hold only ``walker``.
        """
        start = time.perf_counter()
        id_ = self._next()
        proposal = self._move(id_, context)
        if proposal is None:
            drawn = self._random.propose(1, context)
            if not drawn:
                return []
            proposal = replace(drawn[0], tag={**drawn[0].tag, "walker": id_})
        return [replace(proposal, cost=Cost(seconds=time.perf_counter() - start))]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Record which walkers have a move that is being relaxed."""
        for candidate in candidates:
            tag = candidate.proposal.tag
            walker = self.walkers.setdefault(tag["walker"], Walker())
            walker.waiting = True
            self._sent[candidate.id] = tag["walker"]
            if walker.place != tag.get("place"):
                walker.place, walker.end = tag.get("place"), None
                walker.lowest, walker.futile = tag.get("enthalpy", math.inf), 0
            if tag.get("minimum") is not None:
                self._visited.add(tag["minimum"])

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Accept or reject moves, and adapt the strength."""
        for outcome in outcomes:
            self._begun |= isinstance(outcome, Relaxed) and outcome.is_new_minimum
            self._heights.observe(outcome)
            id_ = self._sent.pop(outcome.candidate.id, None)
            if id_ is None:
                continue
            self._outcomes += 1
            walker = self.walkers[id_]
            walker.waiting = False
            walker.free_since = self._outcomes
            walker.futile += 1
            accepted = self._accepted(outcome)
            if accepted is not None:
                walker.place, walker.end = outcome.candidate.id, accepted
                enthalpy = self._heights.shifted(accepted)
                if not _compares(outcome) or enthalpy < walker.lowest - PROGRESS:
                    walker.lowest, walker.futile = enthalpy, 0
            self._adapt(outcome, accepted=accepted is not None)

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Note by how much follow-up relaxations shift minima."""
        for outcome in outcomes:
            self._heights.observe_follow_up(outcome)

    def _next(self) -> int:
        idle = [id_ for id_, walker in self.walkers.items() if not walker.waiting]
        if not idle or len(self.walkers) < WALKERS:
            return len(self.walkers)
        return min(idle, key=lambda id_: self.walkers[id_].free_since)

    def _move(self, id_: int, context: Context) -> Proposal | None:
        found = self._place(self.walkers.get(id_, Walker()), context)
        if found is None:
            return None
        end, minimum = found
        move = self._strategy.move(end.atoms, self.strength, context.rng)
        if move is None:
            return None
        tag = {
            "walker": id_,
            "place": end.candidate.id,
            "enthalpy": self._heights.shifted(end),
            "calculator": end.evaluation.calculator,
            "minimum": minimum,
            "uniform": 1.0 - context.rng.random(),
            "raises": move.raises,
            "lowers": move.lowers,
            **move.tag,
        }
        parents = (end.candidate.id,)
        return Proposal(atoms=move.atoms, operator=move.operator, parents=parents, tag=tag, level=move.level)

    def _place(self, walker: Walker, context: Context) -> tuple[Relaxed, int | None] | None:
        """Return the position of a walker, or the minimum where it starts and its id."""
        if walker.futile < PATIENCE:
            if walker.end is not None:
                return walker.end, None
            for minimum in context.archive.minima() if walker.place is not None else ():
                if minimum.best.candidate.id == walker.place:
                    return minimum.best, minimum.id
        places = {other.place for other in self.walkers.values()}
        for minimum in (preferred.minimum for preferred in context.archive.preferred_minima()):
            if minimum.id not in self._visited and minimum.best.candidate.id not in places:
                return minimum.best, minimum.id
        return None

    def _accepted(self, outcome: Outcome) -> Relaxed | None:
        """Return the relaxation if it passes the Metropolis criterion or cannot be compared.

        Never one in a hole, and none that does not meet the condition of the search.
        """
        if not (isinstance(outcome, Relaxed) and outcome.converged) or outcome.suspect:
            return None
        if not self._heights.allow(outcome):
            return None
        tag = outcome.candidate.proposal.tag
        if "enthalpy" not in tag or not _compares(outcome):
            return outcome
        highest = tag["enthalpy"] - TEMPERATURE * math.log(tag["uniform"])
        return None if self._heights.shifted(outcome) > highest else outcome

    def _adapt(self, outcome: Outcome, *, accepted: bool) -> None:
        if isinstance(outcome, Rejected) and outcome.reason is not RejectionReason.DUPLICATE:
            return
        accepted |= isinstance(outcome, Rejected)  # a duplicate was too close to a known structure
        if not outcome.candidate.proposal.tag.get("raises" if accepted else "lowers"):
            return
        low, _, high = self._strategy.bounds
        strength = self.strength * math.exp(ADAPTATION * (accepted - TARGET_ACCEPTANCE))
        self.strength = min(max(strength, low), high)


def _compares(outcome: Outcome) -> bool:
    """Return whether an outcome and the minimum that was left have energies of the same calculator."""
    known = outcome.candidate.proposal.tag.get("calculator")
    return known is None or not isinstance(outcome, Relaxed) or known == outcome.evaluation.calculator


def _swapped(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return the structure with two unlike atoms exchanged; all pairs have the same probability."""
    pairs = np.argwhere(np.triu(atoms.numbers[:, None] != atoms.numbers))
    first, second = pairs[rng.integers(len(pairs))]
    swapped = atoms.copy()
    swapped.positions[[first, second]] = atoms.positions[[second, first]]
    return swapped
