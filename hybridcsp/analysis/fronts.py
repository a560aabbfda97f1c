"""The Pareto fronts of a search with objectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.state import SearchState
from hybridcsp.archive.system_state import SystemState
from hybridcsp.errors import InputError
from hybridcsp.objectives.base import MINIMUM
from hybridcsp.objectives.conditions import HEIGHT
from hybridcsp.objectives.goals import Goal, Goals
from hybridcsp.prototypes.names import prototype_name

#: The height as a goal, which every front has besides those of the objectives.
LOW = Goal(name=HEIGHT, unit="meV/atom", goal=MINIMUM)


@dataclass(frozen=True, kw_only=True)
class FrontMember:
    """A minimum that meets the condition of a search and has values of all optimised objectives.

    Attributes
    ----------
    front
        Number of its front: 1 for the Pareto front, 2 for the front without this one, and so on.
    id
        Number of the minimum.
    candidate
        Candidate that reached it first.
    composition
        Composition in a chemical system; empty in a search of one formula.
    height
        Height above the best, or in a chemical system above the convex hull, in eV/atom.
    enthalpy_per_atom
        Enthalpy in eV/atom by the calculator of the search.
    values
        Values of the objectives by name.
    spacegroup
        Space group number at 0.01 Å; ``None`` if it was not determined.
    source, operator
        Origin of the candidate that reached it first.
    relaxation, force_calls
        Number of the relaxation that reached it first, and force calls of the search until then.
    prototype
        Name of its prototype; empty if it has none or was not asked for.
    """

    front: int
    id: int
    candidate: int
    composition: str
    height: float
    enthalpy_per_atom: float
    values: Mapping[str, float]
    spacegroup: int | None
    source: str
    operator: str
    relaxation: int
    force_calls: int
    prototype: str = ""

    def value(self, goal: Goal) -> float:
        """Return the value of an objective, or the height in meV/atom for :data:`LOW`."""
        return 1000 * self.height if goal == LOW else self.values[goal.name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fronts:
    """The Pareto fronts of a search, and how many minima are on none.

    Attributes
    ----------
    name
        Formula or chemical system, with the pressure if there is one.
    is_system, has_hull
        Whether it is a chemical system, and whether every element has a minimum, without which there is no hull.
    calculator
        Label of the calculator.
    goals
        Objectives and condition of the search.
    members
        Minima on the fronts: by front, then by ascending height.
    minima, suspects
        Number of minima, and of those that are probably holes of the potential, which are on no front.
    unmet
        Number of minima that each comparison of the condition excludes; one may be excluded by several.
    excluded
        Number of minima that do not meet the condition.
    missing
        Number of minima that meet the condition without a value of each optimised objective.
    failures
        Number of relaxations whose values could not be computed, by objective and reason.
    relaxations, force_calls
        Number of relaxations and force calls of the search.
    """

    name: str
    is_system: bool
    has_hull: bool
    calculator: str
    goals: Goals
    members: tuple[FrontMember, ...]
    minima: int
    suspects: int
    unmet: Mapping[str, int]
    excluded: int
    missing: Mapping[str, int]
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    relaxations: int = 0
    force_calls: int = 0

    @property
    def criteria(self) -> tuple[Goal, ...]:
        """The height and the optimised objectives, which decide about the fronts."""
        return (LOW, *self.goals.optimised)

    @property
    def number(self) -> int:
        """Number of fronts."""
        return max((member.front for member in self.members), default=0)

    def up_to(self, rank: int) -> list[FrontMember]:
        """Return the members of the first fronts."""
        return [member for member in self.members if member.front <= rank]


def read_fronts(archive: Archive) -> Fronts:
    """Return the fronts of a search.

    Raises
    ------
    InputError
        If no search was started, it has no objective with a goal, or no minimum is on a front yet.
    """
    state = archive.state
    if not state.settings:
        raise InputError("directory", archive.directory, reason="no search has been started in this directory")
    if not state.goals.optimised:
        raise InputError("directory", archive.directory, reason=_without_goals(archive.formula, state.goals))
    found = _fronts(archive, state)
    if not found.members:
        raise InputError("directory", archive.directory, reason=_empty(found))
    return found


def with_prototypes(members: Sequence[FrontMember], archive: Archive) -> list[FrontMember]:
    """Return members with the names of their prototypes, for which their structures are read."""
    basins = archive.state.basins
    return [replace(member, prototype=prototype_name(archive.structure(basins[member.id]))) for member in members]


def staircase(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the corners of the line between what points dominate and what they do not, from top left to bottom right.

    Parameters
    ----------
    points
        Points, both coordinates of which are the better the smaller.
    worst
        Coordinates at which the line ends.
    """
    corners: list[tuple[float, float]] = []
    level = worst[1]
    for x, y in sorted(points):
        if y < level:
            corners += [(x, level), (x, y)]
            level = y
    return [*corners, (worst[0], level)] if corners else []


def _fronts(archive: Archive, state: SearchState) -> Fronts:
    goals, heights = state.goals, state.heights()
    allowed = [(basin, height) for basin, height in heights if goals.allow(basin.objectives, height)]
    unmet = Counter(
        text for basin, height in heights for text in goals.condition.unmet({**basin.objectives, HEIGHT: height})
    )
    missing = Counter(one.name for basin, _ in allowed for one in goals.optimised if one.name not in basin.objectives)
    ranked = [(basin, height) for basin, height in allowed if goals.criteria(basin.objectives, height) is not None]
    members = []
    for (basin, height), front in zip(ranked, goals.front_numbers(ranked), strict=True):
        first = state.candidates[basin.found_by]
        members.append(
            FrontMember(
                front=front + 1,
                id=basin.id,
                candidate=basin.found_by,
                composition=state.formula_of(basin.found_by) if isinstance(state, SystemState) else "",
                height=height,
                enthalpy_per_atom=basin.enthalpy_per_atom,
                values=basin.objectives,
                spacegroup=basin.spacegroup,
                source=first.source,
                operator=first.operator,
                relaxation=basin.first_relaxation,
                force_calls=basin.first_force_calls,
            )
        )
    problem = archive.system or archive.problem
    pressure = f" at {problem.pressure_gpa:g} GPa" if problem.pressure_gpa else ""
    return Fronts(
        name=f"{problem.formula}{pressure}",
        is_system=isinstance(state, SystemState),
        has_hull=isinstance(state, SystemState) and state.hull.is_complete,
        calculator=state.calculator or "",
        goals=goals,
        members=tuple(sorted(members, key=lambda one: (one.front, one.height, one.id))),
        minima=len(heights) + len(state.suspects),
        suspects=len(state.suspects),
        unmet=unmet,
        excluded=len(heights) - len(allowed),
        missing=missing,
        failures=dict(state.objective_failures),
        relaxations=state.relaxations,
        force_calls=state.cost.force_calls,
    )


def _without_goals(formula: str, goals: Goals) -> str:
    example = f"hybridcsp search {formula} --objective density:max"
    if goals.objectives:
        names = ", ".join(one.name for one in goals.objectives)
        return (
            f"its objectives ({names}) are only reported and have no goal, so that there is no front; begin a search "
            f"whose objectives have the goal min, max or a number, such as {example}"
        )
    return f"this search has no objectives beside a low enthalpy; begin one that has, such as {example}"


def _empty(found: Fronts) -> str:
    if not found.minima:
        return (
            "no relaxation has ended in a minimum yet, and the front consists of minima; wait for the search, or "
            "continue it with hybridcsp resume"
        )
    reasons = [f"{found.suspects} suspect"] if found.suspects else []
    reasons += [f"{number} without {text}" for text, number in found.unmet.items()]
    reasons += [f"{number} without a value of {name}" for name, number in found.missing.items()]
    failed = next(iter(found.failures), None)
    first = f"; the first value that could not be computed: {failed[0]}, {failed[1]}" if failed else ""
    have = "minimum is" if found.minima == 1 else "minima is"
    return f"none of its {found.minima} {have} on a front ({', '.join(reasons)}){first}"
