"""Requests to a generator for a problem, and the selection of the samples that are relaxed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from hybridcsp.core.problem import Problem
from hybridcsp.generators.base import Condition, Reject, Request, Sample
from hybridcsp.similarity import STARTS, Descriptors, StructureIndex, compute_descriptors
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, SYMPREC_ROUGH, primitive, spacegroup
from hybridcsp.structure.validity import is_crystal_of, violation

#: Largest energy quantile that is requested from generators that are conditioned on the energy.
LOW_ENERGIES = 0.2


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectedSample:
    """Represent a sample that has passed the screening.

    Attributes
    ----------
    atoms
        Structure.
    units
        Number of formula units.
    spacegroup
        Number of the space group.
    described
        Descriptors for comparisons with other structures.
    log_likelihood
        Natural logarithm of the model's density, or ``None`` if unknown.
    disfavoured
        Whether it is relaxed only after all others of its batch.
    """

    atoms: Atoms
    units: int
    spacegroup: int
    described: Descriptors
    log_likelihood: float | None = None
    disfavoured: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Represent the selected and the rejected samples of one batch.

    Attributes
    ----------
    chosen
        Selected samples in the order of their relaxation.
    rejects
        Number of rejected answers by reason.
    """

    chosen: tuple[SelectedSample, ...] = ()
    rejects: Counter[str] = field(default_factory=Counter)


def requests_for(
    problem: Problem,
    conditions: frozenset[Condition],
    n: int,
    rng: np.random.Generator,
    targets: Mapping[str, tuple[float, float]] | None = None,
) -> list[Request]:
    """Return ``n`` requests, spread evenly over the problem's formula units.

    Requests for the same number of formula units are equal, because a generator may diversify its answers to equal
    requests. Only if the problem allows several space groups do the requests differ in them; every second request then
    leaves the group open, because a structure in an arbitrary one of many groups is usually poor. Samples in groups
    that are not allowed are rejected later.

    Parameters
    ----------
    problem
        Problem of the search.
    conditions
        Conditions of the generator; requests set no others.
    n
        Number of requests.
    rng
        Random number generator.
    targets
        Lowest and highest wanted value of properties by name.
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
            targets=targets or {},
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
    """Screen the answers to :func:`requests_for` and sort the accepted samples for relaxation.

    Structures are symmetrised within 0.1 Å, triclinic ones within 0.3 Å. If the model is not conditioned on the
    problem's pressure, volumes are reduced to those expected under pressure. Samples that are not valid crystals, too
    dense or too dilute, with atoms too close, in a space group that is not allowed, or equal to another sample are
    rejected and counted by reason. Numbers of formula units take turns; within each, the best sample of every space
    group comes first, then the second best of each, and so on. The likelihood decides which sample is better, unless
    the model sorts its answers itself: densities of crystals with different numbers of free coordinates are not
    comparable.

    Parameters
    ----------
    answers
        Answers of the generator; objects of other types are counted as rejects.
    problem
        Problem of the search.
    conditions
        Conditions of the generator.
    n_requests
        Number of requests.
    best_first
        Whether answers to equal requests are sorted, the most promising first.
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
    """Return the symmetrised structure if it is acceptable, else the structure itself; and a reason against it."""
    if is_crystal_of(atoms, problem):
        symmetric = primitive(atoms, SYMPREC_ROUGH if spacegroup(atoms) <= 2 else SYMPREC_LOOSE)
        if violation(symmetric, problem) is None:
            return symmetric, None
    found = violation(atoms, problem)
    return atoms, None if found is None else str(found.reason)


def _in_turn(ranked: Sequence[SelectedSample]) -> list[SelectedSample]:
    """Sort samples, given the best first, so that space groups and formula units take turns."""
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
