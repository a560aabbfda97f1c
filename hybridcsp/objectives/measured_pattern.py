"""The measured powder pattern that guides a search, as its settings give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from hybridcsp.errors import InputError, one_of
from hybridcsp.objectives.base import MAXIMUM, REPORTED
from hybridcsp.objectives.choice import ObjectiveChoice
from hybridcsp.powder import AXES, CELL_CHANGE, DEFAULT_WAVELENGTH, TWO_THETA, read_wavelength
from hybridcsp.utils.checks import finite_number
from hybridcsp.utils.paths import absolute

#: Name of the objective, and of its value in conditions and tables.
NAME = "xrd"


@dataclass(frozen=True, kw_only=True)
class MeasuredPattern:
    """A measured powder pattern, and how a search uses the similarity of minima to it.

    Parameters
    ----------
    pattern
        Path of the pattern, see :func:`~hybridcsp.powder.read_pattern`; ``None`` for a search without a pattern.
    wavelength
        Emission line by pymatgen's names (``"CuKa"``), or wavelength in Å.
    axis
        Quantity of the first column: ``"two-theta"`` (degrees), ``"q"`` (Å⁻¹) or ``"d"`` (Å).
    cell_change
        Largest relative change of a length of the cell by its adjustment to the pattern; with 0, cells are compared as
        they are.
    at_least
        If given, the similarity is a condition and no objective: minima are ordered by their enthalpies, and those of a
        smaller similarity are no parents of evolution and no lessons.

    Raises
    ------
    InputError
        If a value is not valid. The file is read only when the search is built.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    pattern: str | None = None
    wavelength: str | float = DEFAULT_WAVELENGTH
    axis: str = TWO_THETA
    cell_change: float = CELL_CHANGE
    at_least: float | None = None

    def __post_init__(self) -> None:
        if self.pattern is None:
            for name in ("wavelength", "axis", "cell_change", "at_least"):
                if getattr(self, name) != getattr(type(self), name):
                    reason = "it belongs to a measured powder pattern; add the file of one, pattern = FILE"
                    raise InputError(name, getattr(self, name), reason=reason)
            return
        if not isinstance(self.pattern, str) or not self.pattern.strip():
            raise InputError("pattern", self.pattern, "the path of a measured pattern, such as pattern.xy")
        read_wavelength(str(self.wavelength))
        if self.axis not in AXES:
            raise InputError("axis", self.axis, one_of(AXES))
        allowed = "a fraction from 0 to 0.2"
        object.__setattr__(self, "cell_change", finite_number("cell_change", self.cell_change, allowed, 0.0, 0.2))
        if self.at_least is not None:
            allowed = "a similarity from 0 to 1, such as 0.8"
            object.__setattr__(self, "at_least", finite_number("at_least", self.at_least, allowed, 0.0, 1.0))

    @classmethod
    def of(cls, given: object) -> MeasuredPattern:
        """Return the pattern that a user gave as such or as a path.

        Raises
        ------
        InputError
            If it is neither.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str | Path):
            return cls(pattern=str(given))
        allowed = "the path of a measured powder pattern, or a MeasuredPattern with its wavelength and axis"
        raise InputError(NAME, given, allowed)

    def in_folder(self, folder: Path) -> MeasuredPattern:
        """Return the pattern with an absolute path, if it has one that is relative to ``folder``."""
        return self if self.pattern is None else replace(self, pattern=absolute(self.pattern, folder))

    @classmethod
    def of_record(cls, settings: Mapping[str, Any]) -> MeasuredPattern:
        """Return the pattern of the first such objective in the recorded settings of a search, or none."""
        record = cls._in_record(settings)
        if record is None:
            return cls()
        return cls(pattern=record["objective"].partition(":")[2], **record.get("options", {}))

    @classmethod
    def digest_of_record(cls, settings: Mapping[str, Any]) -> str:
        """Return the hash of the file of that pattern; empty if there is none, or it was not recorded."""
        return str((cls._in_record(settings) or {}).get("digest", ""))

    @staticmethod
    def _in_record(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
        for record in settings.get("objectives", ()):
            if isinstance(record["objective"], str) and record["objective"].partition(":")[0] == NAME:
                found: Mapping[str, Any] = record
                return found
        return None

    @property
    def choice(self) -> ObjectiveChoice | None:
        """The objective that computes the similarity; ``None`` without a pattern."""
        if self.pattern is None:
            return None
        options = {"wavelength": self.wavelength, "axis": self.axis, "cell_change": self.cell_change}
        goal = MAXIMUM if self.at_least is None else REPORTED
        return ObjectiveChoice(objective=f"{NAME}:{self.pattern}", goal=goal, name=NAME, options=options)

    def condition(self, where: str) -> str:
        """Return a condition with that of the smallest similarity, if there is one, added to it."""
        own = "" if self.at_least is None else f"{NAME} >= {self.at_least:g}"
        if not own or where == own or where.endswith(f" and {own}"):
            return where
        return f"{where} and {own}" if where.strip() else own


def with_pattern(objectives: Any, measured: MeasuredPattern) -> list[Any]:
    """Return the objectives that a user gave, and that of a measured pattern, if there is one and it is not among them.

    Parameters
    ----------
    objectives
        One objective or a sequence of them, as :meth:`ObjectiveChoice.of` takes each.
    measured
        The pattern.
    """
    several = list(objectives) if isinstance(objectives, Sequence) and not isinstance(objectives, str) else [objectives]
    choice = measured.choice
    return several if choice is None or choice in several else [*several, choice]
