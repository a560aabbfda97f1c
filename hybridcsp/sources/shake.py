"""Provide the source that displaces low-energy symmetric minima, which may be saddle points."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hybridcsp.archive.heights import Heights
from hybridcsp.core.outcomes import FollowUpOutcome, Outcome, Relaxed
from hybridcsp.core.problem import Problem
from hybridcsp.core.records import Candidate, Cost, Proposal
from hybridcsp.errors import InputError
from hybridcsp.objectives.goals import Goals
from hybridcsp.operators.displacement import Shake
from hybridcsp.sources.base import BaseSource, Context, SourceStatus
from hybridcsp.structure.symmetry import spacegroup

#: Largest energy above the best minimum in eV/atom of a minimum that is shaken; falls reach 0.3 eV/atom.
WINDOW = 0.2

#: Fall in eV/atom from which a minimum counts as a saddle point, which may have several ways down, and largest number
#: of times that it is shaken.
FALL = 0.002
SHAKES = 4


@dataclass(eq=False, slots=True)
class Saddle:
    """Represent a minimum that may be a saddle point.

    Attributes
    ----------
    end
        The first relaxation that reached it.
    fallen
        Relaxations of its shaken copies.
    shakes
        Number of times that it was shaken.
    """

    end: Relaxed
    fallen: list[Relaxed] = field(default_factory=list)
    shakes: int = 0

    def reached(self, heights: Heights) -> float:
        """Return the lowest enthalpy per atom in eV, shifted, of the minimum and of everything it fell to."""
        return min(heights.shifted(end) for end in (self.end, *self.fallen))


class ShakeSource(BaseSource):
    """Propose shaken copies of low-energy symmetric minima.

    A relaxation keeps the symmetry of its starting structure, and random symmetric crystals, prototypes and most
    generated crystals have high symmetry: such a relaxation ends in a minimum among crystals of that symmetry only,
    which is often a saddle point. Every minimum within 200 meV/atom of the best that is symmetric, and was reached only
    from symmetric starts, is shaken (:class:`~hybridcsp.operators.displacement.Shake`) and relaxed again. A minimum
    that was also reached from a start without symmetry is not shaken. Several paths may lead down from a saddle point:
    a minimum from which a shake reached a new, lower minimum is shaken again, up to four times in total. The minimum
    whose shakes have reached the lowest enthalpy is shaken next; before any shakes, this is the lowest minimum. Where
    follow-up relaxations put a minimum higher or lower than the search does, these heights count
    (:class:`~hybridcsp.archive.heights.Heights`).

    Parameters
    ----------
    problem
        The problem of the search.
    argument
        Must be ``None``: the source has no argument.

    Raises
    ------
    InputError
        If there is an argument.

    References
    ----------
    Relax and shake: Pickard, Needs, J. Phys.: Condens. Matter 23, 053201 (2011), doi:10.1088/0953-8984/23/5/053201.
    """

    name = "shake"
    needs_others = True
    waiting_for = "it starts once another source has found a low minimum of high symmetry"

    def __init__(self, problem: Problem, argument: str | None = None) -> None:
        if argument is not None:
            raise InputError("source", f"shake:{argument}", reason="shake takes no argument; write shake")
        self._problem = problem
        self._shake = Shake()
        self._waiting: dict[int, Saddle] = {}  # by minimum: those that may be saddle points
        self._higher: dict[int, Saddle] = {}  # by minimum: those that may be, but lie above the window
        self._shaken: dict[int, tuple[int, Saddle]] = {}  # by candidate: the minimum that was shaken
        self._heights = Heights()
        self._symmetric: dict[tuple[int, bool], bool] = {}  # a cache: by candidate, of its start and of its end

    def pursue(self, goals: Goals) -> None:
        """Shake only minima that meet the condition of the search."""
        self._heights = Heights(goals)

    def status(self) -> SourceStatus:
        """Return EXHAUSTED if shaking does not apply to the problem, and WAITING while there is no minimum to shake."""
        if not self._shake.applies_to(self._problem):
            return SourceStatus.EXHAUSTED
        return SourceStatus.WAITING if self._next() is None else SourceStatus.READY

    def propose(self, n: int, context: Context) -> list[Proposal]:
        """Return the most promising minimum of the list, shaken; the tag contains its number, ``minimum``."""
        start = time.perf_counter()
        end = self._next()
        if end is None:
            return []
        atoms = self._shake([end.atoms], self._problem, context.rng)
        if atoms is None:
            return []
        return [
            Proposal(
                atoms=atoms,
                operator=self._shake.name,
                parents=(end.candidate.id,),
                tag={"minimum": end.minimum},
                cost=Cost(seconds=time.perf_counter() - start),
            )
        ]

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Remove minima that are being shaken from the list."""
        for candidate in candidates:
            minimum = candidate.proposal.tag["minimum"]
            if minimum in self._waiting:
                self._shaken[candidate.id] = minimum, self._waiting.pop(minimum)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Add new minima and those that fell to the list; remove minima that an asymmetric start has reached."""
        for outcome in outcomes:
            lowest = self._heights.lowest
            self._heights.observe(outcome)
            origin = self._shaken.pop(outcome.candidate.id, None)
            if not isinstance(outcome, Relaxed) or outcome.minimum is None or not outcome.converged:
                continue
            if origin is not None:
                self._put_back(*origin, outcome)
            if outcome.is_new_minimum:
                is_low = outcome.enthalpy_per_atom <= lowest + WINDOW
                (self._waiting if is_low else self._higher)[outcome.minimum] = Saddle(outcome)
            else:
                known = self._waiting if outcome.minimum in self._waiting else self._higher
                if outcome.minimum in known and not self._is_symmetric(outcome, start=True):
                    del known[outcome.minimum]
            if outcome.enthalpy_per_atom < lowest:
                self._apply_window()

    def observe_follow_ups(self, outcomes: Sequence[FollowUpOutcome]) -> None:
        """Add minima to the list that follow-up relaxations put low, and remove those that they put high."""
        for outcome in outcomes:
            self._heights.observe_follow_up(outcome)
        self._apply_window()

    def _apply_window(self) -> None:
        saddles, highest = {**self._waiting, **self._higher}, self._heights.lowest + WINDOW
        low = {number for number, saddle in saddles.items() if saddle.reached(self._heights) <= highest}
        self._waiting = {number: saddle for number, saddle in saddles.items() if number in low}
        self._higher = {number: saddle for number, saddle in saddles.items() if number not in low}

    def _put_back(self, minimum: int, saddle: Saddle, outcome: Relaxed) -> None:
        """Return a shaken minimum to the list if it fell to a new minimum."""
        saddle.shakes += 1
        saddle.fallen.append(outcome)
        fell = outcome.is_new_minimum and outcome.enthalpy_per_atom < saddle.end.enthalpy_per_atom - FALL
        if fell and saddle.shakes < SHAKES:
            self._waiting[minimum] = saddle

    def _next(self) -> Relaxed | None:
        ranked = sorted(self._waiting.values(), key=lambda one: (one.reached(self._heights), one.end.candidate.id))
        for saddle in ranked:
            if not self._heights.allow(saddle.end):
                continue
            if self._is_symmetric(saddle.end, start=True) and self._is_symmetric(saddle.end, start=False):
                return saddle.end
        return None

    def _is_symmetric(self, end: Relaxed, *, start: bool) -> bool:
        """Return whether it has, or may have started with, more symmetry than inversion.

        Every lattice has inversion symmetry, and so does every crystal of two atoms.
        """
        key = end.candidate.id, start
        if key not in self._symmetric:
            structures = end.starting_structures if start else [end.atoms]
            self._symmetric[key] = any(spacegroup(atoms) > 2 for atoms in structures)
        return self._symmetric[key]
