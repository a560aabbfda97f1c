"""Settings of the follow-ups of a search, and the selection of the minima that they relax."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.events import CandidateRelaxed
from hybridcsp.archive.follow_up_events import FollowUpRelaxed
from hybridcsp.archive.follow_ups import FollowUpLevel
from hybridcsp.core.minimum import DISAGREEMENT
from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.relaxation.calculators.choice import CalculatorChoice
from hybridcsp.relaxation.calculators.registry import CalculatorLike, check_calculator, check_name
from hybridcsp.similarity.families import Families
from hybridcsp.utils.checks import finite_number, whole_number


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """Settings of follow-up relaxations: the best minima of a search are relaxed again with other calculators.

    Parameters
    ----------
    calculators
        Follow-up calculators, as the calculator of a search may be given. Each relaxes the best minima by the one
        before, the first those of the search.
    best
        Number of the best minima that are relaxed, of similar structures only the lowest.
    window
        Energy above the best minimum in eV/atom within which all further minima are relaxed too.
    every
        Number of relaxations of the search between follow-ups; 0: only after the search.
    counts
        Whether stopping criteria and the credit of sources count the minima of the last follow-up calculator; needs
        ``every``.
    disagreement
        Difference of the heights above the best minima of two calculators in eV/atom from which a minimum is marked.

    Raises
    ------
    InputError
        If a value is outside its range, ``counts`` is without ``every``, or a calculator is not known. No program that
        a calculator file names is started for this check, because a configuration may come from someone else.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    calculators: tuple[Any, ...] = ()
    best: int = 20
    window: float = 0.1
    every: int = 0
    counts: bool = False
    disagreement: float = DISAGREEMENT

    def __post_init__(self) -> None:
        for name, least in (("best", 1), ("every", 0)):
            whole_number(name, getattr(self, name), f"a whole number from {least}", least)
        for name in ("window", "disagreement"):
            finite_number(name, getattr(self, name), "a number of eV/atom from 0", low=0.0)
        if self.counts and not self.every:
            reason = "follow-ups can count only during the search; set every = N too, the relaxations between them"
            raise InputError("counts", self.counts, reason=reason)
        if not isinstance(self.calculators, list | tuple):
            raise InputError("calculators", self.calculators, "a list of calculators")
        object.__setattr__(self, "calculators", tuple(self.calculators))  # the way to set a field of a frozen dataclass
        for calculator in self.calculators:
            # Nothing is started yet: the calculators may come from a configuration that the user does not trust.
            with suppress(CalculatorError), _key_named():  # a missing model file is an error only in check
                check_name(CalculatorChoice.of(calculator))

    def check(self) -> None:
        """Check cheaply whether the calculators can be built; other interpreters that they name are started.

        Raises
        ------
        InputError, CalculatorError
            As :func:`~hybridcsp.relaxation.calculators.registry.check_calculator` for the first that cannot, and if
            there is none, but follow-ups during the search are asked for.
        """
        if self.every and not self.calculators:
            raise InputError("then.every", self.every, reason="there is no follow-up calculator; name one with --then")
        for calculator in self.calculators:
            with _key_named():
                check_calculator(calculator)

    @classmethod
    def of(cls, given: Any) -> FollowUp:
        """Return the settings that a user gave as such, or as one calculator or several."""
        if isinstance(given, cls):
            return given
        several = isinstance(given, list | tuple)
        try:
            return cls(calculators=tuple(given) if several else (given,))
        except InputError as error:
            raise error.renamed("then") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the calculators in the records of a search, each of them once."""
        names: list[str] = []
        seen: Counter[str] = Counter()
        for calculator in self.calculators:
            name = _name(calculator)
            seen[name] += 1
            names.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
        return tuple(names)

    @property
    def is_named(self) -> bool:
        """Whether all calculators are given by names, so that a configuration file can hold them."""
        return all(isinstance(calculator, str) for calculator in self.calculators)

    def record(self) -> dict[str, Any]:
        """Return the plain JSON that the archive keeps of the settings."""
        return {
            "calculators": list(self.names),
            "named": self.is_named,
            "best": self.best,
            "window": self.window,
            "every": self.every,
            "counts": self.counts,
            "disagreement": self.disagreement,
        }


@contextmanager
def _key_named() -> Iterator[None]:
    """Name the key of the calculators in errors about one of them."""
    try:
        yield
    except InputError as error:
        raise error.renamed("calculators") from None


def _name(calculator: CalculatorLike) -> str:
    if isinstance(calculator, CalculatorChoice):
        name = _name(calculator.calculator)
        return f"{name} {calculator.precision}" if calculator.precision else name
    if isinstance(calculator, str):
        return calculator
    kind = calculator if hasattr(calculator, "__qualname__") else type(calculator)
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A minimum that a follow-up calculator is to relax.

    Attributes
    ----------
    minimum
        Id of the minimum of the search.
    number
        Number of the follow-up calculator from 1.
    start
        Event of the relaxation from whose structure it starts: the best of the search, or with the calculator before.
    """

    minimum: int
    number: int
    start: CandidateRelaxed | FollowUpRelaxed


class Selection:
    """Select minima for follow-up relaxations; the result depends on the state of the archive alone.

    Parameters
    ----------
    archive
        Archive of the search.
    settings
        Settings of the follow-ups.
    most_failures
        Number of failures for the same reason after which a level without any success is given up; 0: never.
    """

    def __init__(self, archive: Archive, settings: FollowUp, most_failures: int) -> None:
        self._archive = archive
        self._settings = settings
        self._most_failures = most_failures
        self._families = Families(archive.structure_of)

    def is_due(self) -> bool:
        """Return whether minima are followed up now, while the search goes on.

        They are whenever another ``every`` relaxations have ended since the last follow-up relaxation, and then until
        nothing is left to follow up.
        """
        every, relaxations = self._settings.every, self._archive.state.relaxations
        if not every or not relaxations:
            return False
        last = self._archive.state.follow_ups.last_relaxation
        return last == relaxations or relaxations // every > last // every

    def left(self, running: Collection[tuple[int, int]] = ()) -> list[Selected]:
        """Return what is to be relaxed now, best first: everything left at the first level that is not complete.

        Parameters
        ----------
        running
            Numbers of follow-up calculators and ids of minima that are being relaxed.
        """
        follow_ups = self._archive.state.follow_ups
        busy = {(number, follow_ups.present(minimum)) for number, minimum in running}
        for level in follow_ups.levels[: len(self._settings.calculators)]:
            left = [] if self.is_given_up(level) else self._left_at(level, busy)
            if left or any(number == level.number for number, _ in busy):
                return left
        return []

    def _left_at(self, level: FollowUpLevel, busy: Collection[tuple[int, int]]) -> list[Selected]:
        return [
            one
            for one in self.selected(level.number)
            if (level.number, one.minimum) not in busy and not level.has_tried(one.minimum)
        ]

    def selected(self, number: int) -> list[Selected]:
        """Return everything that a follow-up calculator is to relax or has relaxed, best first.

        These are the lowest of each family of similar structures: the given number of them, and all in the window.
        """
        found: list[Selected] = []
        highest = math.inf
        for one in self._ranked(number):
            enthalpy = float(one.start.enthalpy_per_atom)
            highest = min(highest, enthalpy + self._settings.window)
            if len(found) >= self._settings.best and enthalpy > highest:
                break
            if not any(self._families.are_similar(one.start, other.start) for other in found):
                found.append(one)
        return found

    def is_given_up(self, level: FollowUpLevel) -> bool:
        """Return whether a level is given up, because its first relaxations all failed for the same reason."""
        failed = level.failed
        has_succeeded = bool(level.results or level.unconverged)
        return not has_succeeded and len(failed) == 1 and 0 < self._most_failures <= failed.total()

    def _ranked(self, number: int) -> Iterator[Selected]:
        """Yield the minima of the level before, best first; levels without any result are passed over."""
        state = self._archive.state
        ranked = state.ranked()
        ranks = {basin.id: rank for rank, basin in enumerate(ranked)}
        for level in reversed(state.follow_ups.levels[: number - 1]):
            if level.results:
                members = level.members()
                for minimum in level.ranked():
                    ids = [id_ for id_ in members.get(minimum.id, ()) if id_ in ranks]
                    if ids:
                        yield Selected(minimum=min(ids, key=ranks.__getitem__), number=number, start=minimum.best)
                return
        for basin in ranked:
            yield Selected(minimum=basin.id, number=number, start=basin.best)
