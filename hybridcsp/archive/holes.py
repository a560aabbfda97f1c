"""Test whether the lowest minima of a search are holes of the potential.

Fitted potentials may have artificial minima, far below all crystals, where atoms come closer than in any data that they
were fitted to. Such a minimum would take over the credit of sources, the parents of new structures and the lessons of
generators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.archive.basins import Basin
from hybridcsp.archive.events import CandidateRelaxed
from hybridcsp.archive.state import SearchState
from hybridcsp.structure.separations import shortest_distances

#: Largest number of minima that may be holes, and number of others from which they are told and with which they are
#: compared at most.
MOST, FEWEST, COMPARED = 3, 8, 20

#: Number of minima from which on only the lowest are tested when they are found.
MANY = 64

#: Smallest energy in eV/atom by which holes lie below all others, and in units of the spread of these.
GAP, SPREADS = 0.1, 2.0

#: Distance of two atoms below which a structure may be a hole: a fraction of the shortest distance of their elements in
#: the other minima, and of the sum of their covalent radii. The shortest real bonds, such as those of N2 and CO, have
#: 0.77 of the sum.
SHORTER, SHORT = 0.85, 0.75

_RADII = covalent_radii[:119, None] + covalent_radii[None, :119]


class HoleTest:
    """Find the minima that are probably holes: outliers in their energies and in their distances at once.

    Both are needed. A new structure type may lie far below everything that a search has found so far, but not with
    atoms much closer than elsewhere.

    Parameters
    ----------
    structure_of
        Function that reads the structure of a basin.
    """

    def __init__(self, structure_of: Callable[[Basin], Atoms]) -> None:
        self._structure_of = structure_of
        self._distances: dict[int, tuple[int, NDArray[np.float64]]] = {}  # by minimum, with its best event
        self._unwritten: dict[int, Atoms] = {}  # by event

    def begin_transaction(self) -> None:
        """Expect that all structures noted so far can be read."""
        self._unwritten.clear()

    def note(self, event: CandidateRelaxed, structure: Atoms) -> None:
        """Keep the structure of an event that is only written with the present transaction."""
        self._unwritten[event.sequence] = structure

    def suspects(self, ranked: Sequence[Basin], structure: Atoms | None = None) -> tuple[int, ...]:
        """Return the ids of the minima that are probably holes.

        Parameters
        ----------
        ranked
            Minima of one calculator, lowest first.
        structure
            Structure of the minimum whose best relaxation is not recorded yet; ``None`` if there is none.
        """
        for number in range(MOST, 0, -1):
            low, others = ranked[:number], ranked[number:]
            if len(others) < FEWEST:
                continue
            energies = [basin.enthalpy_per_atom for basin in others[:COMPARED]]
            gap = energies[0] - low[-1].enthalpy_per_atom
            if gap <= max(GAP, SPREADS * (median(energies) - energies[0])):
                continue
            compared = {basin.id for basin in ranked[: MOST + COMPARED]}
            self._distances = {id_: known for id_, known in self._distances.items() if id_ in compared}
            usual = np.min([self._shortest(basin, structure) for basin in others[:COMPARED]], axis=0)
            closer = [self._shortest(basin, structure) for basin in low]
            found = [
                basin.id
                for basin, own in zip(low, closer, strict=True)
                if ((own < SHORTER * usual) & (own < SHORT * _RADII)).any()
            ]
            if found:
                return tuple(sorted(found))
        return ()

    def _shortest(self, basin: Basin, structure: Atoms | None) -> NDArray[np.float64]:
        sequence = basin.best.sequence
        if not sequence and structure is not None:
            return shortest_distances([structure])
        known = self._distances.get(basin.id)
        if known is None or known[0] != sequence:
            noted = self._unwritten.get(sequence)
            found = shortest_distances([self._structure_of(basin) if noted is None else noted])
            known = self._distances[basin.id] = sequence, found
        return known[1]


def suspects_with(test: HoleTest, state: SearchState, event: CandidateRelaxed, structure: Atoms) -> tuple[int, ...]:
    """Return the ids of the suspect minima of a search as they will be after a relaxation that is not recorded yet.

    Parameters
    ----------
    test
        The test.
    state
        State of the search before the relaxation.
    event
        Event of the relaxation, which has a minimum.
    structure
        Structure in which it ended.
    """
    assert event.minimum is not None
    own = state.basins.get(event.minimum)
    known = own is not None and (event.captured_by is not None or event.enthalpy_per_atom >= own.enthalpy_per_atom)
    if event.calculator != state.calculator or (known and event.absorbed is None):
        return state.suspects
    # More than decide below, after two of them are left out.
    lowest = state.ranked(MANY + 3)
    others = [basin for basin in lowest if basin.id not in (event.minimum, event.absorbed)]
    if own is None or not known:
        own = Basin(id=event.minimum, found_by=0, first_relaxation=0, first_force_calls=0, best=event)
    ranked = sorted([*others, own], key=lambda basin: (basin.enthalpy_per_atom, basin.id))
    # A minimum that is not among the lowest changes the result only where there are few others, or a suspect.
    if not (own in ranked[:MOST] or state.suspects or len(ranked) <= MANY):
        return ()
    return test.suspects(ranked, structure)
