"""Assignment of relaxed structures to the minima of a search."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ase import Atoms

from hybridcsp.archive.basins import Basin, Ranked
from hybridcsp.archive.follow_ups import FollowUpMinimum, FollowUps
from hybridcsp.archive.state import SearchState
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.core.records import REFINE
from hybridcsp.similarity import ENERGY_WINDOW, Descriptors, StructureIndex, compute_descriptors
from hybridcsp.similarity.niches import NICHE_WINDOW, NicheIndex


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The minimum to which a relaxation is assigned.

    Attributes
    ----------
    minimum
        Id of the minimum.
    is_new
        Whether no earlier relaxation had ended in it.
    absorbed
        Id of another minimum that turned out to be the same; ``None`` for none.
    niche
        Id of the first minimum of its niche; ``None`` where niches are not determined.
    """

    minimum: int
    is_new: bool
    absorbed: int | None
    niche: int | None = None


class MinimaMatcher:
    """Assign relaxations to the minima of a search: to a known one with the same structure and energy, or to a new one.

    Minima of different calculators are never compared.

    Parameters
    ----------
    state
        State of the search, which the placed relaxations are applied to.
    structure_of
        Function that reads the structure of a basin.
    next_id
        Function that returns the id of the next new minimum.
    """

    def __init__(self, state: SearchState, structure_of: Callable[[Basin], Atoms], next_id: Callable[[], int]) -> None:
        self._state = state
        self._structure_of = structure_of
        self._next_id = next_id
        self._known: dict[str, KnownMinima[Basin]] = {}  # by calculator
        self._niches: dict[str, KnownMinima[Basin]] = {}  # likewise; each niche by its first minimum

    def place(self, outcome: Relaxed, descriptors: Descriptors | None = None) -> Placement | None:
        """Return the minimum in which a relaxation ended, and expect it to be applied to the state.

        Parameters
        ----------
        outcome
            The relaxation.
        descriptors
            Descriptors of its structure, if they were computed in advance.

        Returns
        -------
        Placement or None
            ``None`` for a relaxation that did not converge, or that was ended in a basin of another calculator.
        """
        if not outcome.converged:
            return None
        state, calculator = self._state, outcome.evaluation.calculator
        if outcome.captured_by is not None:
            captor = state.basins.get(state.follow_ups.present(outcome.captured_by))  # it may have been absorbed since
            if captor is None or captor.calculator != calculator:
                return None
            return Placement(minimum=captor.id, is_new=False, absorbed=None, niche=captor.niche)
        known = self._known.get(calculator)
        if known is None:
            basins = [basin for basin in state.basins.values() if basin.calculator == calculator]
            known = self._known[calculator] = KnownMinima(basins, self._structure_of)
            first = [basin for basin in basins if basin.niche == basin.id]
            self._niches[calculator] = KnownMinima(first, self._structure_of, NicheIndex(), NICHE_WINDOW)
        niches = self._niches[calculator]
        if descriptors is None:
            descriptors = compute_descriptors(outcome.atoms)
        own = state.basin_ending(outcome.candidate.id) if outcome.level == REFINE else None
        if own is not None and own.calculator != calculator:
            own = None
        found = known.find(descriptors, outcome.enthalpy_per_atom)
        minimum = found if found is not None else own.id if own else self._next_id()
        absorbed = own.id if own is not None and own.id != minimum else None
        if absorbed is not None:
            known.remove(absorbed)
            niches.remove(absorbed)
        basin = state.basins.get(minimum)
        enthalpy = outcome.enthalpy_per_atom
        niche = (niches.find(descriptors, enthalpy) or minimum) if basin is None else basin.niche
        if basin is None or basin is own or enthalpy < basin.enthalpy_per_atom:
            known.put(minimum, descriptors, enthalpy)
            if niche == minimum:
                niches.put(minimum, descriptors, enthalpy)
        return Placement(minimum=minimum, is_new=basin is None, absorbed=absorbed, niche=niche)


class FollowUpMatcher:
    """Assign follow-up relaxations to the minima of their calculator.

    Parameters
    ----------
    follow_ups
        Follow-up relaxations of the search, which the placed ones are applied to.
    structure_of
        Function that reads the structure of a minimum of a follow-up calculator.
    """

    def __init__(self, follow_ups: FollowUps, structure_of: Callable[[FollowUpMinimum], Atoms]) -> None:
        self._follow_ups = follow_ups
        self._structure_of = structure_of
        self._known: dict[tuple[str, str], KnownMinima[FollowUpMinimum]] = {}  # by name and label of the calculator

    def place(self, spec: str, outcome: Relaxed) -> Placement | None:
        """Return the minimum in which a follow-up relaxation ended, and expect it to be applied to the state.

        Parameters
        ----------
        spec
            Name of the follow-up calculator.
        outcome
            The relaxation.

        Returns
        -------
        Placement or None
            ``None`` for a relaxation that did not converge.
        """
        if not outcome.converged:
            return None
        label, enthalpy = outcome.evaluation.calculator, outcome.enthalpy_per_atom
        level = self._follow_ups.level(spec)
        known = self._known.get((spec, label))
        if known is None:
            minima = level.minima(label) if level else []
            known = self._known[spec, label] = KnownMinima(minima, self._structure_of)
        descriptors = compute_descriptors(outcome.atoms)
        found = known.find(descriptors, enthalpy)
        number = found if found is not None else level.next_number(label) if level else 1
        minimum = level.minimum(label, number) if level else None
        if minimum is None or enthalpy < minimum.enthalpy_per_atom:
            known.put(number, descriptors, enthalpy)
        return Placement(minimum=number, is_new=minimum is None, absorbed=None)


_R = TypeVar("_R", bound=Ranked)


class KnownMinima(Generic[_R]):
    """An index of the minima of one calculator, which reads structures when their energies make them matter.

    Computing descriptors takes half a millisecond for a structure: a minute for the 100,000 minima of a long search, of
    which most sessions need a small part.

    Parameters
    ----------
    basins
        Minima that are known at the beginning.
    structure_of
        Function that reads the structure of a basin.
    index
        Empty index that compares structures.
    window
        Largest difference of the energies of structures that the index finds equal, in eV/atom.
    """

    def __init__(
        self,
        basins: Iterable[_R],
        structure_of: Callable[[_R], Atoms],
        index: StructureIndex | NicheIndex | None = None,
        window: float = ENERGY_WINDOW,
    ) -> None:
        self._index = StructureIndex(energy_window=ENERGY_WINDOW) if index is None else index
        self._window = window
        self._structure_of = structure_of
        self._unread = {basin.id: basin for basin in basins}
        self._by_energy = sorted((basin.enthalpy_per_atom, basin.id) for basin in self._unread.values())

    def find(self, descriptors: Descriptors, enthalpy_per_atom: float) -> int | None:
        """Return the id of the minimum with this structure and energy (eV/atom), or ``None`` if it is not known."""
        # A little wider than the window of the index, which decides.
        first = bisect_left(self._by_energy, (enthalpy_per_atom - 1.001 * self._window, 0))
        last = bisect_right(self._by_energy, (enthalpy_per_atom + 1.001 * self._window, 0))
        for _, id_ in self._by_energy[first:last]:
            if (basin := self._unread.pop(id_, None)) is not None:
                self._index.add(id_, self._structure_of(basin), basin.enthalpy_per_atom)
        del self._by_energy[first:last]
        return self._index.find(descriptors, enthalpy_per_atom)

    def put(self, id_: int, descriptors: Descriptors, enthalpy_per_atom: float) -> None:
        """Add a minimum, or replace its structure and energy (eV/atom)."""
        self.remove(id_)
        self._index.add(id_, descriptors, enthalpy_per_atom)

    def remove(self, id_: int) -> None:
        """Remove a minimum; an unknown id is ignored."""
        self._unread.pop(id_, None)
        if id_ in self._index:
            self._index.remove(id_)
