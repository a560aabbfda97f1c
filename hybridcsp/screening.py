"""What is not worth a relaxation: broken structures, wrong contents, and what was relaxed already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.cell import Cell

from hybridcsp.problem import Problem
from hybridcsp.records import LOWEST, RELAX, Candidate, RejectionReason, Relaxed
from hybridcsp.similarity import STARTS, Described, StructureIndex, describe
from hybridcsp.structure import is_finite_crystal, niggli_parameters, shortest_violation, spacegroup

# Volumes that are brought to a bound may miss it by rounding.
_MARGIN = 1 + 1e-6


@dataclass(frozen=True, eq=False)
class Verdict:
    """What screening says of one structure; ``reason`` is ``None`` where it is worth a relaxation."""

    reason: RejectionReason | None
    detail: str = ""
    described: Described | None = None


class Screen:
    """Checks proposals against a problem and against what is being or has been relaxed.

    Parameters
    ----------
    problem
        Sets contents, cell, volumes, distances and space groups.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._volumes = problem.volume_bounds
        self._known = StructureIndex(energy_window=None, tolerances=STARTS)

    def check(self, atoms: Atoms, level: str = RELAX, *, given: bool = False) -> Verdict:
        """Judge one structure; the checks run from the cheapest to the dearest and the first failure is the verdict.

        Jobs of other levels than "relax" and "lowest" leave the structure that they begin with: it may be known.

        Parameters
        ----------
        atoms
            The structure.
        level
            Of the job that it would become.
        given
            Whether a person brought it: then no volume is wrong, and no distance but those of broken files.
        """
        found = self.against_problem(atoms, given=given)
        if found is not None:
            return found
        described = describe(atoms)
        known = self._known.find(described) if level in (RELAX, LOWEST) else None
        if known is not None:
            detail = f"the start of candidate {known}" if known > 0 else f"the relaxed structure of candidate {-known}"
            return Verdict(RejectionReason.DUPLICATE, detail)
        return Verdict(None, described=described)

    def accepted(self, candidate: Candidate, described: Described) -> None:
        """Remember the start of a candidate that will be relaxed, if it has one: of several, one is chosen later."""
        if candidate.proposal.level != LOWEST:
            self._known.add(candidate.id, described)

    def relaxed(self, outcome: Relaxed) -> None:
        """Remember where a relaxation began, and where it ended if it converged to something not known yet.

        A minimum outside of the default volume bounds shows that they were estimated wrongly: they are widened to it,
        so that its relatives are not rejected.
        """
        if outcome.converged and self.problem.estimates_volume:
            volume = outcome.atoms.get_volume() / len(outcome.atoms)
            self._volumes = min(self._volumes[0], volume), max(self._volumes[1], volume)
        if outcome.candidate.id not in self._known and len(begun := outcome.begun_with) == 1:
            self._known.add(outcome.candidate.id, describe(begun[0]))
        key = -outcome.candidate.id
        if outcome.converged and key not in self._known:
            described = describe(outcome.atoms)
            if self._known.find(described) is None:
                self._known.add(key, described)

    def against_problem(self, atoms: Atoms, *, given: bool = False) -> Verdict | None:
        """Judge one structure by the problem; ``None`` where there is nothing against it.

        Parameters are those of :meth:`check`.
        """
        problem = self.problem
        if not is_finite_crystal(atoms):
            return Verdict(RejectionReason.INVALID, "no atoms, numbers that are not finite, or a cell without volume")
        if problem.units_of(atoms.numbers) not in problem.units:
            wanted = f"{problem.units_in_words} times {problem.formula}"
            return Verdict(RejectionReason.COMPOSITION, f"{atoms.symbols} is not {wanted}")
        low, high = self._volumes
        volume = atoms.get_volume() / len(atoms)
        if not given and not low / _MARGIN <= volume <= high * _MARGIN:
            return Verdict(RejectionReason.VOLUME, f"{volume:.2f} Å³/atom, allowed {low:.2f} to {high:.2f}")
        wrong_cell = self._wrong_cell(atoms)
        if wrong_cell:
            return Verdict(RejectionReason.CELL, wrong_cell)
        distances = problem.broken_distances if given else problem.distance_table
        close = shortest_violation(atoms, distances)
        if close is not None:
            first, second, distance = close
            pair = atoms.symbols[first], atoms.symbols[second]
            needed = distances[atoms.numbers[first], atoms.numbers[second]]
            return Verdict(RejectionReason.DISTANCE, f"{pair[0]}-{pair[1]} {distance:.2f} Å, at least {needed:.2f}")
        if problem.spacegroups:
            group = spacegroup(atoms)
            if group not in problem.spacegroups:
                return Verdict(RejectionReason.SPACEGROUP, f"space group {group}")
        return None

    def _wrong_cell(self, atoms: Atoms) -> str:
        problem = self.problem
        if problem.cell is not None:
            fixed = Cell.fromcellpar(problem.cell)
            metric, wanted = atoms.cell.array @ atoms.cell.array.T, fixed.array @ fixed.array.T
            return "" if np.allclose(metric, wanted, rtol=1e-4, atol=1e-3) else "not the fixed cell"
        if problem.length_bounds is None and problem.angle_bounds is None:
            return ""
        parameters = niggli_parameters(atoms)
        for name, values, bounds in (
            ("length", parameters[:3], problem.length_bounds),
            ("angle", parameters[3:], problem.angle_bounds),
        ):
            if bounds is not None and not (bounds[0] <= values.min() and values.max() <= bounds[1]):
                listed = ", ".join(f"{value:.2f}" for value in values)
                return f"{name}s {listed} of the reduced cell, allowed {bounds[0]:g} to {bounds[1]:g}"
        return ""
