"""What a generator is asked for a problem, and which of its answers are worth a relaxation, best first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.generators.base import Condition, Reject, Request, Sample
from hybridcsp.similarity import STARTS, Descriptors, StructureIndex, compute_descriptors
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, SYMPREC_ROUGH, primitive, spacegroup
from hybridcsp.structure.validity import is_crystal_of, violation

#: Energy quantiles are drawn up to this one, where a generator knows what they are.
LOW_ENERGIES = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectedSample:
    """A sample that is worth a relaxation.

    Attributes
    ----------
    atoms
        The structure.
    units
        Its formula units.
    spacegroup
        Its number.
    described
        For comparisons.
    log_likelihood
        Where the model knows it.
    """

    atoms: Atoms
    units: int
    spacegroup: int
    described: Descriptors
    log_likelihood: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What became of the answers to one batch of requests.

    Attributes
    ----------
    chosen
        Best first.
    rejects
        How many answers came to nothing, by reason.
    """

    chosen: tuple[SelectedSample, ...] = ()
    rejects: Counter[str] = field(default_factory=Counter)


def requests_for(problem: Problem, conditions: frozenset[Condition], n: int, rng: np.random.Generator) -> list[Request]:
    """Return ``n`` requests, spread evenly over the problem's formula units, with what the generator understands.

    Requests for the same formula units are equal, but for space groups where the problem names several: a generator may
    spread its answers to equal requests. Then every second leaves the group open, since most of many groups would make
    a poor crystal, and what comes out in a group that is not wanted is passed over.
    """
    several = len(problem.spacegroups) > 1
    units = [problem.units[i % len(problem.units)] for i in range(n)]
    quantile = float(rng.uniform(0, LOW_ENERGIES)) if Condition.ENERGY in conditions else None
    return [
        Request(
            contents=problem.contents(z),
            spacegroup=(
                int(rng.choice(problem.spacegroups))
                if problem.spacegroups and Condition.SPACEGROUP in conditions and not (several and number % 2)
                else None
            ),
            energy_quantile=quantile,
            pressure_gpa=problem.pressure_gpa if Condition.PRESSURE in conditions else None,
        )
        for number, z in enumerate(sorted(units))
    ]


def select(
    answers: Sequence[Sample | Reject],
    problem: Problem,
    conditions: frozenset[Condition],
    n_requests: int,
    *,
    best_first: bool = False,
) -> Selection:
    """Screen the answers to :func:`requests_for` and put what is left in the order in which to relax it.

    A structure that is symmetric within 0.1 Å, a triclinic one within 0.3 Å, is made so. Where the problem has a
    pressure that the model knows nothing of, volumes shrink as the problem expects. What is broken, too dense or too
    dilute, too close, of a space group that is not wanted, or the same as another sample is counted by reason. Formula
    units take turns; within each the best of every space group come first, then the second best, and so on. Which are
    best is told by the likelihood where the model knows it, unless it puts its answers in order itself: the density of
    a crystal with many free coordinates does not compare with that of one with few.

    Parameters
    ----------
    answers
        As the generator gave them; what is no answer is counted too.
    problem
        What is searched.
    conditions
        What the generator was asked to honour.
    n_requests
        How many answers there should be.
    best_first
        Whether answers to equal requests come in the order in which to try them.
    """
    rejects: Counter[str] = Counter()
    shrink = 1.0 if Condition.PRESSURE in conditions else problem.compression
    seen = StructureIndex(energy_window=None, tolerances=STARTS)
    kept: list[SelectedSample] = []
    for answer in answers:
        if not isinstance(answer, Sample) or not isinstance(answer.atoms, Atoms):
            rejects[str(answer.reason) if isinstance(answer, Reject) else "no answer"] += 1
            continue
        atoms, reason = _fitting(_bare(answer.atoms, shrink), problem)
        if reason is not None:
            rejects[reason] += 1
            continue
        described = compute_descriptors(atoms)
        if seen.find(described) is not None:
            rejects["duplicate"] += 1
            continue
        seen.add(len(seen), described)
        units = problem.units_of(atoms.numbers)
        assert units is not None, "screened"
        likelihood = answer.log_likelihood
        finite = likelihood is not None and bool(np.isfinite(likelihood))
        kept.append(
            SelectedSample(
                atoms=atoms,
                units=units,
                spacegroup=spacegroup(atoms),
                described=described,
                log_likelihood=float(likelihood) if likelihood is not None and finite else None,
            )
        )
    if len(answers) < n_requests:
        rejects["no answer"] += n_requests - len(answers)
    if not best_first:
        kept.sort(key=lambda one: 0.0 if one.log_likelihood is None else -one.log_likelihood)
    return Selection(chosen=tuple(_in_turn(kept)), rejects=rejects)


def _bare(found: Atoms, shrink: float) -> Atoms:
    cell = found.cell.array * shrink ** (1 / 3)
    return Atoms(found.numbers, cell=cell, positions=found.positions * shrink ** (1 / 3), pbc=True)


def _fitting(atoms: Atoms, problem: Problem) -> tuple[Atoms, str | None]:
    """Return the symmetrised structure if that passes, else the structure as it is; and what is against it."""
    if is_crystal_of(atoms, problem):
        symmetric = primitive(atoms, SYMPREC_ROUGH if spacegroup(atoms) <= 2 else SYMPREC_LOOSE)
        if violation(symmetric, problem) is None:
            return symmetric, None
    found = violation(atoms, problem)
    return atoms, None if found is None else str(found.reason)


def _in_turn(ranked: Sequence[SelectedSample]) -> list[SelectedSample]:
    """Put samples, best first, in the order in which space groups and formula units take turns."""
    of_group: Counter[tuple[int, int]] = Counter()
    places: list[tuple[int, int]] = []  # within its space group, and then in the ranking
    for rank, chosen in enumerate(ranked):
        places.append((of_group[chosen.units, chosen.spacegroup], rank))
        of_group[chosen.units, chosen.spacegroup] += 1
    of_units: Counter[int] = Counter()
    turns: list[tuple[int, int, int]] = []
    for _, rank in sorted(places):
        units = ranked[rank].units
        turns.append((of_units[units], units, rank))
        of_units[units] += 1
    return [ranked[rank] for _, _, rank in sorted(turns)]
