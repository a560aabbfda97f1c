"""Selection of the most promising structure, among several, that a job then relaxes: successive halving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.core.outcomes import FailureReason
from hybridcsp.core.records import LOWEST, Candidate
from hybridcsp.relaxation.descent import Descent
from hybridcsp.relaxation.guards import Evaluated, GuardedCalculator, JobEnded

#: Force calls up to which each structure is relaxed in the rounds; after each, the better half stays.
ROUNDS = (1, 6, 12)

#: Fall of the enthalpy (eV/atom) that a relaxation is expected to bring, per largest force on an atom (eV/Å), and the
#: largest force that counts, since the greater ones are those of two atoms that are too close.
FALL_PER_FORCE, LARGEST_FORCE = 0.07, 20.0

#: Reasons for which one structure is skipped while the others are still evaluated.
_SKIPPED = frozenset(
    {
        FailureReason.CALCULATOR,
        FailureReason.WRONG_RESULTS,
        FailureReason.NON_FINITE,
        FailureReason.FORCE_EXPLOSION,
        FailureReason.OVERLAP,
        FailureReason.ISOLATED_ATOMS,
        FailureReason.VOLUME,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Starts:
    """The structures from which a job could have started.

    Attributes
    ----------
    enthalpies
        Enthalpy per atom of each structure in eV before it was moved; ``None`` for a skipped one.
    estimates
        Estimate of the enthalpy per atom in eV that each relaxes to, not below those of structures that stayed longer;
        ``None`` for a skipped one.
    hessian
        Estimate of the second derivatives of the chosen structure.
    """

    enthalpies: tuple[float | None, ...] = ()
    estimates: tuple[float | None, ...] = ()
    hessian: NDArray[np.float64] | None = None


def start_from_most_promising(atoms: Atoms, candidate: Candidate) -> Starts:
    """Move the atoms to the most promising of the structures of a candidate, which is relaxed a little.

    Each structure is evaluated, the better half relaxed up to the sixth force call, and the better half of these up to
    the twelfth. A structure promises the more, the lower its enthalpy and the larger the forces that it can follow: its
    estimate is the enthalpy minus :data:`FALL_PER_FORCE` times the largest force. Structures that cannot be evaluated,
    or that a guard rejects, are skipped.

    Parameters
    ----------
    atoms
        The first structure, with a guarded calculator; its positions and its cell are changed.
    candidate
        The candidate whose further structures are evaluated too.

    Raises
    ------
    JobEnded
        If a limit of the job is reached, or if every structure is skipped.

    Notes
    -----
    Rounds and factor were chosen on recorded relaxations of random starts in 22 systems (EMT, Lennard-Jones and ionic
    pair potentials, 5 to 16 atoms; ``benchmarks/racing.py``). With 15 to 40 force calls for leaving saddle points, the
    best of eight starts reached one of the lowest 3 to 8 % of minima with 0.58 to 0.66 of the force calls of single
    starts (geometric mean), and with 2.5 to 2.7 times as many in the worst system. Two of six chosen at once needed
    0.76 to 0.80. With energies alone, without forces, alloys whose loose starts fall far lost up to a factor of four.

    References
    ----------
    Successive halving: Jamieson, Talwalkar, arXiv:1502.07943. Look ahead based on quadratic approximation, which weighs
    energies and forces in the same way: Terayama, Yamashita, Oguchi, Tsuda, npj Comput. Mater. 4, 32 (2018),
    doi:10.1038/s41524-018-0090-y.
    """
    runners = [_Runner(start, atoms.calc) for start in (atoms.copy(), *candidate.starts[1:])]
    alive: list[_Runner] = runners
    dropped: list[list[_Runner]] = []
    for before, after in pairwise((0, *ROUNDS)):
        for runner in alive:
            runner.advance(after - before)
        alive = sorted((runner for runner in alive if runner.estimate is not None), key=_promise)
        while not alive and dropped:  # all of the better half failed
            alive = dropped.pop()
        if not alive:
            break
        keep = math.ceil(len(alive) / 2) if after != ROUNDS[-1] else 1
        dropped.append(alive[keep:])
        alive = alive[:keep]
    if not alive:
        failures = [runner.failure for runner in runners if runner.failure is not None]
        raise failures[0]
    floor = _promise(alive[0])
    for group in reversed(dropped):
        for runner in group:
            runner.estimate = max(_promise(runner), floor)
        floor = max([floor, *map(_promise, group)])
    best = alive[0]
    assert best.evaluated is not None
    atoms.calc.return_to(best.evaluated, atoms)
    enthalpies = tuple(runner.enthalpy if runner.estimate is not None else None for runner in runners)
    return Starts(enthalpies, tuple(runner.estimate for runner in runners), best.descent.hessian)


class _Runner:
    """One of the structures, and how far it has come.

    Attributes
    ----------
    enthalpy
        Enthalpy per atom in eV of the start.
    estimate
        Estimate of the enthalpy per atom in eV that it relaxes to; ``None`` if it is skipped.
    failure
        Reason for which it is skipped.
    evaluated
        The last structure that was evaluated.
    """

    def __init__(self, start: Atoms, guarded: GuardedCalculator) -> None:
        start.calc = guarded
        self.descent = Descent(start, guarded, guarded.settings, guarded.settings.tolerances(LOWEST))
        self.enthalpy: float | None = None
        self.estimate: float | None = None
        self.failure: JobEnded | None = None
        self.evaluated: Evaluated | None = None

    def advance(self, steps: int) -> None:
        """Relax it by some force calls, unless it has arrived at its minimum."""
        if self.descent.arrived:
            return
        guarded = self.descent.guarded
        self.estimate = None
        try:
            self.descent.advance(steps)
        except JobEnded as ended:
            if ended.reason not in _SKIPPED:
                raise
            self.failure = ended
            return
        except (ArithmeticError, ValueError) as error:  # linear algebra of an optimiser on an absurd structure
            self.failure = JobEnded(FailureReason.NON_FINITE, f"the optimiser broke down: {error}")
            return
        self.evaluated = guarded.evaluated()
        here = self.evaluated.enthalpy_per_atom
        self.enthalpy = here if self.enthalpy is None else self.enthalpy
        self.estimate = here - FALL_PER_FORCE * min(guarded.max_force or 0.0, LARGEST_FORCE)


def _promise(runner: _Runner) -> float:
    assert runner.estimate is not None
    return runner.estimate
