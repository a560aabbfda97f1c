"""The phases of a chemical system that a search has found, and their places relative to the convex hull."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.system_state import SystemState
from hybridcsp.core.hull import Hull
from hybridcsp.errors import InputError
from hybridcsp.prototypes.names import prototype_name

#: Height above the hull up to which phases are listed unless another is asked for, in eV/atom: about kT at 300 K.
WINDOW = 0.025

# Heights are rounded to 1e-8 eV/atom.
_ROUNDING = 5e-9


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A minimum of a search in a chemical system.

    Attributes
    ----------
    id
        Number of the minimum.
    candidate
        Candidate that reached it first.
    formula
        Composition.
    enthalpy_per_atom
        Enthalpy in eV/atom.
    spacegroup
        Space group number at 0.01 Å; ``None`` if it was not determined.
    source, operator
        Origin of the candidate that reached it first.
    relaxation, force_calls
        Number of the relaxation of the whole search that reached it first, and force calls until then.
    known
        Whether it is a known phase that was given, or the same as one.
    prototype
        Name of its prototype; empty if it has none or was not asked for.
    """

    id: int
    candidate: int
    formula: str
    enthalpy_per_atom: float
    spacegroup: int | None = None
    source: str = ""
    operator: str = ""
    relaxation: int = 0
    force_calls: int = 0
    known: bool = False
    prototype: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Phases:
    """All phases of a chemical system from one calculator at one pressure, with their convex hull.

    Attributes
    ----------
    elements
        Elements of the system, in the order of its formulas.
    phases
        The phases.
    calculator
        Label of the calculator.
    pressure_gpa
        Pressure in GPa.
    relaxations, force_calls
        Number of relaxations and force calls in which they were found.
    """

    elements: tuple[str, ...]
    phases: tuple[Phase, ...]
    calculator: str = ""
    pressure_gpa: float = 0.0
    relaxations: int = 0
    force_calls: int = 0

    @property
    def name(self) -> str:
        """Name of the system, with the pressure if there is one: ``"V-O at 10 GPa"``."""
        return "-".join(self.elements) + (f" at {self.pressure_gpa:g} GPa" if self.pressure_gpa else "")

    @property
    def quantity(self) -> str:
        """Name of what was minimised: energy or, under pressure, enthalpy."""
        return "enthalpy" if self.pressure_gpa else "energy"

    @cached_property
    def lowest(self) -> dict[str, Phase]:
        """Phase of lowest enthalpy of each composition."""
        found: dict[str, Phase] = {}
        for phase in self.phases:
            if phase.formula not in found or phase.enthalpy_per_atom < found[phase.formula].enthalpy_per_atom:
                found[phase.formula] = phase
        return found

    @cached_property
    def hull(self) -> Hull:
        """Convex hull of all phases."""
        return _hull_of(self.elements, self.lowest.values())

    @cached_property
    def known_hull(self) -> Hull | None:
        """Convex hull of the known phases; ``None`` if none was given.

        An element without a known phase has its lowest minimum in the search.
        """
        known = [phase for phase in self.phases if phase.known]
        if not known:
            return None
        others = [element for element in self.elements if element not in self._known_formulas]
        ends = [self.lowest[element] for element in others if element in self.lowest]
        return _hull_of(self.elements, [*known, *ends])

    @cached_property
    def _known_formulas(self) -> frozenset[str]:
        """Formulas of the known phases."""
        return frozenset(phase.formula for phase in self.phases if phase.known)

    def height(self, phase: Phase) -> float:
        """Return the height of a phase above the hull in eV/atom.

        Raises
        ------
        InputError
            If there is no hull yet, because an element has no phase.
        """
        return self._with_hull(self.hull.height(phase.formula, phase.enthalpy_per_atom))

    def formation(self, phase: Phase) -> float:
        """Return the enthalpy of formation of a phase from the elements in eV/atom.

        Raises
        ------
        InputError
            If there is no hull yet, because an element has no phase.
        """
        return self._with_hull(self.hull.formation(phase.formula, phase.enthalpy_per_atom))

    def _with_hull(self, value: float | None) -> float:
        if value is None:
            have = "has" if len(self.missing) == 1 else "have"
            raise InputError("phases", self.name, reason=f"{' and '.join(self.missing)} {have} no phase")
        return value

    @property
    def missing(self) -> tuple[str, ...]:
        """Elements without a phase, without which there is no hull."""
        return tuple(element for element in self.elements if element not in self.lowest)

    def height_above_known(self, phase: Phase) -> float | None:
        """Return the height of a phase above the hull of the known phases in eV/atom; ``None`` if none was given."""
        return None if self.known_hull is None else self.known_hull.height(phase.formula, phase.enthalpy_per_atom)

    def on_hull(self, phase: Phase) -> bool:
        """Return whether a phase is on the hull: the lowest of its composition, at a corner of the hull."""
        return phase.formula in self.hull.stable and self.lowest[phase.formula].id == phase.id

    def is_new(self, phase: Phase) -> bool | None:
        """Return whether a phase is none of the known ones.

        ``None`` if none was given, and for an element of which none was given: the search itself supplies its phases.
        """
        if self.known_hull is None:
            return None
        if phase.formula in self.elements and phase.formula not in self._known_formulas:
            return None
        return not phase.known

    def stable_by(self, phase: Phase) -> float | None:
        """Return by how much (eV/atom) a phase on the hull lies below the hull of all other compositions.

        ``None`` for elements and for phases that are not on the hull.
        """
        if phase.formula in self.elements or not self.on_hull(phase):
            return None
        others = self.hull.copy()
        others.remove(phase.formula)
        height = others.height(phase.formula, phase.enthalpy_per_atom)
        return None if height is None else -height

    def within(self, window: float, *, only_lowest: bool = False) -> list[Phase]:
        """Return the phases up to some height above the hull: those on it by composition, then by ascending height.

        Parameters
        ----------
        window
            Largest height in eV/atom.
        only_lowest
            Whether only the lowest phase of each composition is returned.
        """
        places = {formula: tuple(-x for x in self.hull.fractions(formula)) for formula in self.lowest}
        energies = {formula: self.hull.energy(formula) for formula in self.lowest}
        found = []
        for phase in self.lowest.values() if only_lowest else self.phases:
            energy = energies[phase.formula]
            if energy is not None and phase.enthalpy_per_atom - energy <= window + _ROUNDING:
                found.append(phase)
        found.sort(key=lambda one: (self.height(one), places[one.formula], one.enthalpy_per_atom, one.id))
        return sorted(found, key=lambda one: not self.on_hull(one))

    def until(self, relaxations: int) -> Phases:
        """Return the phases that the first relaxations found, with the enthalpies that they have in the end."""
        found = tuple(phase for phase in self.phases if phase.relaxation <= relaxations)
        calls = max((phase.force_calls for phase in found), default=0)
        return replace(self, phases=found, relaxations=relaxations, force_calls=calls)


def snapshots_of(phases: Phases, number: int) -> list[Phases]:
    """Return the phases that had been found at a number of equally distant moments, the last of which is the end.

    Parameters
    ----------
    phases
        All phases.
    number
        Number of moments. Those before every element has a phase are left out, so that each has a hull.
    """
    moments = sorted({round(phases.relaxations * k / number) for k in range(1, number + 1)})
    found = [phases.until(moment) for moment in moments[:-1]]
    return [*(one for one in found if not one.missing), phases]


def read_phases(archive: Archive) -> Phases:
    """Return the phases of a search of a chemical system, without suspect minima.

    Raises
    ------
    InputError
        If the run directory holds no search of a chemical system, or one of its elements has no minimum yet.
    """
    state = archive.state
    if not state.settings:
        raise InputError("directory", archive.directory, reason="no search has been started in this directory")
    if not isinstance(state, SystemState):
        symbols = "-".join(archive.problem.composition)
        example = f", such as hybridcsp search {symbols}" if "-" in symbols else ", such as hybridcsp search V-O"
        reason = (
            f"it holds a search of {archive.problem.formula}, and a convex hull needs a search of a chemical system"
            f"{example}; hybridcsp show lists the minima of this one"
        )
        raise InputError("directory", archive.directory, reason=reason)
    phases = Phases(
        elements=state.hull.elements,
        phases=tuple(_phases(state)),
        calculator=state.calculator or "",
        pressure_gpa=state.system.pressure_gpa,
        relaxations=state.relaxations,
        force_calls=state.cost.force_calls,
    )
    if phases.missing:
        have = "has" if len(phases.missing) == 1 else "have"
        reason = (
            f"{' and '.join(phases.missing)} {have} no minimum yet, and a hull needs one of every element; continue "
            "the search with hybridcsp resume, or give the elements to a new search with --reference FILE"
        )
        raise InputError("directory", archive.directory, reason=reason)
    return phases


def with_prototypes(phases: Sequence[Phase], archive: Archive) -> list[Phase]:
    """Return phases with the names of their prototypes, for which their structures are read."""
    basins = archive.state.basins
    return [replace(phase, prototype=prototype_name(archive.structure(basins[phase.id]))) for phase in phases]


def _phases(state: SystemState) -> Iterable[Phase]:
    for basin in state.ranked():
        if basin.suspect:
            continue
        found_by = state.candidates[basin.found_by]
        yield Phase(
            id=basin.id,
            candidate=basin.found_by,
            formula=state.formula_of(basin.found_by),
            enthalpy_per_atom=basin.enthalpy_per_atom,
            spacegroup=basin.spacegroup,
            source=found_by.source,
            operator=found_by.operator,
            relaxation=basin.first_relaxation,
            force_calls=basin.first_force_calls,
            known=basin.id in state.references,
        )


def _hull_of(elements: Sequence[str], phases: Iterable[Phase]) -> Hull:
    """Return the hull of phases, of which the lowest of each composition counts."""
    hull = Hull(elements)
    for phase in sorted(phases, key=lambda one: -one.enthalpy_per_atom):
        hull.put(phase.formula, phase.enthalpy_per_atom)
    return hull
